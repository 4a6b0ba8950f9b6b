"""Search icons by words: the npm package @iconify/json in, a model that finds icons out.

One tarball has 380,000 icons of 238 sets, 300,000 of them under permissive licences and no logos.
The only text is the name that a person gave each icon. This example draws icons, aligns images and
names with EfficientNet-lite0 and MiniLM, measures on names that training never saw, and answers
your words with a contact sheet.

    pip install . ./plugins/fusemix-starter skia-python
    npm pack @iconify/json
    python examples/icons.py iconify-json-*.tgz --out icons --search "a sad face" "something to eat"
    python examples/icons.py --out icons --search "bad weather"

The first run draws and encodes a random sample of 4,000 icons, which takes minutes. Later runs
start from what is in --out. `--limit 0` takes all icons: hours on a laptop, and a better model.

In --out: pairs.jsonl (image, words, set, style, category, licence and author of each icon), the
images, a run with its report and model, sheet.png, and beside it sheet.csv with the licences of the
icons on it. Only icons under permissive licences are taken; CC BY asks you to name the author.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import heapq
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import torch
from icon_images import Found, contact_sheet, draw, load_skia, save
from icon_sets import Icon, Package
from safetensors.torch import load_file, save_file
from sample import show_recall

import fusemix_core
from fusemix_core.cli.console import progress
from fusemix_core.cli.progress import ConsoleReporter

QUERIES = ["a sad face", "bad weather", "something to eat", "money", "medicine", "travel by air"]
COLUMNS = 9


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path, nargs="?", help="the tarball, or its unpacked folder")
    parser.add_argument("--out", type=Path, default=Path("icons"), help="folder for all results")
    parser.add_argument("--limit", type=int, default=4000, help="icons to take, 0: all")
    parser.add_argument("--seed", type=int, default=0, help="of the random sample")
    parser.add_argument("--logos", action="store_true", help="keep logos, which are trade marks")
    parser.add_argument("--search", nargs="+", default=QUERIES, metavar="WORDS")
    args = parser.parse_args()

    pairs = args.out / "pairs.jsonl"
    if args.source:
        package = Package(args.source, logos=args.logos)
        write_pairs(package, pairs, args.limit, args.seed)
    elif not pairs.exists():
        parser.error(f"no icons in {args.out} yet: give the tarball (npm pack @iconify/json)")
    run = args.out / f"run-{hashlib.sha256(pairs.read_bytes()).hexdigest()[:8]}"
    with pairs.open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    if not collection_of(run).exists():
        fit(pairs, run)
    search(run, rows, args.search, args.out)


# -- from the package to pairs ---------------------------------------------------------------------


def write_pairs(package: Package, path: Path, limit: int, seed: int) -> None:
    """Draw the icons that have no image yet, and write a row for each icon with an image."""
    skia = load_skia()
    images = path.parent / f"images-{package.version}"
    path.parent.mkdir(parents=True, exist_ok=True)
    broken, new, used, part = [], 0, 0, path.with_suffix(".part")
    chosen, expected = sample_icons(package, limit, seed)
    with part.open("w", encoding="utf-8") as file, progress("icons") as bars:
        task = bars.add_task("drawing", total=expected, note="")
        for icon in chosen:
            image = images / icon.set / f"{icon.name}.png"
            if not image.exists():
                drawing = draw(skia, icon.svg)
                if drawing is None:
                    broken.append(icon.id)
                    continue
                save(drawing, image)
                new += 1
            used += 1
            row = row_of(icon, image.relative_to(path.parent))
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            bars.advance(task)
        bars.update(task, total=used, completed=used)
    part.replace(path)
    (path.parent / "broken.txt").write_text("".join(f"{name}\n" for name in broken))
    show_counts(package, used, new, broken)


def sample_icons(package: Package, limit: int, seed: int) -> tuple[Iterable[Icon], int]:
    """The icons to draw, and how many they may be.

    The sample takes the icons with the lowest digest of seed and name, so a greater limit adds
    icons to those of a smaller one.
    """
    if limit <= 0:
        return package.icons(), package.expected

    def order(icon: Icon) -> bytes:
        return hashlib.sha256(f"{seed}/{icon.id}".encode()).digest()

    with progress("sets") as bars:
        task = bars.add_task("reading", total=len(package.sets), note="")
        chosen = heapq.nsmallest(limit, package.icons(lambda: bars.advance(task)), key=order)
    return chosen, len(chosen)


def row_of(icon: Icon, image: Path) -> dict[str, str]:
    """A line of pairs.jsonl."""
    return {
        "image": image.as_posix(),
        "text": icon.words,
        "group": icon.concept,
        "split": icon.split,
        "set": icon.set,
        "style": icon.style,
        "category": icon.category,
        "licence": icon.licence,
        "author": icon.author,
        "url": icon.url,
    }


def show_counts(package: Package, used: int, new: int, broken: Sequence[str]) -> None:
    """What became of every icon of the package."""
    spare = package.total - package.left_out.total() - used - len(broken)
    counts = [
        (used, f"used ({new:,} drawn now)"),
        (spare, "not in the sample (--limit)"),
        (len(broken), "broken: can't be drawn, or blank (broken.txt lists them)"),
        *((count, f"left out: {reason}") for reason, count in package.left_out.most_common()),
    ]
    print(f"{package.total:,} icons in {len(package.sets)} sets")
    print("\n".join(f"{count:10,} {what}" for count, what in counts), flush=True)
    if package.unlisted:
        print(f"Not read, as no licence is listed: {', '.join(sorted(package.unlisted))}")


# -- from pairs to a model -------------------------------------------------------------------------


def collection_of(run: Path) -> Path:
    """The embeddings of all icons, written last: a run that has them is complete."""
    return run / "collection.safetensors"


def fit(pairs: Path, run: Path) -> None:
    """Align images and words, show the recall on unseen names, and embed all icons."""
    with ConsoleReporter() as reporter:
        result = fusemix_core.align(
            {"image": "efficientnet-lite0", "text": "minilm"},
            {"source": str(pairs), "split_column": "split"},
            out=run,
            resume=run.exists(),
            reporter=reporter,
        )
    print("\nNames that were not in training:")
    show_recall(result.results["test"]["retrieval"]["directions"])
    print(f"model {result.folder.model}, report {result.folder.report}")

    # Latents are at hand, so embedding them takes seconds. Equal images are one item.
    dataset, table = result.encoded.dataset, result.encoded.tables["image"]
    lines = torch.tensor([dataset.items["image"].origin[i][1] - 1 for i in range(len(table))])
    parts = torch.arange(len(table)).split(4096)
    embeddings = torch.cat([result.model.embed("image", table.rows(part)) for part in parts])
    save_file({"line": lines, "embedding": embeddings}, collection_of(run))


# -- from words to icons ---------------------------------------------------------------------------


def search(run: Path, rows: Sequence[dict[str, str]], queries: Sequence[str], out: Path) -> None:
    """Write a contact sheet of the best icons for each query, and the list that belongs to it."""
    model = fusemix_core.FusedModel.from_pretrained(run / "model")
    collection = load_file(collection_of(run))
    scores = model.similarity(
        model.encode("text", queries), collection["embedding"], "text", "image"
    )
    searches, listed = [], []
    for query, row in zip(queries, scores, strict=True):
        best = row.topk(min(COLUMNS, len(row)))
        found = [rows[i] for i in collection["line"][best.indices].tolist()]
        searches.append((query, [tile(icon, out) for icon in found]))
        listed += listing(query, best.values.tolist(), found)
        print(f"{query}: {', '.join(icon['text'] for icon in found)}")
    sheet, table = out / "sheet.png", out / "sheet.csv"
    save(contact_sheet(searches), sheet)
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, listed[0])
        writer.writeheader()
        writer.writerows(listed)
    print(f"{sheet}: the icons; {table}: their sets, licences and authors")


def tile(icon: dict[str, str], out: Path) -> Found:
    return Found(out / icon["image"], icon["text"], icon["set"], icon["split"] != "train")


def listing(
    query: str, scores: Sequence[float], found: Sequence[dict[str, str]]
) -> Iterator[dict[str, object]]:
    """Rows of sheet.csv."""
    for rank, (score, icon) in enumerate(zip(scores, found, strict=True), 1):
        yield {"search": query, "rank": rank, "score": round(score, 4), **icon}


if __name__ == "__main__":
    main()
