"""How well `fusemix clean` finds captions that were exchanged.

    python -m benchmarks.clean --data pairs.csv --a efficientnet-lite0 --b minilm

In a share of the rows, drawn by each seed, the items of the last modality are exchanged. Then each
row is judged by a fit that left it out, as the command does. Printed are the area under the ROC
curve, by the command's measure and by others, on the rows of training and validation (where the
measure was chosen) and of test, with bootstrap intervals over rows; and what is listed at the
command's default.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping

import numpy as np
import torch

from fusemix_core.cli.options import column_values
from fusemix_core.config import DataConfig
from fusemix_core.evaluation.bootstrap import interval
from fusemix_core.evaluation.mispaired import LIKELY, Fits, fits
from fusemix_core.metrics.ranks import roc_auc
from fusemix_core.registry import registry
from fusemix_core.runs.config import find_recipe, resolve_encoders, resolve_views
from fusemix_core.runs.encode import Encoded, Encoding, encode_dataset
from fusemix_core.runs.reading import read_usable
from fusemix_core.runs.refit import FOLDS, out_of_fold, refitted_by
from fusemix_core.runs.reporter import Reporter
from fusemix_core.runs.targets import GROUP

RESAMPLES = 1_000


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--data", required=True)
    options.add_argument("--a", default="efficientnet-lite0")
    options.add_argument("--b", default="minilm")
    options.add_argument("--column", action="append")
    options.add_argument("--group-by")
    options.add_argument("--split-column")
    options.add_argument("--share", type=float, default=0.05)
    options.add_argument("--seeds", type=int, default=3)
    asked = options.parse_args()
    encoded = _encoded(asked)
    recipe = refitted_by(None)
    for seed in range(asked.seeds):
        links, wrong = exchanged(encoded.dataset.links, asked.share, seed)
        dataset = dataclasses.replace(encoded.dataset, links=links)
        found = judged(dataclasses.replace(encoded, dataset=dataset), seed)
        _show(f"seed {seed}, {recipe.name}", found, wrong, encoded.dataset.splits)


def _encoded(asked: argparse.Namespace) -> Encoded:
    specs = resolve_encoders({registry.encoder(name).modality: name for name in (asked.a, asked.b)})
    facts = {GROUP: f"{asked.group_by}:class"} if asked.group_by else {}
    config = DataConfig(
        source=(asked.data,),
        columns=column_values(asked.column),
        group_by=asked.group_by,
        split_column=asked.split_column,
        facts=facts,
    )
    takes = {m: spec.takes for m, spec in specs.items()}
    dataset = read_usable(config, takes, 0, tell=print)
    views = resolve_views(specs, {}, find_recipe("auto").views)
    how = Encoding(torch.device("cpu"), views=views)
    return encode_dataset(dataset, specs, how, Reporter(), max_bad=1.0)


def exchanged(links: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(links with the last items of a share of the rows exchanged, bool `[m]` which those are)."""
    changed = links.copy()
    rows = np.random.default_rng(seed).permutation(np.flatnonzero((links >= 0).all(axis=1)))
    rows = rows[: round(share * len(rows))]
    changed[rows, -1] = links[np.roll(rows, 1), -1]
    return changed, changed[:, -1] != links[:, -1]


def judged(encoded: Encoded, seed: int) -> Fits:
    """How well the items of each row fit, by fits without the row."""
    first, second = encoded.dataset.modalities
    found = Fits.empty(len(encoded.dataset))
    how = {"folds": FOLDS, "seed": seed}
    parts = out_of_fold(
        encoded, refitted_by(None), **how, device=torch.device("cpu"), reporter=Reporter()
    )
    for part in parts:
        links = part.embedded.links.numpy()
        found.fill(part.rows, fits(part.embedded.embeddings, links, (first, second), seed))
    return found


def _show(title: str, found: Fits, wrong: np.ndarray, splits: Mapping[str, np.ndarray]) -> None:
    ranks = found.ranks.double().log().sum(dim=1)
    measures = {"lead": -found.lead, "cosine": -found.cosine, "ranks both ways": ranks}
    chosen_on = np.concatenate([splits["train"], splits["validation"]])
    parts = {
        "all": np.arange(len(wrong)),
        "train and validation": chosen_on,
        "test": splits["test"],
    }
    print(f"\n{title}: {wrong.sum():,} of {len(wrong):,} rows exchanged")
    for name, values in measures.items():
        for part, rows in parts.items():
            if len(rows) and wrong[rows].any():
                print(f"  AUC {name:16} {part:21} {_auc(values.numpy()[rows], wrong[rows])}")
    listed = (found.percentile < LIKELY).numpy()
    print(
        f"  listed {listed.mean():.1%} of the rows: {wrong[listed].mean():.0%} of these exchanged, "
        f"{listed[wrong].mean():.0%} of the exchanged found; estimated share {found.share:.1%}"
    )


def _auc(scores: np.ndarray, wrong: np.ndarray) -> str:
    random = np.random.default_rng(0)
    drawn = [random.integers(0, len(wrong), len(wrong)) for _ in range(RESAMPLES)]
    low, high = interval(np.array([roc_auc(scores[d], wrong[d]) for d in drawn])) or (0.0, 0.0)
    return f"{roc_auc(scores, wrong):.3f} [{low:.3f}, {high:.3f}]"


if __name__ == "__main__":
    main()
