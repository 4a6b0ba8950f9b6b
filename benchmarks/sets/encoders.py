"""The encoders of the sets: rows of a file by number, and texts whose latents are on file.

Named by file: `./benchmarks/sets/encoders.py:Lite0`. Latents lie in the folder that the variable
FUSEMIX_SETS names, as `python -m benchmarks prepare` writes them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from fusemix_core.digests import file_sha256
from fusemix_core.errors import ArtefactError, DataError
from fusemix_core.interfaces import Encoder
from fusemix_core.registry import registry
from fusemix_core.specs import EncoderSpec

FOLDER = "FUSEMIX_SETS"
"""The variable that names the folder of the sets."""
COPY = "#"
"""What stands before the number of a copy in a key: `17#2` has the latents of `17`."""
LAYERS = "layers-middle-last"


def folder() -> Path:
    return Path(os.environ.get(FOLDER, "sets"))


class Rows(Encoder):
    """Rows of a file of the folder by their number. An item is a str: `17`, or `17#2` of a copy."""

    file: ClassVar[str]

    def __init__(self, spec: EncoderSpec) -> None:
        self.spec = spec
        self.matrix = latents_on_file(folder() / self.file)

    @classmethod
    def load(cls, spec: EncoderSpec, device: torch.device, dtype: torch.dtype) -> Self:
        return cls(spec)

    def collate(self, items: Sequence[str]) -> Tensor:
        """int64 `[n]`: the rows."""
        rows = []
        for item in items:
            if not isinstance(item, str):
                raise TypeError(f"{self.spec.name} takes numbers of rows as texts")
            number = item.partition(COPY)[0]
            if not number.isdecimal() or int(number) >= len(self.matrix):
                raise DataError(f"there is no row '{item}' in {self.file}")
            rows.append(int(number))
        return torch.tensor(rows, dtype=torch.long)

    def encode(self, batch: Tensor, view: str = "pooled") -> Tensor:
        return torch.from_numpy(np.asarray(self.matrix[batch.numpy()], np.float32))

    @property
    def weights_digest(self) -> str:
        return file_sha256(folder() / self.file)


def _spec(name: str, modality: str, target: str, dim: int) -> EncoderSpec:
    target = f"benchmarks.sets.encoders:{target}"
    return EncoderSpec(name=name, modality=modality, takes="text", target=target, dim=dim)


class Lite0(Rows):
    """EfficientNet-lite0 of icons."""

    spec = _spec("icons-lite0", "image", "Lite0", 1280)
    file = "icons/images.npy"


class GeoCLIP(Rows):
    """GeoCLIP's location encoder of coordinates."""

    spec = _spec("places-geoclip", "place", "GeoCLIP", 512)
    file = "places/places.npy"


class Morgan(Rows):
    """Morgan counts."""

    spec = _spec("molecules-morgan", "molecule", "Morgan", 1024)
    file = "molecules/molecules.npy"


class MiniLM(Encoder):
    """MiniLM of texts: those of the sets from files, any other one by the encoder `minilm`.

    `SET/texts.json` in the folder has the texts, and `texts.npy` float16 `[n, 768]`: the middle and
    the last layer, each of unit norm. `pooled` is the last one.
    """

    spec = EncoderSpec(
        name="words-minilm",
        modality="text",
        target="benchmarks.sets.encoders:MiniLM",
        dim=384,
        views=("pooled", LAYERS),
        normalised=True,
    )

    def __init__(self, spec: EncoderSpec) -> None:
        self.spec = spec
        self.matrices: list[np.ndarray] = []
        self.places: dict[str, tuple[int, int]] = {}
        for number, path in enumerate(_text_files()):
            texts = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
            self.matrices.append(latents_on_file(path))
            if len(texts) != len(self.matrices[-1]):
                raise ArtefactError(f"{path} has not as many rows as {path.stem}.json has texts.")
            self.places |= {text: (number, row) for row, text in enumerate(texts)}

    @classmethod
    def load(cls, spec: EncoderSpec, device: torch.device, dtype: torch.dtype) -> Self:
        return cls(spec)

    def collate(self, items: Sequence[str]) -> list[str]:
        if not all(isinstance(item, str) for item in items):
            raise TypeError(f"{self.spec.name} takes texts")
        return list(items)

    def encode(self, batch: list[str], view: str = "pooled") -> Tensor:
        out = torch.zeros(len(batch), 2, 384)
        unknown = [i for i, text in enumerate(batch) if text not in self.places]
        for i, text in enumerate(batch):
            if text in self.places:
                number, row = self.places[text]
                out[i] = torch.from_numpy(self.matrices[number][row].astype(np.float32)).view(2, -1)
        if unknown:
            model = _minilm()
            inputs = model.collate([batch[i] for i in unknown])
            found = model.encode(inputs, LAYERS).float()
            out[unknown] = torch.nn.functional.normalize(found.view(len(unknown), 2, -1), dim=2)
        return out if view == LAYERS else out[:, 1]

    @property
    def weights_digest(self) -> str:
        """Of the texts that are on file, so that a new set's are not taken for those before."""
        files = [path.with_suffix(s) for path in _text_files() for s in (".npy", ".json")]
        return " ".join(map(file_sha256, files))


def _text_files() -> list[Path]:
    return sorted(folder().glob("*/texts.npy"))


@cache
def _minilm() -> Any:
    spec = registry.encoder("minilm", "text")
    return registry.target_of(spec).load(spec, torch.device("cpu"), torch.float32)


def latents_on_file(path: Path) -> np.ndarray:
    """The matrix in a file, mapped. Nothing is unpickled."""
    if not path.exists():
        raise ArtefactError(
            f"{path} does not exist.",
            f"Write it by `python -m benchmarks prepare --out FOLDER`, and set {FOLDER}=FOLDER.",
        )
    return np.load(path, mmap_mode="r", allow_pickle=False)
