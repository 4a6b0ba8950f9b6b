"""Measuring a fused model on a dataset, by evaluators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from fusemix_core.config import DataConfig, Part
from fusemix_core.data.dataset import PairedDataset
from fusemix_core.data.held import data_config
from fusemix_core.data.media import medium
from fusemix_core.errors import ConfigError, DataError
from fusemix_core.evaluation import running
from fusemix_core.evaluation.multilabel import NEGATIVE, POSITIVE
from fusemix_core.evaluation.running import FOR_CLASSES, FOR_PAIRS, Evaluation, check_available
from fusemix_core.evaluation.zeroshot import class_embeddings, default_templates
from fusemix_core.fused import FusedModel
from fusemix_core.measured import Classes, Measured
from fusemix_core.runs.compare import models_beside
from fusemix_core.runs.embeddings import SplitEmbeddings
from fusemix_core.runs.encode import Encoded
from fusemix_core.runs.inputs import DataInput
from fusemix_core.runs.labelled import read_classes
from fusemix_core.runs.measure import measured_rows
from fusemix_core.runs.models import embed_for, encode_for
from fusemix_core.runs.notices import Notices
from fusemix_core.runs.reading import read_usable
from fusemix_core.runs.reporter import Reporter
from fusemix_core.runs.seen import TrainedOn


def evaluate(
    model: FusedModel,
    config: DataConfig | DataInput,
    split: str = "test",
    *,
    evaluators: Sequence[Part] = (),
    baselines: Sequence[str] = (),
    seed: int = 0,
    reporter: Reporter | None = None,
) -> dict[str, Any]:
    """Measure a model on pairs.

    Args:
        model: the fused model.
        config: the data, as a `DataConfig` or as `align` takes them. They need not
            have all of the model's modalities.
        split: its name, or `all` for every row. At most `MEASURED_MOST` rows, drawn by seed, are
            measured.
        evaluators: further ones, beside `retrieval` and `geometry`.
        baselines: folders or hub ids of models to compare with, on the same rows.
        seed: splits the data, and is that of the evaluators.
        reporter: gets the progress.

    Returns:
        evaluator → metrics; `rows`, `columns`, `trained_on` and `warnings`: what is told of
        the data.

    Raises:
        FusemixError: the data, or an evaluator, can't be used; or an evaluator failed.
    """
    evaluation = measure_pairs(model, config, split, evaluators, seed, reporter, baselines)
    return _metrics(evaluation) | evaluation.data


def measure_pairs(
    model: FusedModel,
    config: DataConfig | DataInput,
    split: str = "test",
    evaluators: Sequence[Part] = (),
    seed: int = 0,
    reporter: Reporter | None = None,
    baselines: Sequence[str] = (),
) -> Evaluation:
    """`evaluate`, with sections to show; an evaluator that fails is in `failed`."""
    chosen = running.evaluators_of(evaluators, FOR_PAIRS)
    takes, config = {m: info.takes for m, info in model.encoders.items()}, data_config(config)
    reporter = reporter or Reporter()
    dataset = read_usable(config, takes, seed, tell=reporter.note, optional=takes)
    if split != "all" and not len(dataset.splits.get(split, ())):
        raise DataError(
            f"The data has no {split} split.",
            "Use --split all, or name the split's column or file.",
        )
    check_available(chosen, ["facts"] if dataset.facts else [])
    encoded = encode_for(model, dataset, reporter, config.max_bad)
    found = embed_for(model, measured_rows(encoded, None if split == "all" else split, seed))
    data = _measured(model, encoded, found, split, seed)
    beside = models_beside(baselines, model, data, reporter)
    evaluation = running.evaluate(chosen, replace(data, baselines=beside))
    rows = slice(None) if split == "all" else encoded.dataset.splits[split]
    seen = TrainedOn.count(model, encoded.dataset, rows)
    evaluation.data = _told(encoded.dataset, encoded.warnings, seen, reporter)
    return evaluation


def classify(
    model: FusedModel,
    config: DataConfig | DataInput,
    classes: Sequence[str] | Mapping[str, int],
    templates: Sequence[str] | None = None,
    *,
    label_column: str = "label",
    separator: str = "",
    positive: Sequence[str] = POSITIVE,
    negative: Sequence[str] = NEGATIVE,
    split: str = "all",
    modality: str | None = None,
    seed: int = 0,
    reporter: Reporter | None = None,
) -> dict[str, Any]:
    """Zero-shot classification of the items of one modality, by prompts of the class names.

    Args:
        model: the fused model.
        config: the data, as a `DataConfig` or as `align` takes them.
        classes: names of the classes, or name → number; labels may be either.
        templates: prompts with `{}` for the class; by default those of the modality.
        label_column: the column that has each item's class.
        separator: between the classes in a cell, if an item may have any number of them.
        positive, negative: for these, prompts that say so and that deny it, with `{}`.
        split: its name, or `all` for every row.
        modality: what to classify, by default the model's first that is not read as text.
        seed: of the splits and the intervals.
        reporter: gets the progress.

    Returns:
        The metrics of the evaluator `zero-shot`.
    """
    evaluation = measure_classes(
        model,
        config,
        classes,
        templates,
        label_column=label_column,
        separator=separator,
        positive=positive,
        negative=negative,
        split=split,
        modality=modality,
        seed=seed,
        reporter=reporter,
    )
    return _metrics(evaluation)["zero-shot"]


def measure_classes(
    model: FusedModel,
    config: DataConfig | DataInput,
    classes: Sequence[str] | Mapping[str, int],
    templates: Sequence[str] | None = None,
    *,
    evaluators: Sequence[Part] = (),
    label_column: str = "label",
    separator: str = "",
    positive: Sequence[str] = POSITIVE,
    negative: Sequence[str] = NEGATIVE,
    split: str = "all",
    modality: str | None = None,
    seed: int = 0,
    reporter: Reporter | None = None,
    baselines: Sequence[str] = (),
) -> Evaluation:
    """`classify` with sections to show; an evaluator that fails is in `failed`.

    With a `separator`, items may have any number of classes, with this between them in a cell (for
    lists in JSON any will do). AUROC is then measured, also by prompts that say so (`positive`)
    less those that deny it (`negative`), and intervals draw the groups of `config.group_by`.
    """
    chosen = running.evaluators_of(evaluators, FOR_CLASSES)
    check_available(chosen, ["classes"])
    text, modality = _sides(model, modality)
    config, reporter = data_config(config), reporter or Reporter()
    told: list[str] = []

    def tell(note: str) -> None:
        told.append(note)
        reporter.note(note)

    takes = {modality: model.encoders[modality].takes, text: "text"}
    columns = label_column, separator
    found = read_classes(config, modality, text, takes, *columns, classes, split, seed, tell)
    encoded = encode_for(model, found.dataset, reporter, config.max_bad)
    embedded = embed_for(model, encoded.paired())
    ids = embedded.ids[modality].numpy()
    labels = torch.from_numpy(found.labels[ids])
    groups = None if found.groups is None else torch.from_numpy(found.groups[ids])

    def with_classes(data: Measured) -> Measured:
        def embed(prompts: Sequence[str]) -> Tensor:
            return class_embeddings(lambda t: data.encode(text, t), list(classes), prompts)

        rows = embed(templates or default_templates(modality))
        pair = (embed(positive), embed(negative)) if separator else None
        named = Classes(list(classes), labels, rows, modality, text, pair, groups)
        return replace(data, classes=named)

    data = _measured(model, encoded, embedded, split, seed)
    beside = models_beside(baselines, model, data, reporter)
    beside = {name: with_classes(other) for name, other in beside.items()}
    evaluation = running.evaluate(chosen, replace(with_classes(data), baselines=beside))
    seen = TrainedOn.count(model, encoded.dataset, slice(None))
    evaluation.data = _told(found.whole, [*told, *encoded.warnings], seen, reporter)
    return evaluation


def _told(
    dataset: PairedDataset,
    warnings: Sequence[str],
    seen: TrainedOn | None,
    reporter: Reporter,
) -> dict[str, Any]:
    """The notes on the data: their notices, and how much of them was trained on."""
    leaks = [] if seen is None else seen.warnings()
    for warning in leaks:
        reporter.note(warning)
    more = {} if seen is None else {"trained_on": seen.as_dict()}
    return more | Notices.of(dataset, [*warnings, *leaks]).as_dict()


def _sides(model: FusedModel, modality: str | None) -> tuple[str, str]:
    """The modality of class names, and what is classified: as given, or the first other one.

    Raises:
        ConfigError: If there is none.
    """
    text = next((m for m, i in model.encoders.items() if medium(i.takes).language), None)
    if text is None:
        raise ConfigError("Zero-shot classification needs a model with a text modality.")
    modality = modality or next((m for m in model.modalities if m != text), None)
    if modality not in model.modalities or modality == text:
        raise ConfigError(f"'{modality}' can't be classified.", _classifiable(model, text))
    return text, modality


def _classifiable(model: FusedModel, text: str) -> str:
    return f"Modalities that can be: {', '.join(m for m in model.modalities if m != text)}."


def _measured(
    model: FusedModel,
    encoded: Encoded,
    found: SplitEmbeddings,
    split: str,
    seed: int,
) -> Measured:
    return Measured(
        embeddings=found.embeddings,
        links=found.links,
        score=model.scorer.score,
        scorer=model.scorer_name,
        split=split,
        seed=seed,
        facts=found.facts,
        items=encoded.dataset.items,
        ids=found.ids,
        encoder=model.encode,
        model=model,
        device=found.device,
        prefix=model.space.prefix,
    )


def _metrics(evaluation: Evaluation) -> dict[str, Any]:
    """The metrics. Raises the error of the first evaluator that failed."""
    for error in evaluation.failed.values():
        raise error
    return evaluation.metrics
