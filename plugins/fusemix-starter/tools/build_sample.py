"""Builds the sample: whole modules of ten OpenStax books, figures shrunk, split by module.

    python tools/build_sample.py --source FOLDER [--out FOLDER]

FOLDER holds `manifest.jsonl` (image, alt, caption, book, module, section, source, revision,
licence) and the images. The same source and Pillow give the same files, byte for byte.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import shutil
from collections import defaultdict
from functools import partial
from pathlib import Path

from PIL import Image

SEED = "fusemix-starter 1"
ROWS_PER_BOOK = 157
WORDS = range(5, 101)
LONGEST_ASPECT = 4.0
SIDE, QUALITY = 208, 66
"""WebP holds 208 px in the bytes of a JPEG of 160 px; latents stay nearer to the originals'."""
TEST, VALIDATION = 1 / 6, 1 / 10
REVISIONS = {"introduction-anthropology": "418eedd9be", "introduction-business": "78c9e7ad4e"}
"""Of the two books whose rows say HEAD; from the notes that came with the data."""
COLUMNS = [
    "image",
    "text",
    "caption",
    "split",
    "book",
    "module",
    "section",
    "source",
    "revision",
    "licence",
]

Row = dict[str, str]


def main() -> None:
    """Write images and `pairs.csv` to the package's sample folder, and say how much."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", type=Path, required=True)
    default = Path(__file__).parents[1] / "src/fusemix_starter/sample"
    parser.add_argument("--out", type=Path, default=default)
    args = parser.parse_args()
    with open(args.source / "manifest.jsonl", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    chosen = choose(usable(rows, args.source))
    shutil.rmtree(args.out / "images", ignore_errors=True)
    write(chosen, args.source, args.out)
    size = sum(f.stat().st_size for f in args.out.rglob("*") if f.is_file())
    splits = {s: sum(r["split"] == s for r in chosen) for s in ("train", "validation", "test")}
    print(f"{len(chosen)} pairs, {splits}, {size / 1e6:.2f} MB")


def usable(rows: list[Row], source: Path) -> list[Row]:
    """Rows with a description of 5 to 100 words, no extreme shape, no text or picture twice."""
    kept, seen = [], set()
    for row in rows:
        text = " ".join(row["alt"].split())
        picture = hashlib.sha256((source / row["image"]).read_bytes()).hexdigest()
        if len(text.split()) not in WORDS or {text.lower(), picture} & seen:
            continue
        with Image.open(source / row["image"]) as image:
            if max(image.size) > LONGEST_ASPECT * min(image.size):
                continue
        seen |= {text.lower(), picture}
        revision = REVISIONS.get(row["book"], row["revision"])
        kept.append({**row, "text": text, "revision": revision})
    return kept


def choose(rows: list[Row]) -> list[Row]:
    """Whole modules of each book, in a seeded order, until it has its share; each with a split."""
    books: dict[str, dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        books[row["book"]][row["module"]].append(row)
    chosen = []
    for book, modules in sorted(books.items()):
        total = min(ROWS_PER_BOOK, sum(map(len, modules.values())))
        taken = 0
        for module in sorted(modules, key=partial(seeded, book)):
            if taken >= total:
                break
            split = split_at(taken / total)
            chosen += [{**row, "split": split} for row in modules[module]]
            taken += len(modules[module])
    return chosen


def seeded(book: str, module: str) -> bytes:
    """Where a module comes in the order of its book."""
    return hashlib.sha256(f"{SEED} {book} {module}".encode()).digest()


def split_at(share: float) -> str:
    """The split of a module that begins at this share of its book's rows."""
    if share < TEST:
        return "test"
    return "validation" if share < TEST + VALIDATION else "train"


def write(rows: list[Row], source: Path, out: Path) -> None:
    """The shrunk images under `images/BOOK/`, the manifest, and the books as `classes.txt`."""
    out.mkdir(parents=True, exist_ok=True)
    books = sorted({row["book"] for row in rows})
    (out / "classes.txt").write_text("".join(f"{book}\n" for book in books), encoding="utf-8")
    with open(out / "pairs.csv", "w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, COLUMNS, extrasaction="ignore", lineterminator="\n")
        table.writeheader()
        for row in rows:
            name = f"images/{row['book']}/{Path(row['image']).stem}.webp"
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            shrink(source / row["image"], out / name)
            table.writerow({**row, "image": name})


def shrink(source: Path, out: Path) -> None:
    """Write the image as WebP, its shorter side at most `SIDE` pixels."""
    with Image.open(source) as image:
        image = image.convert("RGB")
        scale = SIDE / min(image.size)
        if scale < 1:
            width, height = (round(n * scale) for n in image.size)
            image = image.resize((width, height), Image.Resampling.LANCZOS)
        image.save(out, "WEBP", quality=QUALITY, method=6)


if __name__ == "__main__":
    main()
