"""Measures what HAMMER claims, on fakes of textbook figures and their descriptions: image and text
together against each by itself, and the model without its parts. Writes results/hammer.json.

python -m benchmarks.hammer                # the bundled sample, 1,516 figures
python -m benchmarks.hammer --data DATA    # DATA/openstax, 5,468 figures: the results of the docs
"""

from __future__ import annotations

import argparse
import io
import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from fusemix_hammer.building import Build, build
from fusemix_hammer.fuser import HammerFuser
from PIL import Image

from benchmarks.results import RESULTS, machine
from fusemix_core.config import DataConfig
from fusemix_core.context import FitContext
from fusemix_core.data.dataset import PairedDataset
from fusemix_core.data.media import Shown
from fusemix_core.devices import resolve_device
from fusemix_core.evaluation.seeds import mean_interval
from fusemix_core.fuser import Labelled
from fusemix_core.fusion.candidates import scores_of
from fusemix_core.latents.encoding import Encoding
from fusemix_core.prediction import Task
from fusemix_core.runs.encode import encode_dataset
from fusemix_core.runs.fusing import build_fuse_config, make_fuse_plan, target_facts
from fusemix_core.runs.reporter import Reporter

PICTURE = Path(__file__).parents[1] / "docs" / "methods" / "hammer.webp"
SHOWN = 6
"""Fakes on the picture, at equal distances among the test rows."""
BOTH = ("image", "text")
VARIANTS: Mapping[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "image and text": (BOTH, {}),
    "only image": (("image",), {}),
    "only text": (("text",), {}),
    "no contrast": (BOTH, {"contrast": 0.0}),
    "box from the cls": (BOTH, {"local": False}),
    "words before fusion": (BOTH, {"fused": False}),
}
"""Name → modalities and options of the fuser."""
COMPARED = (
    ("image and text", "only image"),
    ("image and text", "only text"),
    ("image and text", "no contrast"),
    ("image and text", "box from the cls"),
    ("image and text", "words before fusion"),
)
OPTIONS = {
    "width": 48,
    "own": 0,
    "depth": 1,
    "training": {"epochs": 10, "batch_size": 96, "lr": 2e-3, "evaluate_every": 5},
}
"""Small, so that all fits take two minutes of one core."""
_SHOWN = (
    "auc", "eer", "accuracy", "map", "cf1", "of1", "iou_boxes", "iou50_boxes", "iou75_boxes", "iou",
    "precision", "recall", "f1", "f1_tagged",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="the folder that openstax/ is in")
    parser.add_argument("--folder", type=Path, help="where the fakes are kept, made if missing")
    parser.add_argument("--seeds", type=int, default=4, help="fakes, splits and fits each")
    args = parser.parse_args()
    torch.set_num_threads(1)
    results: dict[str, Any] = {"machine": machine(), "seeds": []}
    with tempfile.TemporaryDirectory() as scratch:
        for seed in range(args.seeds):
            folder = (args.folder or Path(scratch)) / str(seed)
            if not folder.exists():
                how = Build(hard="book", seed=seed)
                print(build(source(args.data), folder, how), flush=True)
            results["seeds"].append(measured(folder, seed, args.data is not None and seed == 0))
            if args.data is not None:
                (RESULTS / "hammer.json").write_text(json.dumps(results, indent=1) + "\n")
            print("\n".join(table(results["seeds"])), flush=True)


def source(data: Path | None) -> DataConfig:
    """The real pairs: figures and their alternative texts."""
    if data is None:
        from fusemix_starter import sample_path

        return DataConfig((str(sample_path()),), split_column="split", group_by="module")
    manifest = str(data / "openstax" / "manifest.jsonl")
    columns = {"image": "image", "text": "alt"}
    return DataConfig((manifest,), columns=columns, group_by="module", test_fraction=0.2)


def measured(folder: Path, seed: int, keep: bool) -> dict[str, Any]:
    """The rows of each split, the seconds, and variant → metric → value on test rows. With `keep`,
    the docs' picture is drawn of the first variant."""
    began = time.process_time()
    task, (train, held, test), dataset = rows_of(folder)
    nothing = task.baseline(train.targets)
    found = {"no modality": task.metrics(nothing.expand(len(test), -1), test.targets)}
    for name, (modalities, options) in VARIANTS.items():
        own = [rows.only(modalities) for rows in (train, held)]
        fitted = HammerFuser.fit(*own, task, FitContext(seed=seed), **{**OPTIONS, **options})
        scores = scores_of(fitted.fuser, test.only(modalities), nothing)
        found[name] = task.metrics(scores, test.targets)
        print(f"seed {seed}, {time.process_time() - began:.0f} s: {name}", flush=True)
        if keep and len(found) == 2:
            draw(task, scores, test, dataset)
    return {
        "seed": seed,
        "rows": [len(train), len(held), len(test)],
        "cpu_seconds": round(time.process_time() - began),
        "variants": {name: _rounded(own) for name, own in found.items()},
    }


def draw(task: Task, scores: torch.Tensor, test: Labelled, dataset: PairedDataset) -> None:
    """Draw some fakes of the test rows with the boxes and words that were found, and print where
    they are from."""
    rows = dataset.splits["test"]
    fakes = (test.targets.values[:, 1] > 0).nonzero()[:, 0]
    chosen = fakes[torch.linspace(0, len(fakes) - 1, SHOWN).long()]

    def show(row: int) -> dict[str, Shown]:
        links = dataset.links[rows[int(chosen[row])]].tolist()
        return {m: own.show(i) for (m, own), i in zip(dataset.items.items(), links, strict=True)}

    (section,) = task.sections(scores[chosen], test.targets[chosen], show)
    images = [Image.open(io.BytesIO(one.drawing)).convert("RGB") for one in section.figures]
    wide, high = images[0].width + 12, max(one.height for one in images) + 12
    sheet = Image.new("RGB", (3 * wide, -(-len(images) // 3) * high), "white")
    for number, image in enumerate(images):
        sheet.paste(image, ((number % 3) * wide + 6, (number // 3) * high + 6))
    small = sheet.resize((round(0.75 * sheet.width), round(0.75 * sheet.height)))
    small.save(PICTURE, "WEBP", quality=60, method=6)
    for row in chosen.tolist():
        print("shown: row", dataset.origin[rows[row]][1], flush=True)


def rows_of(folder: Path) -> tuple[Task, list[Labelled], PairedDataset]:
    """The task, the rows of the three splits with their latents, and the dataset."""
    facts, targets = target_facts((), task="manipulation")
    config, specs = build_fuse_config({
        "encoders": {"image": "efficientnet-lite0", "text": "minilm"},
        "views": {"image": "grid", "text": "tokens-words"},
        "task": "manipulation",
        "data": {
            "source": (str(folder / "pairs.csv"),),
            "split_column": "split",
            "group_by": "group",
            "facts": facts,
        },
        "targets": targets,
    })  # fmt: skip
    plan = make_fuse_plan(config, specs)
    how = Encoding(resolve_device("cpu"), views=plan.views)
    encoded = encode_dataset(plan.dataset, plan.specs, how, Reporter(), max_bad=0.0)
    splits = plan.dataset.splits
    task = plan.targets.task(splits["train"])
    names = ("train", "validation", "test")
    rows = [plan.targets.labelled(encoded.tables, splits[n], task) for n in names]
    return task, rows, plan.dataset


def table(seeds: Sequence[Mapping[str, Any]]) -> list[str]:
    """Means over seeds with 95% t intervals as tables in Markdown, and paired differences."""
    every = [seed["variants"] for seed in seeds]
    kinds = [k for k in every[0]["image and text"] if k.startswith("auc_")]
    lines: list[str] = []
    for shown in (_SHOWN, kinds):
        lines += [_row(["", *shown]), _row(["---"] * (len(shown) + 1))]
        for name in every[0]:
            lines.append(_row([name, *(_value([own[name][k] for own in every]) for k in shown)]))
        lines.append("")
    some = ("auc", "map", "iou_boxes", "f1_tagged", *kinds)
    lines += [_row(["difference", *some]), _row(["---"] * (len(some) + 1))]
    for first, second in COMPARED:
        cells = (_value([_less(own[first][k], own[second][k]) for own in every], "+") for k in some)
        lines.append(_row([f"{first} − {second}", *cells]))
    return lines


def _less(first: float | None, second: float | None) -> float | None:
    return None if first is None or second is None else first - second


def _rounded(values: Mapping[str, float | None]) -> dict[str, float | None]:
    return {key: None if v is None else round(float(v), 5) for key, v in values.items()}


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _value(values: Sequence[float | None], sign: str = "") -> str:
    """Mean ± half of its interval; a dash where a metric is undefined for a seed."""
    known = [v for v in values if v is not None]
    if len(known) < len(values):
        return "–"
    mean, half = mean_interval(known)
    return f"{mean:{sign}.3f}" + (f" ± {half:.3f}" if half is not None else "")


if __name__ == "__main__":
    main()
