"""Which layer of each encoder to align: those with most nearest neighbours in common.

The aligner `best-layers` chooses them and fits another aligner on them only; the adapter `layer`
is what it leaves, and all that a saved model needs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from fusemix_core.adapters.rows import width_of
from fusemix_core.config import Part, Recipe
from fusemix_core.errors import ConfigError, DataError
from fusemix_core.evaluation.similarity import best_layers, distinct_pairs
from fusemix_core.interfaces import (
    Adapter,
    Aligner,
    FitContext,
    LatentTable,
    PairedLatents,
    as_rows,
    input_of,
)
from fusemix_core.latents.tables import one_layer
from fusemix_core.registry import registry
from fusemix_core.saved.components import part_of


class LayerAdapter(Adapter):
    """Layer `layer`, from 0, of latents `[n, layers · d]`, through another adapter `d` → dim_out.

    adapter, options: the other one by its registered name. Raises `ConfigError` for a layer that is
    not there, or latents that are not of so many layers.
    """

    def __init__(
        self,
        dim_in: int,
        dim_out: int,
        *,
        layers: int = 1,
        layer: int = 0,
        adapter: str = "linear",
        options: Mapping[str, Any] = {},  # noqa: B006
    ) -> None:
        super().__init__()
        if not 0 <= layer < layers or dim_in % layers:
            raise ConfigError(f"Latents of width {dim_in} have no layer {layer} of {layers}.")
        self.layers, self.layer = layers, layer
        self.adapter = registry.build("adapter", Part(adapter, options), dim_in // layers, dim_out)

    def forward(self, latents: Tensor) -> Tensor:
        own = latents.unflatten(1, (self.layers, -1))[:, self.layer]
        return self.adapter(input_of(self.adapter, own))


class BestLayersAligner(Aligner):
    """Fits another aligner on one layer per modality, chosen on the training split.

    aligner, options: the other one by its registered name. A layer is chosen of each view of two
    axes, `layers [n, L, d]`, whose modality is not fixed. The choice is the pair of layers with the
    most mutual nearest neighbours (arXiv 2405.07987, as arXiv 2506.16895 uses it), `neighbours`
    of each item, among `sample` pairs of items. Of more than two modalities the first two are
    chosen so, and of each further one the layer that is most alike the first's. Evaluations tell
    the choice, `layer/MODALITY` from 0 and `mutual_knn`.

    Raises `DataError` where too few training pairs have both modalities to compare layers.
    """

    def __init__(
        self,
        *,
        aligner: str = "gradient",
        options: Mapping[str, Any] = {},  # noqa: B006
        neighbours: int = 10,
        sample: int = 1000,
    ) -> None:
        if not 1 <= neighbours < sample:
            raise ConfigError(
                f"best-layers can't find {neighbours} neighbours among {sample} items.",
                "neighbours is 1 or more, sample larger.",
            )
        self.aligner = registry.build("aligner", Part(aligner, options))
        self.uses = self.aligner.uses
        self.neighbours, self.sample = neighbours, sample

    def fit(
        self, train: PairedLatents, validation: PairedLatents, recipe: Recipe, context: FitContext
    ) -> dict[str, Adapter]:
        tables = {m: t for m, t in train.tables.items() if m not in context.fixed}
        depths = {m: t.shape[0] for m, t in tables.items() if len(t.shape) == 2}
        if not depths:
            return self.aligner.fit(train, validation, recipe, context)
        chosen, alike = self._choose(train, context)
        chosen = {m: layer for m, layer in chosen.items() if m in depths}
        choice = {f"layer/{m}": layer for m, layer in chosen.items()} | {"mutual_knn": alike}
        found = self.aligner.fit(
            *(_of_layers(pairs, chosen) for pairs in (train, validation)),
            recipe,
            replace(context, callbacks=[c.through(added=choice) for c in context.callbacks]),
        )
        return {
            m: _on_layer(adapter, train.dims[m], depths[m], chosen[m]) if m in depths else adapter
            for m, adapter in found.items()
        }

    def _choose(self, train: PairedLatents, context: FitContext) -> tuple[dict[str, int], float]:
        """The layer of each modality, 0 if it has one only, and how alike the first two are."""
        first, *others = train.modalities
        chosen, alike = {}, []
        for modality in others:
            a, b = self._drawn(train, first, modality, context)
            if first in chosen:
                a = a[:, chosen[first], None]
            score, (own, other) = best_layers(a, b, self.neighbours)
            chosen.setdefault(first, own)
            chosen[modality] = other
            alike.append(score)
        return chosen, alike[0]

    def _drawn(
        self, train: PairedLatents, first: str, second: str, context: FitContext
    ) -> tuple[Tensor, Tensor]:
        """The latents `[n, L, d]` of both modalities of pairs of different items."""
        columns = [train.modalities.index(m) for m in (first, second)]
        pairs = distinct_pairs(train.links[:, columns], context.seed)[: self.sample]
        if len(pairs) <= self.neighbours:
            raise DataError(
                f"{len(pairs)} training pairs of {first} and {second} are too few to choose layers "
                f"by {self.neighbours} neighbours.",
                "Give more pairs, or --set aligner.neighbours=N.",
            )
        a, b = (
            _layers(train.tables[m], pairs[:, i], context.fixed.get(m))
            for i, m in enumerate((first, second))
        )
        return a, b


@torch.no_grad()
def _layers(table: LatentTable, index: Tensor, fixed: Adapter | None) -> Tensor:
    """`[n, L, d]` on the CPU; `[n, 1, d]` of a table without layers, and of the embeddings of a
    fixed adapter."""
    rows = table.rows(index).to("cpu")
    if fixed is not None:
        return fixed(input_of(fixed, rows))[:, None]
    return rows if isinstance(rows, Tensor) and rows.ndim == 3 else as_rows(rows)[:, None]


def _of_layers(pairs: PairedLatents, chosen: Mapping[str, int]) -> PairedLatents:
    tables = {
        m: one_layer(table, chosen[m]) if m in chosen else table
        for m, table in pairs.tables.items()
    }
    return replace(pairs, tables=tables)


def _on_layer(adapter: Adapter, dim_in: int, layers: int, layer: int) -> LayerAdapter:
    """The fitted adapter of a layer as one of all layers."""
    part = part_of("adapter", adapter, None, registry)
    whole = LayerAdapter(
        dim_in,
        width_of(adapter, dim_in // layers),
        layers=layers,
        layer=layer,
        adapter=part.name,
        options=dict(part.options),
    )
    whole.adapter = adapter
    return whole.eval()
