"""Builds the training pictures of the emoji model from six permissively licensed icon sets.

    python build.py --out DIR

Fetches the sets with `npm pack`, renders each SVG at 32 x 32 pixels on white, and writes
`pictures.safetensors` (uint8 [n, 3, 32, 32]) and `manifest.json`: the concepts with their captions,
and each picture's concept, set, icon and split. Needs `resvg-py` and npm.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import subprocess
import tarfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import resvg_py
from concepts import ADDED, GROUPS, LEFT_OUT, SYNONYMS, names
from PIL import Image
from safetensors.numpy import save_file

SIZE = 32
HELD_OUT = 0.1
KEYWORDS = 5
SETS = {  # no set under CC BY-SA: its terms would bind the weights
    "noto": "@iconify-json/noto@1.2.9",
    "noto-v1": "@iconify-json/noto-v1@1.2.5",
    "fluent-emoji-flat": "@iconify-json/fluent-emoji-flat@1.2.6",
    "twemoji": "@iconify-json/twemoji@1.2.5",
    "emojione": "@iconify-json/emojione@1.2.3",
    "fxemoji": "@iconify-json/fxemoji@1.2.2",
}
NAMES = "unicode-emoji-json@0.9.0"
KEYWORDS_PACKAGE = "emojilib@4.0.3"


def packed(package: str, folder: Path) -> tarfile.TarFile:
    """An npm package's tarball, fetched once; nothing of it is run."""
    name, version = package.lstrip("@").rsplit("@", 1)
    path = folder / f"{name.replace('/', '-')}-{version}.tgz"
    if not path.exists():
        command = ["npm", "pack", "--ignore-scripts", "--silent", package]
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return tarfile.open(path)


def member(package: str, name: str, folder: Path) -> dict:
    """A JSON file of an npm package."""
    with packed(package, folder) as tar:
        file = tar.extractfile(f"package/{name}")
        assert file is not None
        return json.load(file)


def chosen(folder: Path) -> dict[str, list[str]]:
    """The concepts, in Unicode's order, each with its keywords."""
    emoji = member(NAMES, "data-by-emoji.json", folder)
    keywords = member(KEYWORDS_PACKAGE, "dist/emoji-en-US.json", folder)
    added, left_out = set(names(ADDED)), set(names(LEFT_OUT))
    found = {}
    for character, facts in emoji.items():
        name = facts["name"]
        clock = "o’clock" in name or name.endswith("-thirty")
        if name in added or (facts["group"] in GROUPS and name not in left_out and not clock):
            words = [word.replace("_", " ") for word in keywords.get(character, [])]
            found[name] = [word for word in words if word.isascii() and word != name.lower()]
    missing = (added | set(SYNONYMS)) - set(found)
    if missing:
        raise SystemExit(f"not among Unicode's names: {sorted(missing)}")
    return found


def captions(name: str, keywords: list[str]) -> list[str]:
    """What people may type for a concept; training draws one of them each time."""
    words = name.replace("’", "'")
    plain = [words, f"a picture of a {words}", f"{words} emoji", f"an icon of a {words}"]
    spoken = [text for word in SYNONYMS.get(name, ()) for text in (word, f"a {word}")]
    return plain + spoken + [f"{words}, {word}" for word in keywords[:KEYWORDS]]


def icon_key(icons: dict, name: str) -> str | None:
    """The icon's key in a set: hyphens between the words, or (fxemoji) none."""
    slug = "-".join("".join(c if c.isalnum() else " " for c in name.lower()).split())
    return next((key for key in (slug, slug.replace("-", "")) if key in icons), None)


def render(icon: dict, width: int, height: int) -> np.ndarray:
    """An SVG body on white, uint8 [3, SIZE, SIZE]: drawn four times as large, then averaged."""
    w, h = icon.get("width", width), icon.get("height", height)
    side = max(w, h)
    left, top = icon.get("left", 0) - (side - w) / 2, icon.get("top", 0) - (side - h) / 2
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{left} {top} {side} {side}">'
    svg = f"{head}{icon['body']}</svg>"
    large = 4 * SIZE
    png = bytes(resvg_py.svg_to_bytes(svg_string=svg, width=large, height=large))
    drawn = Image.open(io.BytesIO(png)).convert("RGBA")
    white = Image.new("RGBA", drawn.size, "white")
    picture = Image.alpha_composite(white, drawn).convert("RGB").resize((SIZE, SIZE), Image.BOX)
    return np.ascontiguousarray(np.asarray(picture).transpose(2, 0, 1))


def drawn(names: Iterable[str], folder: Path) -> tuple[list[np.ndarray], list[dict[str, str]]]:
    """Every picture that a set has of one of the names, and where it is from."""
    pictures, rows = [], []
    for set_name, package in SETS.items():
        data = member(package, "icons.json", folder)
        icons = dict(data["icons"])
        for alias, value in data.get("aliases", {}).items():
            if value["parent"] in data["icons"]:
                icons[alias] = data["icons"][value["parent"]]
        for name in names:
            if (key := icon_key(icons, name)) is not None:
                pictures.append(render(icons[key], data.get("width", 16), data.get("height", 16)))
                rows.append({"concept": name, "set": set_name, "icon": key, "split": "train"})
    return pictures, rows


def hold_out(rows: list[dict[str, str]]) -> None:
    """Move a tenth of the pictures to the split `test`; each concept keeps two or more."""
    left = Counter(row["concept"] for row in rows)
    wanted = HELD_OUT * len(rows)
    for i in random.Random(0).sample(range(len(rows)), k=len(rows)):  # noqa: S311
        if sum(row["split"] == "test" for row in rows) >= wanted:
            return
        if left[rows[i]["concept"]] > 2:
            rows[i]["split"] = "test"
            left[rows[i]["concept"]] -= 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tarballs", type=Path, help="a folder that has or gets npm's tarballs")
    args = parser.parse_args()
    tarballs = args.tarballs or args.out / "tarballs"
    for folder in (args.out, tarballs):
        folder.mkdir(parents=True, exist_ok=True)
    concepts = chosen(tarballs)
    pictures, rows = drawn(concepts, tarballs)
    count = Counter(row["concept"] for row in rows)
    kept = [i for i, row in enumerate(rows) if count[row["concept"]] >= 2]
    pictures, rows = [pictures[i] for i in kept], [rows[i] for i in kept]
    hold_out(rows)
    stacked = np.ascontiguousarray(np.stack(pictures))
    save_file({"pictures": stacked}, args.out / "pictures.safetensors")
    listed = [
        {"name": name, "captions": captions(name, words)}
        for name, words in concepts.items()
        if count[name] >= 2
    ]
    manifest = {"sets": SETS, "concepts": listed, "pictures": rows}
    (args.out / "manifest.json").write_text(json.dumps(manifest, indent=1, ensure_ascii=False))
    test = sum(row["split"] == "test" for row in rows)
    print(f"{len(listed)} concepts, {len(rows)} pictures, {test} of them held out")


if __name__ == "__main__":
    main()
