"""The corrections of a run's model: fitted to training pairs, chosen on validation pairs."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fusemix_core.adapters.identity import IdentityAdapter
from fusemix_core.adapters.rows import embed_rows
from fusemix_core.config import Part, RunConfig
from fusemix_core.corrections.auto import AutoCorrection
from fusemix_core.fused import FusedModel
from fusemix_core.generation.choosing import try_corrections
from fusemix_core.interfaces import (
    Adapter,
    CorrectionPairs,
    FitContext,
    PairedLatents,
    rows_of,
)
from fusemix_core.registry import registry
from fusemix_core.runs.encode import Encoded
from fusemix_core.runs.reporter import Reporter
from fusemix_core.samples import even_sample

CHEAP = (Part("norm"), Part("shift"), Part("bank"))
"""Those that every model with a fixed modality has."""

_AUTO, _BANK = "auto", "bank"
_PAIRS_MOST, _TRIED_MOST = 20_000, 2_000
"""Pairs that corrections are fitted to, and tried on."""
_KNOWN_MOST, _BANK_MOST = 20_000, 4_096
_LOOKED_AT = 10
"""Times as many rows are looked at for pairs of two modalities, before all rows are."""


@dataclass(frozen=True)
class _Direction:
    """A modality, and the fixed one that its embeddings are corrected to."""

    source: str
    target: str


def add_corrections(
    model: FusedModel,
    config: RunConfig,
    encoded: Encoded,
    device: torch.device,
    reporter: Reporter,
) -> dict[str, Any]:
    """Fit corrections from each modality of the data to each fixed one, and put them into the
    model.

    A private run has none that keep training items.

    Returns:
        For results.json: fixed modality → modality → what was chosen and measured on validation,
        also for a generator with a bank of its own (`with_bank`); empty without a fixed modality.
    """
    directions = _directions(model, encoded.paired("train"))
    if not directions:
        if config.corrections:
            reporter.note("No corrections were fitted: the model has no fixed modality.")
        return {}
    reporter.stage("Fitting corrections")
    context = FitContext(device=device, seed=config.seed)
    fitted = {name: deepcopy(c) for name, c in model.corrections.items() if name != _AUTO}
    for part in corrections_of(config):
        name = registry.check("correction", part).name
        fitted.setdefault(name, registry.build("correction", part))
    # A generator's own bank serves a private model too, which keeps none.
    banked = {**fitted, _BANK: fitted.get(_BANK) or registry.build("correction", Part(_BANK))}
    chosen, with_bank = _chosen_before(model)
    results: dict[str, Any] = {}
    for way in directions:
        pairs = _pairs(model.adapters, encoded.paired("train"), way, device)
        for correction in fitted.values():
            correction.fit(way.source, way.target, pairs, context)
        validation = encoded.paired("validation")
        rows, latents = _paired_rows(model.adapters, validation, way, device, _TRIED_MOST)
        tried = try_corrections(fitted, way.source, way.target, rows, latents)
        known = pairs.known[even_sample(len(pairs.known), _BANK_MOST)]
        bank = torch.cat([known, latents.unique(dim=0)])
        open_ended = try_corrections(banked, way.source, way.target, rows, latents, bank)
        chosen.setdefault(way.source, {})[way.target] = tried.chosen
        with_bank.setdefault(way.source, {})[way.target] = open_ended.chosen
        found = {**tried.as_dict(), "with_bank": open_ended.as_dict()}
        results.setdefault(way.target, {})[way.source] = found
    model.corrections = {**fitted, _AUTO: AutoCorrection(chosen, with_bank)}
    return results


def corrections_of(config: RunConfig) -> list[Part]:
    """The corrections that a run fits: the cheap ones, and those that the user asks for. In a
    private run none that keeps training items."""
    named = {
        registry.check("correction", part).name: part for part in (*CHEAP, *config.corrections)
    }
    return [
        part
        for name, part in named.items()
        if not (config.private and registry.component("correction", name).keeps_items)
    ]


def _chosen_before(model: FusedModel) -> tuple[dict[str, dict[str, str]], ...]:
    """The choices of the model that is extended."""
    auto = model.corrections.get(_AUTO)
    if not isinstance(auto, AutoCorrection):
        return {}, {}
    return tuple({m: {**by} for m, by in c.items()} for c in (auto.chosen, auto.with_bank))


def _directions(model: FusedModel, train: PairedLatents) -> list[_Direction]:
    """Those that the model has no corrections for, and that training rows link."""
    names, there = train.modalities, train.links >= 0
    found = []
    for target in names:
        if not isinstance(model.adapters[target], IdentityAdapter):
            continue
        for source in names:
            both = there[:, names.index(source)] & there[:, names.index(target)]
            known = any((source, target) in c.learnt for c in model.corrections.values())
            if source != target and int(both.sum()) > 1 and not known:
                found.append(_Direction(source, target))
    return found


def _pairs(
    adapters: Mapping[str, Adapter], train: PairedLatents, way: _Direction, device: torch.device
) -> CorrectionPairs:
    rows, latents = _paired_rows(adapters, train, way, device, _PAIRS_MOST)
    ids = train.linked(way.target)
    known = rows_of(train.tables[way.target], ids[even_sample(len(ids), _KNOWN_MOST)])
    return CorrectionPairs(rows, latents, known.float())


def _paired_rows(
    adapters: Mapping[str, Adapter],
    pairs: PairedLatents,
    way: _Direction,
    device: torch.device,
    most: int,
) -> tuple[Tensor, Tensor]:
    """Embeddings of one modality and latents of the other, pair by pair, float32 on the CPU."""
    columns = [pairs.modalities.index(m) for m in (way.source, way.target)]
    some = even_sample(len(pairs.links), _LOOKED_AT * most)
    links = _complete(pairs.links[some][:, columns])
    if len(links) < most and len(some) < len(pairs.links):
        links = _complete(pairs.links[:, columns])
    links = links[even_sample(len(links), most)]
    adapter = adapters[way.source].to(device).eval()
    rows = embed_rows(adapter, pairs.tables[way.source], links[:, 0], device, out="cpu").float()
    return rows, rows_of(pairs.tables[way.target], links[:, 1]).float()


def _complete(links: Tensor) -> Tensor:
    """The rows without a missing item."""
    return links[(links >= 0).all(1)]
