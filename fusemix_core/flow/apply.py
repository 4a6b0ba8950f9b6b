"""Using a fused model on a dataset: evaluate it, classify with it, search in it.

Items go through the latent store, so what any run has encoded is not encoded again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fusemix_core.config import DataConfig
from fusemix_core.data.dataset import PairedDataset
from fusemix_core.data.items import Items
from fusemix_core.data.media import AUDIO_SUFFIXES, IMAGE_SUFFIXES
from fusemix_core.data.reading import read_pairs
from fusemix_core.engine.validation import at_most
from fusemix_core.errors import ConfigError, DataError
from fusemix_core.evaluation.zeroshot import class_embeddings, default_templates, zero_shot
from fusemix_core.flow.encode import Encoded, Encoding, encode_dataset
from fusemix_core.flow.labelled import read_labelled
from fusemix_core.flow.measure import MEASURED_MOST, SplitEmbeddings, embed_split, measure
from fusemix_core.flow.reporter import Reporter
from fusemix_core.fused import FusedModel
from fusemix_core.interfaces import PairedLatents


def load_model(
    path: str | Path, device: str = "auto", encoders: dict[str, str] | None = None
) -> FusedModel:
    """The fused model in a model folder or a run folder, or of a hub id."""
    return FusedModel.from_pretrained(model_of(path), device=device, encoders=encoders)


def model_of(path: str | Path) -> str | Path:
    """The model's folder in a run's folder; else the path as it is."""
    inside = Path(path) / "model"
    return inside if (inside / "config.json").exists() else path


def encode_for(
    model: FusedModel, dataset: PairedDataset, reporter: Reporter, max_bad: float = 0.01
) -> Encoded:
    """The latents of a dataset by the model's own encoders, refused where these have changed."""
    lazy = {m: model.encoder(m) for m in dataset.modalities}
    info = model.encoders[dataset.modalities[0]]
    views = {m: model.encoders[m].view for m in lazy}
    encoded = encode_dataset(
        dataset,
        {m: e.spec for m, e in lazy.items()},
        Encoding(model.device, info.dtype, views=views),
        reporter,
        {m: e.given for m, e in lazy.items() if e.given is not None},
        ragged=[m for m in lazy if model.adapters[m].takes_tokens],
    )
    encoded.dataset.check_bad(max_bad)
    for modality, extraction in encoded.extractions.items():
        lazy[modality].check(extraction.fingerprint)
    return encoded


def embed_for(model: FusedModel, pairs: PairedLatents) -> SplitEmbeddings:
    """The embeddings of the items that these rows link."""
    return embed_split({m: model.adapters[m] for m in pairs.tables}, pairs, model.device)


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


@dataclass
class SearchResult:
    """The best items of a gallery for one query."""

    query: str
    target: str
    hits: list[dict[str, Any]]


class Gallery:
    """The items of one modality, embedded, to search in.

    items: the dataset's unique items; embeddings: unit-norm `[n, d]` of those numbered `ids`.
    """

    def __init__(
        self, model: FusedModel, target: str, config: DataConfig, reporter: Reporter | None = None
    ) -> None:
        takes = {target: model.encoders[target].takes}
        columns = {m: c for m, c in config.columns.items() if m == target}
        config = replace(config, columns=columns, validation_fraction=0.0, test_fraction=0.0)
        dataset = read_pairs(config, takes, least=1)
        dataset.check_bad(config.max_bad)
        encoded = encode_for(model, dataset, reporter or Reporter(), config.max_bad)
        found = embed_for(model, encoded.paired())
        self.model, self.target = model, target
        self.items: Items = encoded.dataset.items[target]
        self.ids: Tensor = found.items[target]
        self.embeddings: Tensor = found.embeddings[target]
        self._scores: dict[str, Callable[[Tensor], Tensor]] = {}

    def search(self, query: str | Path, modality: str, count: int = 10) -> SearchResult:
        """The `count` items of the gallery that score highest for a query of `modality`."""
        embedded = self.model.encode(modality, [query])
        if modality not in self._scores:
            self._scores[modality] = self.model.prepare(self.embeddings, modality, self.target)
        scores = self._scores[modality](embedded)[0]
        best = scores.topk(min(count, len(scores)))
        hits = [
            {"rank": rank, "score": float(score), "item": self.items.describe(int(self.ids[i]))}
            for rank, (score, i) in enumerate(
                zip(best.values.tolist(), best.indices.tolist(), strict=True), 1
            )
        ]
        return SearchResult(str(query), self.target, hits)


def query_modality(model: FusedModel, query: str, given: str | None) -> str:
    """The modality of a query: as given, else text unless it is the path of a file.

    A path is of the model's modality that takes such files. Raises `ConfigError` where that is
    not clear.
    """
    if given is not None:
        if given not in model.modalities:
            raise ConfigError(
                f"The model has no modality '{given}'.", f"It has {', '.join(model.modalities)}."
            )
        return given
    is_file = Path(query).is_file()
    wanted = {media_of(query)} if is_file else {"text"}
    fitting = [m for m, i in model.encoders.items() if i.takes in wanted]
    if not fitting and is_file:
        fitting = [m for m, i in model.encoders.items() if i.takes == "file"]
    if len(fitting) != 1:
        what = "a file" if is_file else "a text"
        raise ConfigError(
            f"'{query}' is {what}; this model's modalities are {', '.join(model.modalities)}.",
            "Say which it is with --from MODALITY, or mend the path.",
        )
    return fitting[0]


def media_of(path: str) -> str:
    """What a file is by its suffix: `image`, `audio`, or `file`."""
    suffix = Path(path).suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        return "image"
    return "audio" if suffix in AUDIO_SUFFIXES else "file"
