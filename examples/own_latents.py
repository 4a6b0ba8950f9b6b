"""Bring your own latents: a matrix in an .npy or .safetensors file as an encoder.

Your data then hold keys instead of pictures, sounds or molecules: numbers of rows or, with
a file of keys (one a line, in the order of the rows), these keys. All else is as with any encoder:
recipes, splits, reports, the saved model, and search by what the other modality has.

    python examples/own_latents.py
    python examples/own_latents.py --latents mine.npy --keys mine.txt --data pairs.csv

Without arguments it makes up such files first, from the sample: coarse pixels and colours of each
figure, as a stand-in for what your own model gives. `pairs.csv` has the columns image (keys) and
text.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
import torch
from PIL import Image
from safetensors.numpy import load_file
from sample import sample_rows, show_recall, write_csv
from torch import Tensor

import fusemix_core
from fusemix_core import Encoder, EncoderSpec
from fusemix_core.digests import file_sha256
from fusemix_core.errors import ArtefactError, DataError


class OwnLatents(Encoder):
    """Rows of a matrix `[n, d]` by their keys. The data hold keys: an item is a str.

    The latent store knows the latents by the content of the file, so a new matrix is read anew.
    """

    def __init__(self, spec: EncoderSpec) -> None:
        self.spec = spec
        self.matrix = read_matrix(Path(spec.weights))
        keys = spec.options["keys"]
        names = Path(keys).read_text(encoding="utf-8").splitlines() if keys else None
        names = [str(i) for i in range(len(self.matrix))] if names is None else names
        self.rows = {name.strip(): i for i, name in enumerate(names)}
        if not len(self.rows) == len(names) == len(self.matrix):
            raise ArtefactError(
                f"{keys} has {len(names)} keys, {len(self.rows)} of them different, for "
                f"{len(self.matrix)} rows of {spec.weights}."
            )

    @classmethod
    def of(cls, file: str | Path, modality: str, keys: str | Path | None = None) -> Self:
        """The encoder of a matrix and its keys."""
        matrix = read_matrix(Path(file))
        spec = EncoderSpec(
            name=f"latents:{Path(file).name}",
            modality=modality,
            takes="text",
            target="own_latents:OwnLatents",
            dim=matrix.shape[1],
            weights=str(Path(file).resolve()),
            local=True,
            # The digest, so that the same matrix with other keys is another encoder.
            options={"keys": str(keys or ""), "sha256": file_sha256(keys) if keys else ""},
        )
        return cls(spec)

    @classmethod
    def load(cls, spec: EncoderSpec, device: torch.device, dtype: torch.dtype) -> Self:
        return cls(spec)

    def collate(self, items: Sequence[str]) -> Tensor:
        """int64 `[n]`: the rows. A key that is not there is set aside as a bad item."""
        for item in items:
            if not isinstance(item, str):
                raise TypeError(f"{self.spec.name} takes keys, not {type(item).__name__}")
            if item not in self.rows:
                raise DataError(f"there are no latents for '{item}'")
        return torch.tensor([self.rows[item] for item in items], dtype=torch.long)

    def encode(self, batch: Tensor, view: str = "pooled") -> Tensor:
        return torch.from_numpy(np.asarray(self.matrix[batch.numpy()], np.float32))


def read_matrix(path: Path) -> np.ndarray:
    """The matrix `[n, d]` in a file, mapped where that can be. Nothing is unpickled."""
    if path.suffix == ".npy":
        matrix = np.load(path, mmap_mode="r", allow_pickle=False)
    else:
        (matrix,) = load_file(path).values()
    if matrix.ndim != 2:
        raise ArtefactError(f"{path} holds an array of shape {matrix.shape}, not a matrix.")
    return matrix


def make_up(folder: Path, limit: int) -> tuple[Path, Path, Path]:
    """(latents, keys, pairs) of the sample, as files of a user's might be."""
    rows = sample_rows(limit)
    np.save(folder / "mine.npy", np.stack([coarse(row["image"]) for row in rows]))
    keys = [f"figure-{i}" for i in range(len(rows))]
    (folder / "mine.txt").write_text("\n".join(keys) + "\n", encoding="utf-8")
    pairs = [
        {"image": key, "text": row["text"], "split": row["split"]}
        for key, row in zip(keys, rows, strict=True)
    ]
    write_csv(folder / "pairs.csv", pairs)
    return folder / "mine.npy", folder / "mine.txt", folder / "pairs.csv"


def coarse(path: str) -> np.ndarray:
    """float32 `[d]`: 12×12 grey pixels, and a histogram of 4×4×4 colours."""
    image = Image.open(path).convert("RGB")
    grey = np.asarray(image.convert("L").resize((12, 12)), np.float32).ravel() / 255
    colours = np.asarray(image.resize((64, 64)), np.int64).reshape(-1, 3) // 64
    counts = np.bincount(colours @ [16, 4, 1], minlength=64).astype(np.float32)
    return np.concatenate([grey, np.sqrt(counts / counts.sum())])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--latents", type=Path, help="a matrix [n, d]: .npy or .safetensors")
    parser.add_argument("--keys", type=Path, help="the rows' keys, one a line [row numbers]")
    parser.add_argument("--data", type=Path, help="a manifest with the columns image and text")
    parser.add_argument("--limit", type=int, default=1000, help="figures of the sample to use")
    args = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        data = {"source": str(args.data)}
        if args.latents is None:
            args.latents, args.keys, args.data = make_up(Path(folder), args.limit)
            data = {"source": str(args.data), "split_column": "split"}
        mine = OwnLatents.of(args.latents, "image", args.keys)
        result = fusemix_core.align({"image": mine, "text": "minilm"}, data)
        show_recall(result.results["test"]["retrieval"]["directions"])

        # Search your rows by words: their embeddings, and those of a query, in the same space.
        keys = list(mine.rows)
        gallery = result.model.encode("image", keys)
        query = result.model.encode("text", ["a black and white photo of a man"])
        scores = result.model.similarity(query, gallery, "text", "image")[0]
        print("best rows:", [keys[i] for i in scores.topk(3).indices.tolist()])


if __name__ == "__main__":
    main()
