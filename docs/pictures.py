"""Makes the picture of searches and the terminal text that README shows: `python docs/pictures.py`.

It runs README's three commands on the bundled sample, in a folder that is removed afterwards, and
writes `docs/pictures/first.txt` and `docs/pictures/searches.webp`. docs/generate.py puts the text
into README.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from fusemix_core import FusedModel
from fusemix_core.config import DataConfig
from fusemix_core.jobs.search import Gallery

FOLDER = Path(__file__).parent / "pictures"
COMMANDS = (
    "fusemix sample",
    "fusemix align --a efficientnet-lite0 --b minilm --data sample/pairs.csv --split-column split "
    "--out runs/mine",
    'fusemix search runs/mine --data sample/images "a map of the world" -k 3',
)
QUERIES = ("a map of the world", "a skeleton", "an electric circuit")
COUNT = 4
WIDTH, HEIGHT, GAP, HEAD = 230, 160, 10, 34


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        texts = [run(command, folder) for command in COMMANDS]
        text = shown(texts).replace(f"{folder.resolve()}/", "")
        (FOLDER / "first.txt").write_text(text, encoding="utf-8")
        draw(found(folder)).save(FOLDER / "searches.webp", quality=82, method=6)
    print(text)


def run(command: str, folder: Path) -> str:
    """What one command prints."""
    words = [w.strip('"') for w in re.findall(r'"[^"]*"|\S+', command)][1:]
    done = subprocess.run(
        [sys.executable, "-m", "fusemix_core.cli", *words],
        cwd=folder,
        env={**os.environ, "COLUMNS": "120"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return done.stdout


def shown(texts: list[str]) -> str:
    """The recall table by the chosen score, its baselines, and the hits of the search."""
    _, aligned, searched = texts
    lines = aligned.splitlines()
    start, end = (i for i, line in enumerate(lines) if line.startswith("Scored with"))
    width = lines[start + 1].index("  median rank")
    table = [line[:width].rstrip() for line in lines[start + 1 : end]]
    hits = [line.rstrip() for line in searched.rstrip().splitlines()]
    return "\n".join([*table, "", *hits]) + "\n"


def found(folder: Path) -> dict[str, list[Path]]:
    """The best images of each query."""
    model = FusedModel.from_pretrained(folder / "runs/mine/model")
    gallery = Gallery(model, "image", DataConfig(source=(str(folder / "sample/images"),)))
    return {q: [Path(h.item) for h in gallery.search(q, "text", COUNT)] for q in QUERIES}


def draw(rows: dict[str, list[Path]]) -> Image.Image:
    """One row per query: the text, and below it what was found."""
    from matplotlib import font_manager

    font = ImageFont.truetype(font_manager.findfont("DejaVu Sans"), 18)
    row = HEAD + HEIGHT + GAP
    size = (COUNT * (WIDTH + GAP) + GAP, len(rows) * row + GAP)
    sheet = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(sheet)
    for number, (query, files) in enumerate(rows.items()):
        top = number * row + GAP
        pen.text((GAP, top + 4), f"“{query}”", fill="#222222", font=font)
        for place, file in enumerate(files):
            with Image.open(file) as image:
                image = image.convert("RGB")
                image.thumbnail((WIDTH, HEIGHT), Image.Resampling.LANCZOS)
            left = GAP + place * (WIDTH + GAP) + (WIDTH - image.width) // 2
            sheet.paste(image, (left, top + HEAD + (HEIGHT - image.height) // 2))
    return sheet


if __name__ == "__main__":
    main()
