"""From lists of icons, places and molecules to sets of pairs with a split.

    python -m benchmarks prepare --data FOLDER --out FOLDER

`--data` has `icons.jsonl`, `places.jsonl` and `molecules.jsonl`, or some of them, one row an item:
id, split (train, validation or test, so that all rows of a concept are on one side) and

    icons      svg, text (what is drawn), category, also (further words)
    places     lat, lon, name, country
    molecules  smiles, name

and the latents that were computed from them, `SET-x.npy`, row by row; of icons `images-…` in parts
(`merged_parts`); and `SET-texts.json` and `-texts.npy` (`encoders.MiniLM`), without which texts are
encoded as they are needed.

`--out` gets `SET/pairs.jsonl` and what `encoders.py` reads. Held out are at most 2,000 pairs to
test and 1,500 to choose on, one of each concept, whose texts do not occur in training.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Row = Mapping[str, Any]
Pair = dict[str, Any]

TEST, VALIDATION = 2_000, 1_500


def prepare(data: Path, out: Path) -> list[str]:
    """Write every set whose list is in `data`; the names of those."""
    made = []
    for name, (modality, text) in SETS.items():
        source = _found(data, f"{name}.jsonl")
        if source is None:
            continue
        folder = out / name
        folder.mkdir(parents=True, exist_ok=True)
        rows = list(read_lines(source))
        pairs = pairs_of(rows, modality, text)
        write_lines(folder / "pairs.jsonl", pairs)
        _latents(data, source.parent, name, folder, modality)
        if name == "icons":
            from benchmarks.sets.hard import write_hard_cases

            write_hard_cases(rows, pairs, folder)
        made.append(name)
    return made


def _word(row: Row) -> str:
    return row["text"]


def _place(row: Row) -> str:
    return f"{row['name']}, {row['country']}"


def _name(row: Row) -> str:
    return row["name"]


SETS = {"icons": ("image", _word), "places": ("place", _place), "molecules": ("molecule", _name)}
"""Name → modality, and the text of a row."""


def pairs_of(rows: Sequence[Row], modality: str, text: Any) -> list[Pair]:
    """All rows for training, in their order, then those held out.

    A pair has the number of its row as the item, its `text` and its `split`. Which ones are held
    out depends on the ids only, not on the order of the rows.
    """
    train = [_pair(i, row, modality, text(row)) for i, row in enumerate(rows) if _in(row, "train")]
    seen = {pair["text"] for pair in train}
    pairs = train
    for split, most in (("validation", VALIDATION), ("test", TEST)):
        held = held_out(((i, row) for i, row in enumerate(rows) if _in(row, split)), text, seen)
        held = held[:most]
        seen |= {text(row) for _, row in held}
        pairs = pairs + [_pair(i, row, modality, text(row)) for i, row in held]
    return pairs


def held_out(rows: Iterable[tuple[int, Row]], text: Any, seen: set[str]) -> list[tuple[int, Row]]:
    """One row of each text that is not among those `seen`, in an order drawn by their ids."""
    drawn: dict[str, tuple[int, Row]] = {}
    for number, row in sorted(rows, key=lambda one: _draw(one[1])):
        if text(row) not in seen:
            drawn.setdefault(text(row), (number, row))
    return list(drawn.values())


def _draw(row: Row) -> str:
    return hashlib.sha256(f"held out {row['id']}".encode()).hexdigest()


def _in(row: Row, split: str) -> bool:
    return row["split"] == split


def _pair(number: int, row: Row, modality: str, text: str) -> Pair:
    return {modality: str(number), "text": text, "split": row["split"]}


def _latents(data: Path, beside: Path, name: str, folder: Path, modality: str) -> None:
    """Latents of the items and of the texts, as `encoders.py` looks for them."""
    to = folder / ("images.npy" if name == "icons" else f"{name}.npy")
    parts = sorted(beside.glob("images-*of*.npy")) if name == "icons" else []
    if parts:
        merged_parts(parts, beside / "order.npy", to)
    elif (found := data / f"{name}-x.npy").exists():
        shutil.copyfile(found, to)
    for suffix in ("json", "npy"):
        known = [data / f"{name}-texts.{suffix}", beside / f"texts.{suffix}"]
        for path in known[: 2 if name == "icons" else 1]:
            if path.exists():
                shutil.copyfile(path, folder / f"texts.{suffix}")


def merged_parts(parts: Sequence[Path], order: Path, to: Path) -> None:
    """One matrix in the order of the rows, of parts that were computed side by side.

    Row j of part p (of n, by name) is that of row `order[p + n · j]`.
    """
    matrices = [np.load(path, mmap_mode="r", allow_pickle=False) for path in parts]
    rows = np.load(order, allow_pickle=False)
    width = matrices[0].shape[1]
    out = np.lib.format.open_memmap(to, "w+", np.float16, (len(rows), width))
    for number, matrix in enumerate(matrices):
        own = rows[number :: len(matrices)]
        if len(own) != len(matrix):
            raise ValueError(f"{parts[number]} has {len(matrix)} rows, not {len(own)}")
        if not matrix[-1].any():
            raise ValueError(f"{parts[number]} is not finished: its last row is empty")
        out[own] = matrix
    out.flush()


def _found(data: Path, name: str) -> Path | None:
    places = (data / name, data / Path(name).stem / name)
    return next((path for path in places if path.exists()), None)


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a file of JSON lines, without drawings, which are most of its size."""
    with open(path, encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            row.pop("svg", None)
            yield row


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    with open(path, "w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
