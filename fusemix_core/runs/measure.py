"""Measuring what a run fitted: the scorer is chosen on validation, then each evaluator runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import torch

from fusemix_core.config import to_dict
from fusemix_core.engine.randomness import at_most
from fusemix_core.errors import FusemixError
from fusemix_core.evaluation.answers import Answers, directions
from fusemix_core.evaluation.examples import Retrieved, examples
from fusemix_core.evaluation.running import evaluate
from fusemix_core.fused import FusedModel
from fusemix_core.interfaces import Adapter, Encoder, PairedLatents
from fusemix_core.measured import Measured
from fusemix_core.runs.answers import trust_section, trusted
from fusemix_core.runs.compare import baselines_of_run
from fusemix_core.runs.corrections import add_corrections
from fusemix_core.runs.embeddings import SplitEmbeddings, embed_split
from fusemix_core.runs.emergent import Pair, never_paired, with_indirect
from fusemix_core.runs.encode import Encoded
from fusemix_core.runs.evaluators import run_evaluators
from fusemix_core.runs.fused import add_metrics, fused_model
from fusemix_core.runs.plan import Plan
from fusemix_core.runs.reporter import Reporter
from fusemix_core.runs.scorers import BANK_MOST
from fusemix_core.runs.seen import add_seen
from fusemix_core.sections import Section
from fusemix_core.space import rotation_of

MEASURED_MOST = 20_000
"""Rows of a split that are measured; a seeded sample of a larger one. A gallery of a million tells
no more and takes its square in time."""


@dataclass
class Measurement:
    """What measuring a run gave.

    Attributes:
        model: the fused model, with the metrics of the split that is shown.
        results: what results.json has of it: `scorer`, split → evaluator → metrics, `trusted` (see
            `runs.answers.trusted`) and `baselines` (see `runs.baselines`); of an extended model
            also `never_paired`, and of one with a fixed modality `corrections`.
        shown: the test split, or validation if that is empty.
        sections: evaluator → what it shows of that split.
        failed: evaluator → its error.
        answers: the first answers of the split that is shown.
    """

    model: FusedModel
    results: dict[str, Any]
    shown: Measured
    sections: dict[str, list[Section]]
    failed: dict[str, FusemixError]
    answers: list[Answers]


def measure_run(
    plan: Plan,
    encoded: Encoded,
    train: PairedLatents,
    adapters: Mapping[str, Adapter],
    device: torch.device,
    objects: Mapping[str, Encoder],
    reporter: Reporter,
    save: Callable[[FusedModel], None] | None = None,
) -> Measurement:
    """Measure the fitted adapters of a run on its validation and test splits.

    Args:
        plan: the run.
        encoded: its latents.
        train: the rows that were fitted.
        adapters: modality → fitted adapter.
        device: where to embed and to compare.
        objects: modality → loaded encoder, for those that the caller has.
        reporter: gets notes on baselines.
        save: is called with the model before evaluators run that aren't core's own: one of them
            may take the whole process down.

    Returns:
        The model, results and sections; the errors of evaluators that failed are in `failed`.
    """
    config, unpaired = plan.config, never_paired(train, plan.added)
    rows = _measured_splits(encoded, config.seed, unpaired)
    splits = {name: embed_split(adapters, pairs, device) for name, pairs in rows.items()}
    bank = embed_split(adapters, encoded.paired("train"), device, most=BANK_MOST)
    part, scorer = plan.base.scorer(config, bank, splits["validation"])
    model = fused_model(plan, encoded, adapters, (part, scorer), objects, unpaired)
    if not config.private:
        add_seen(model, encoded.dataset.items, train)
    if model.rotation is None:
        model.rotation = rotation_of(bank.embeddings)
    results = {"scorer": to_dict(part), **plan.base.results(unpaired)}
    if found := add_corrections(model, config, encoded, device, reporter):
        results["corrections"] = found
    evaluators = run_evaluators(config)
    if save is not None and (config.evaluators or config.recipe.evaluators):
        save(model)
    parts = _of_model(plan, encoded, model, bank, device)
    *others, shown = [Measured(split=s, **parts, **of_split(x)) for s, x in splits.items()]
    given = plan, encoded, rows | {"train": train}, model
    beside, baselines = baselines_of_run(*given, shown, objects, reporter)
    shown = replace(shown, baselines=beside)
    measured = [*others, shown]
    outcomes = {data.split: evaluate(evaluators, data, show=data is shown) for data in measured}
    answers = {data.split: list(directions(data)) for data in measured}
    results |= {split: outcome.metrics for split, outcome in outcomes.items()}
    results["baselines"] = baselines
    failed = dict(chain.from_iterable(outcome.failed.items() for outcome in outcomes.values()))
    found = outcomes[shown.split]
    if "test" in answers:
        results["trusted"] = trusted(answers["validation"], answers["test"], shown)
        found.sections["trusted"] = [trust_section(answers["test"], results["trusted"])]
    add_metrics(model, plan, found.metrics)
    return Measurement(model, results, shown, found.sections, failed, answers[shown.split])


def _measured_splits(
    encoded: Encoded, seed: int, unpaired: Sequence[Pair]
) -> dict[str, PairedLatents]:
    """The measured rows of validation and test, with those that link `unpaired` modalities."""
    return {
        name: with_indirect(measured_rows(encoded, name, seed), unpaired)
        for name in ("validation", "test")
        if len(encoded.dataset.splits[name])
    }


def _of_model(
    plan: Plan, encoded: Encoded, model: FusedModel, bank: SplitEmbeddings, device: torch.device
) -> dict[str, Any]:
    """The fields of `Measured` that are the same for all splits."""
    return {
        "score": model.scorer.score,
        "scorer": model.scorer_name,
        "seed": plan.config.seed,
        "added": plan.added,
        "bank": bank.embeddings,
        "items": encoded.dataset.items,
        "encoder": model.encode,
        "model": model,
        "device": device,
        "prefix": model.space.prefix,
    }


def of_split(split: SplitEmbeddings) -> dict[str, Any]:
    """The fields of `Measured` that differ by split."""
    return {
        "embeddings": split.embeddings,
        "links": split.links,
        "facts": split.facts,
        "ids": split.ids,
    }


def measured_rows(encoded: Encoded, split: str | None, seed: int) -> PairedLatents:
    """The part of a split (None: of all rows) that is measured: up to `MEASURED_MOST` rows."""
    return at_most(encoded.paired(split), MEASURED_MOST, seed)


def draw_examples(data: Measured, right: int = 4, wrong: int = 4) -> list[Retrieved]:
    """Right and wrong retrievals of every direction, with the items' numbers in the split; if
    modalities were added, of the directions from and to these."""
    return [
        found
        for query in data.modalities
        for target in data.modalities
        if query != target and (not data.added or query in data.added or target in data.added)
        for found in examples(
            data.embeddings,
            data.links,
            query,
            target,
            data.score,
            right=right,
            wrong=wrong,
            seed=data.seed,
            device=data.device,
        )
    ]
