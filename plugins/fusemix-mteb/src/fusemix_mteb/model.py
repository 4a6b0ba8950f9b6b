"""A fused model as mteb takes one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, get_args

import torch
from mteb.models.model_meta import ModelMeta, ScoringFunction
from mteb.types import Licenses, Modalities, PromptType
from torch import Tensor
from torch.nn.functional import normalize

from fusemix_core.data.media import Audio
from fusemix_core.errors import ConfigError
from fusemix_core.fused import FusedModel
from fusemix_core.saved.licences import strictest

SEARCHES = ("Retrieval", "Reranking", "VisionCentricQA", "DocumentUnderstanding")
"""Parts of the names of mteb's types of tasks in which queries are compared with documents."""


class FusemixModel:
    """mteb's `EncoderProtocol` for a fused model.

    In retrieval and reranking, queries and documents become lifted vectors (`Scorer.lift`), whose
    inner product ranks as the model's own scorer does: with `csls`, mteb measures CSLS. In all
    other tasks the vectors are unit-norm embeddings. An input of several modalities is the
    normalised mean of their embeddings.

    Args:
        model: what to measure.
        name: under which mteb stores results; without an organisation, `fusemix/` is put before.
        revision: of the model; the version in mteb's folders.

    Raises:
        ConfigError: the model has no modality that mteb knows.

    Example:
        import mteb

        fused = FusedModel.from_pretrained("runs/first/model")
        mteb.evaluate(FusemixModel(fused, "first"), mteb.get_tasks(tasks=["Flickr30kT2IRetrieval"]))
    """

    def __init__(self, model: FusedModel, name: str, revision: str = "1") -> None:
        self.model = model
        self.modalities = _by_mteb_name(model)
        if not self.modalities:
            raise ConfigError(
                f"mteb has no tasks for {', '.join(model.modalities)}.",
                f"It knows {', '.join(get_args(Modalities))}.",
            )
        self.mteb_model_meta = _meta(model, list(self.modalities), name, revision)

    def encode(
        self,
        inputs: Iterable[Mapping[str, Any]],
        *,
        task_metadata: Any,
        hf_split: str = "",
        hf_subset: str = "",
        prompt_type: PromptType | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Vectors of the items in mteb's batches.

        Args:
            inputs: batches; each maps modalities to lists of items of one length.
            task_metadata: of the task; its type and category decide whether vectors are lifted.
            hf_split, hf_subset: not used.
            prompt_type: whether the items of a retrieval task are queries or documents.
            kwargs: mteb's options for an encoder. Batches are those of fusemix.

        Returns:
            float32 `[n, dim]`, or `[n, dim + K]` if lifted.

        Raises:
            ConfigError: an item has no modality that the model takes, or the scorer can't be
                lifted.
        """
        items = [item for batch in inputs for item in _items(batch, self.modalities)]
        rows, held = self._embeddings(items)
        if prompt_type is None or not any(part in task_metadata.type for part in SEARCHES):
            return rows
        asked = task_metadata.get_modalities(PromptType.query)
        against = [self.modalities[m] for m in asked if m in self.modalities]
        return self._lifted(rows, held, against, gallery=prompt_type == PromptType.document)

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Tensor:
        """Inner products `[n, m]` of two sets of vectors."""
        return _rows(embeddings1) @ _rows(embeddings2).T

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Tensor:
        """Inner products `[n]` of the vectors at the same places."""
        return (_rows(embeddings1) * _rows(embeddings2)).sum(dim=1)

    def _embeddings(self, items: Sequence[Mapping[str, Any]]) -> tuple[Tensor, list[list[str]]]:
        """Unit-norm `[n, dim]`, and the fused modalities of each item."""
        rows = torch.zeros(len(items), self.model.dim)
        for modality in dict.fromkeys(m for item in items for m in item):
            places = [i for i, item in enumerate(items) if modality in item]
            rows[places] += self.model.encode(modality, [items[i][modality] for i in places])
        return normalize(rows, dim=1), [list(item) for item in items]

    def _lifted(
        self, rows: Tensor, held: Sequence[list[str]], against: Sequence[str], gallery: bool
    ) -> Tensor:
        """The rows lifted, each as the mean over its modalities."""
        out = None
        for kinds in dict.fromkeys(map(tuple, held)):
            places = [i for i, one in enumerate(held) if tuple(one) == kinds]
            part = torch.stack(
                [self.model.scorer.lift(rows[places], m, against, gallery) for m in kinds]
            ).mean(0)
            out = part.new_zeros(len(rows), part.shape[1]) if out is None else out
            out[places] = part
        return rows if out is None else out


def _by_mteb_name(model: FusedModel) -> dict[str, str]:
    """mteb's name of a modality → the model's: one of the same name, else the first of its medium
    that isn't a language of its own, such as molecules written as text."""
    found = {}
    for name in get_args(Modalities):
        same = [m for m in model.modalities if m == name]
        kin = [m for m, e in model.encoders.items() if e.takes == name and name != "text"]
        if fitting := same or kin:
            found[name] = fitting[0]
    return found


def _items(batch: Mapping[str, Any], names: Mapping[str, str]) -> list[dict[str, Any]]:
    """The items of a batch by the model's modalities, without those that are empty."""
    columns = {m: batch[name] for name, m in names.items() if name in batch}
    if not columns:
        raise ConfigError(
            f"The task has inputs of {', '.join(batch)}; the model takes {', '.join(names)}."
        )
    rows = [
        dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)
    ]
    kept = [{m: _readable(item) for m, item in row.items() if item is not None} for row in rows]
    return [{m: i for m, i in row.items() if i != "" or len(row) == 1} for row in kept]


def _readable(item: Any) -> Any:
    """An item as fusemix takes it: mteb's sounds are mappings."""
    if isinstance(item, Mapping):
        return Audio(torch.as_tensor(item["array"]).float().numpy(), int(item["sampling_rate"]))
    return item


def _rows(rows: Any) -> Tensor:
    return torch.atleast_2d(torch.as_tensor(rows).float())


def _meta(model: FusedModel, modalities: list[Any], name: str, revision: str) -> ModelMeta:
    """The description that mteb stores with results."""
    name = re.sub(r"[^\w.-]+", "-", name.partition("/")[2] or name)
    return ModelMeta(
        loader=None,
        name=f"fusemix/{name}",
        revision=revision,
        release_date=None,
        languages=None,
        n_parameters=None,
        memory_usage_mb=None,
        max_tokens=None,
        embed_dim=model.dim,
        license=_licence(model),
        open_weights=True,
        public_training_code=None,
        public_training_data=None,
        framework=["PyTorch"],
        similarity_fn_name=ScoringFunction.DOT_PRODUCT,
        use_instructions=False,
        training_datasets=None,
        modalities=modalities,
    )


def _licence(model: FusedModel) -> str | None:
    """The strictest of the encoders' licences, if mteb has a name for it."""
    name = strictest(e.licence for e in model.encoders.values())
    return name if name in get_args(Licenses) else None
