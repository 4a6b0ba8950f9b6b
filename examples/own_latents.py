"""Bring your own latents: a matrix in a file, aligned with the texts of its rows.

    python examples/own_latents.py
    python examples/own_latents.py --latents mine.npy --data pairs.csv

Without arguments it makes such files from the sample: coarse pixels and colours of each figure
stand in for what your own model gives. The column image of `pairs.csv` has the ids of
`mine.ids.txt`, which has one line per row of the matrix, or row numbers from 0.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from sample import sample_rows, show_recall, write_csv

import fusemix_core
from fusemix_core.data.matrices import read_ids


def make_files(folder: Path, limit: int) -> tuple[Path, Path]:
    """(latents, pairs) of the sample, as your own files might be."""
    rows = sample_rows(limit)
    np.save(folder / "mine.npy", np.stack([coarse(row["image"]) for row in rows]))
    ids = [f"figure-{i}" for i in range(len(rows))]
    (folder / "mine.ids.txt").write_text("\n".join(ids) + "\n", encoding="utf-8")
    pairs = [
        {"image": one, "text": row["text"], "split": row["split"]}
        for one, row in zip(ids, rows, strict=True)
    ]
    write_csv(folder / "pairs.csv", pairs)
    return folder / "mine.npy", folder / "pairs.csv"


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
    parser.add_argument("--latents", type=Path, help="a matrix [n, d]: .npy, .npz, .safetensors")
    parser.add_argument("--data", type=Path, help="a manifest with the columns image and text")
    parser.add_argument("--limit", type=int, default=1000, help="figures of the sample to use")
    args = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        data = {"source": str(args.data)}
        if args.latents is None:
            args.latents, args.data = make_files(Path(folder), args.limit)
            data = {"source": str(args.data), "split_column": "split"}
        result = fusemix_core.align({"image": f"npy:{args.latents}", "text": "minilm"}, data)
        show_recall(result.results["test"]["retrieval"]["directions"])

        # Search your rows by words: their embeddings, and those of a query, in the same space.
        ids = read_ids(args.latents)
        gallery = result.model.encode("image", ids)
        query = result.model.encode("text", ["a black and white photo of a man"])
        scores = result.model.similarity(query, gallery, "text", "image")[0]
        print("best rows:", [ids[i] for i in scores.topk(3).indices.tolist()])


if __name__ == "__main__":
    main()
