"""Measuring a fused model on a dataset: retrieval, and zero-shot classification."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from fusemix_core.config import DataConfig
from fusemix_core.data.reading import read_pairs
from fusemix_core.engine.validation import at_most
from fusemix_core.errors import ConfigError, DataError
from fusemix_core.evaluation.zeroshot import class_embeddings, default_templates, zero_shot
from fusemix_core.fused import FusedModel
from fusemix_core.runs.labelled import read_labelled
from fusemix_core.runs.measure import MEASURED_MOST, measure
from fusemix_core.runs.models import embed_for, encode_for
from fusemix_core.runs.reporter import Reporter


def evaluate(
    model: FusedModel,
    config: DataConfig,
    split: str = "test",
    *,
    seed: int = 0,
    reporter: Reporter | None = None,
) -> dict[str, Any]:
    """Retrieval metrics and geometry on a split of a dataset (`all`: every row), of which at most
    `MEASURED_MOST` rows, drawn by seed, are measured. The data need not have all of the model's
    modalities."""
    takes = {m: info.takes for m, info in model.encoders.items()}
    dataset = read_pairs(config, takes, seed, optional=takes)
    dataset.check_bad(config.max_bad)
    if split != "all" and not len(dataset.splits.get(split, ())):
        raise DataError(
            f"The data has no {split} split.",
            "Use --split all, or name the split's column or file.",
        )
    encoded = encode_for(model, dataset, reporter or Reporter(), config.max_bad)
    pairs = encoded.paired(None if split == "all" else split)
    found = embed_for(model, at_most(pairs, MEASURED_MOST, seed))
    return measure(found, model.scorer_name, model.scorer, seed)


def classify(
    model: FusedModel,
    config: DataConfig,
    classes: Sequence[str],
    templates: Sequence[str] | None = None,
    *,
    label_column: str = "label",
    split: str = "all",
    modality: str | None = None,
    seed: int = 0,
    reporter: Reporter | None = None,
) -> dict[str, Any]:
    """Zero-shot classification of the items of one modality, by prompts of the class names.

    The data's `label_column` tells each item's class. modality: what to classify, by default the
    model's first that is not read as text.
    """
    text = next((m for m, i in model.encoders.items() if i.takes == "text"), None)
    if text is None:
        raise ConfigError("Zero-shot classification needs a model with a text modality.")
    modality = modality or next((m for m in model.modalities if m != text), None)
    if modality not in model.modalities or modality == text:
        raise ConfigError(f"'{modality}' is no modality of this model that can be classified.")
    takes = {modality: model.encoders[modality].takes, text: "text"}
    found = read_labelled(config, modality, text, takes, label_column, split, seed)
    labels = found.labels(classes)
    encoded = encode_for(model, found.dataset, reporter or Reporter(), config.max_bad)
    embedded = embed_for(model, encoded.paired())
    templates = list(templates or default_templates(modality))
    of_classes = class_embeddings(lambda texts: model.encode(text, texts), classes, templates)
    own = torch.tensor([labels[int(i)] for i in embedded.items[modality]])
    return zero_shot(
        embedded.embeddings[modality],
        own,
        of_classes,
        classes,
        model.scorer.score,
        query=modality,
        target=text,
        seed=seed,
    )
