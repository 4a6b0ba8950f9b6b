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
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fusemix_hammer.building import Build, build
from fusemix_hammer.fuser import HammerFuser
from PIL import Image

from fusemix_core.config import DataConfig
from fusemix_core.context import FitContext
from fusemix_core.data.dataset import PairedDataset
from fusemix_core.data.media import Shown
from fusemix_core.devices import resolve_device
from fusemix_core.evaluation.bootstrap import interval
from fusemix_core.fuser import Labelled
from fusemix_core.fusion.candidates import scores_of
from fusemix_core.latents.encoding import Encoding
from fusemix_core.prediction import Task
from fusemix_core.runs.encode import encode_dataset
from fusemix_core.runs.fusing import build_fuse_config, make_fuse_plan, target_facts
from fusemix_core.runs.reporter import Reporter

RESULTS = Path(__file__).parent / "results" / "hammer.json"
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
RESAMPLES = 200
_SHOWN = (
    "auc", "eer", "accuracy", "map", "cf1", "of1", "iou_boxes", "iou50_boxes", "iou75_boxes", "iou",
    "precision", "recall", "f1", "f1_tagged",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="the folder that openstax/ is in")
    parser.add_argument("--folder", type=Path, help="where the fakes are kept, made if missing")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.folder or Path(scratch) / "fakes"
        if not folder.exists():
            print(build(source(args.data), folder, Build(hard="book", seed=args.seed)), flush=True)
        for results in measured(folder, args.seed, args.data is not None):
            if args.data is not None:
                RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    print("\n".join(table(results)))


def source(data: Path | None) -> DataConfig:
    """The real pairs: figures and their alternative texts."""
    if data is None:
        from fusemix_starter import sample_path

        return DataConfig((str(sample_path()),), split_column="split", group_by="module")
    manifest = str(data / "openstax" / "manifest.jsonl")
    columns = {"image": "image", "text": "alt"}
    return DataConfig((manifest,), columns=columns, group_by="module", test_fraction=0.2)


def measured(folder: Path, seed: int, keep: bool) -> Iterator[dict[str, Any]]:
    """After each fit: variant → metric → [value, low, high] on test rows, and the paired
    differences. With `keep`, the docs' picture is drawn of the first variant."""
    began = time.process_time()
    task, (train, held, test), dataset = rows_of(folder)
    nothing = task.baseline(train.targets)
    constant = nothing.expand(len(test), -1)
    whole = {"no modality": task.metrics(constant, test.targets)}
    drawn = {"no modality": resampled(task, constant, test)}
    for name, (modalities, options) in VARIANTS.items():
        own = [rows.only(modalities) for rows in (train, held)]
        fitted = HammerFuser.fit(*own, task, FitContext(seed=seed), **{**OPTIONS, **options})
        scores = scores_of(fitted.fuser, test.only(modalities), nothing)
        whole[name] = task.metrics(scores, test.targets)
        shown = {key: round(value or 0, 3) for key, value in whole[name].items()}
        print(f"{time.process_time() - began:.0f} s: {name}: {shown}", flush=True)
        drawn[name] = resampled(task, scores, test)
        if keep and len(drawn) == 2:
            draw(task, scores, test, dataset)
        yield {
            "rows": [len(train), len(held), len(test)],
            "cpu_seconds": round(time.process_time() - began),
            "variants": {name: _spans(whole[name], drawn[name]) for name in whole},
            "differences": [
                [*pair, _spans(*(_less(part[pair[0]], part[pair[1]]) for part in (whole, drawn)))]
                for pair in COMPARED
                if pair[1] in whole
            ],
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


def resampled(task: Task, scores: torch.Tensor, rows: Labelled) -> dict[str, np.ndarray]:
    """Metric → its values on samples of the groups, the same for all variants."""
    draw, groups = np.random.default_rng(0), rows.groups.numpy()
    members = [np.flatnonzero(groups == g) for g in np.unique(groups)]
    found: dict[str, list[float]] = {}
    for _ in range(RESAMPLES):
        chosen = draw.integers(0, len(members), len(members))
        sample = torch.from_numpy(np.concatenate([members[g] for g in chosen]))
        for key, value in task.metrics(scores[sample], rows.targets[sample]).items():
            found.setdefault(key, []).append(np.nan if value is None else value)
    return {key: np.array(values) for key, values in found.items()}


def _less(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """The first's metrics minus the second's, where both are defined."""
    able = [k for k in first if first[k] is not None and second[k] is not None]
    return {k: first[k] - second[k] for k in able}


def _spans(
    values: Mapping[str, float | None], drawn: Mapping[str, np.ndarray]
) -> dict[str, list[float] | None]:
    """Metric → value, low and high of its 95% interval."""
    found: dict[str, list[float] | None] = {}
    for key, value in values.items():
        if value is None:
            found[key] = None
            continue
        low, high = interval(drawn[key]) or (value, value)
        found[key] = [round(float(x), 4) for x in (value, low, high)]
    return found


def table(results: Mapping[str, Any]) -> list[str]:
    """The results as tables in Markdown."""
    kinds = [k for k in results["variants"]["image and text"] if k.startswith("auc_")]
    lines = [_row(["", *_SHOWN]), _row(["---"] * (len(_SHOWN) + 1))]
    for name, found in results["variants"].items():
        lines.append(_row([name, *(_value(found[key]) for key in _SHOWN)]))
    lines += ["", _row(["AUC of", *kinds]), _row(["---"] * (len(kinds) + 1))]
    for name, found in results["variants"].items():
        lines.append(_row([name, *(_value(found[key]) for key in kinds)]))
    some = ("auc", "map", "iou_boxes", "f1_tagged", *kinds)
    lines += ["", _row(["difference", *some]), _row(["---"] * (len(some) + 1))]
    for first, second, found in results["differences"]:
        cells = (_signed(found.get(key)) for key in some)
        lines.append(_row([f"{first} − {second}", *cells]))
    return lines


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _value(span: Sequence[float] | None) -> str:
    return "–" if span is None else f"{span[0]:.3f} ({span[1]:.3f} to {span[2]:.3f})"


def _signed(span: Sequence[float] | None) -> str:
    return "–" if span is None else f"{span[0]:+.3f} ({span[1]:+.3f} to {span[2]:+.3f})"


if __name__ == "__main__":
    main()
