"""`check_reranker`: whether a re-ranker keeps its contract, on pairs that it learns in seconds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor
from torch.nn.functional import normalize

from fusemix_core.config import Part
from fusemix_core.interfaces import FitContext, Padded, PairedLatents, Reranker
from fusemix_core.paired import ResidentTokens
from fusemix_core.registry import Registry, registry
from fusemix_core.rerank_config import RerankSettings
from fusemix_core.reranking.fitting import fit_network, mix_of
from fusemix_core.reranking.split import Split
from fusemix_core.saved.components import tensors_of
from fusemix_core.testing.components import (
    ComponentCase,
    Subject,
    add_declaration_checks,
    expect_nothing_changed,
    find,
    seed,
)
from fusemix_core.testing.report import Report
from fusemix_core.testing.suite import Suite, expect

RERANKER = Suite("reranker", least=9)
add_declaration_checks(RERANKER)

WIDTHS = {"image": 10, "text": 6}
TRAIN, NEW = 120, 60
"""Pairs of each split."""
_CONCEPTS = 12
_SETTINGS = RerankSettings(count=3, pool=16, top_k=16)
_TRAINING = replace(_SETTINGS.training, epochs=24, lr=5e-3, batch_size=24)


def check_reranker(
    subject: Subject,
    *,
    options: Mapping[str, Any] | None = None,
    expected_failures: Mapping[str, str] | None = None,
    registry: Registry = registry,
) -> Report:
    """Check a re-ranker: a registered name, a ComponentSpec or a class, built with `options`.

    Example:
        check_reranker("interaction", options={"width": 32}).raise_if_failed()
    """
    RERANKER.expected(expected_failures)
    case = find("reranker", subject, options, registry)
    return RERANKER.run(case.name, case, expected_failures)


@cache
def tokens() -> PairedLatents:
    """Pairs of two modalities whose items have two to four tokens. A concept has a token on either
    side, and both items of a pair have the same concepts."""
    count, draw = TRAIN + NEW, torch.Generator().manual_seed(0)
    lengths = torch.randint(2, 5, (count,), generator=draw)
    concepts = [torch.randperm(_CONCEPTS, generator=draw)[:length] for length in lengths.tolist()]
    tables = {}
    for modality, width in WIDTHS.items():
        looks = torch.randn(_CONCEPTS, width, generator=draw)
        own = torch.cat([looks[one] for one in concepts])
        noise = 0.2 * torch.randn(own.shape, generator=draw)
        tables[modality] = ResidentTokens(own + noise, lengths)
    return PairedLatents(tables, torch.arange(count)[:, None].repeat(1, 2)).with_tokens(WIDTHS)


def splits() -> tuple[Split, Split]:
    """Training pairs and new ones, by a fused model that is hardly better than chance."""
    pairs, draw = tokens(), torch.Generator().manual_seed(1)
    common = torch.randn(len(pairs), 8, generator=draw)
    embeddings = {
        m: normalize(0.3 * common + torch.randn(len(pairs), 8, generator=draw), dim=1)
        for m in WIDTHS
    }

    def score(queries: Tensor, gallery: Tensor, query: str, target: str) -> Tensor:
        return queries @ gallery.T

    rows = torch.arange(len(pairs))
    own = pairs.select(rows[:TRAIN]), pairs.select(rows[TRAIN:])
    first, second = (Split(part, embeddings, score) for part in own)
    return first, second


def latents() -> dict[str, Padded]:
    """The tokens of the new pairs."""
    found = tokens().batch(torch.arange(TRAIN, TRAIN + NEW)).latents
    return {m: x for m, x in found.items() if isinstance(x, Padded)}


def built(case: ComponentCase) -> Reranker:
    """A network with initial weights, prepared, in eval mode."""
    with seed(0):
        network = case.make(dict(WIDTHS))
        given = latents()
        network.prepare({m: x.values[x.mask] for m, x in given.items()})
    return network.eval()


def scores(network: Reranker, given: Mapping[str, Padded] | None = None) -> Tensor:
    """The scores of the new pairs, or of other latents."""
    with torch.no_grad():
        return network(latents() if given is None else given)


def _expect_same(got: Tensor, wanted: Tensor, what: str) -> None:
    same = got.shape == wanted.shape and torch.allclose(got, wanted, rtol=1e-4, atol=1e-5)
    expect(same, f"{what}: other scores")


@RERANKER.check()
def is_a_reranker(case: ComponentCase) -> None:
    """It is a Reranker, and knows the widths of its inputs."""
    expect(
        isinstance(case.target, type) and issubclass(case.target, Reranker),
        f"{case.name} is not a subclass of Reranker",
    )
    network = built(case)
    same = list(network.inputs.items()) == list(WIDTHS.items())
    expect(same, f"inputs is {network.inputs}, not {WIDTHS}")


@RERANKER.check()
def a_score_for_each_pair(case: ComponentCase) -> None:
    """Scores are finite float32, one for each pair."""
    found = scores(built(case))
    form = f"{str(found.dtype).removeprefix('torch.')} {list(found.shape)}"
    expect(form == f"float32 [{NEW}]", f"{form}, not float32 [{NEW}]")
    expect(found.isfinite().all(), "NaN or infinity")


@RERANKER.check()
def pair_by_pair(case: ComponentCase) -> None:
    """The score of a pair depends neither on the order of pairs nor on the others in the batch."""
    network, given = built(case), latents()
    wanted, order = scores(network), torch.arange(NEW).flip(0)
    for what, rows in (("in another order", order), ("some of them", order[20:27])):
        found = scores(network, {m: x[rows] for m, x in given.items()})
        _expect_same(found, wanted[rows], what)
    one = scores(network, {m: x[order[3:4]] for m, x in given.items()})
    _expect_same(one, wanted[order[3:4]], "a single pair")


@RERANKER.check()
def a_table_of_pairs(case: ComponentCase) -> None:
    """`table` has the scores of all pairs of items of both sides, as `forward` gives them."""
    network, given = built(case), latents()
    sides = {"image": torch.arange(4), "text": torch.arange(2, 8)}
    with torch.no_grad():
        found = network.table({m: given[m][rows] for m, rows in sides.items()})
    row, column = (one.flatten() for one in torch.meshgrid(*sides.values(), indexing="ij"))
    wanted = scores(network, {"image": given["image"][row], "text": given["text"][column]})
    _expect_same(found, wanted.view(4, 6), "as a table")


@RERANKER.check()
def padding(case: ComponentCase) -> None:
    """More padding, whatever it contains, changes nothing."""
    network, given = built(case), latents()
    wanted = scores(network)
    for modality, x in given.items():
        longer = x.padded_to(x.values.shape[1] + 3)
        values = torch.where(longer.mask[..., None], longer.values, torch.nan)
        found = scores(network, {**given, modality: Padded(values, longer.mask)})
        _expect_same(found, wanted, f"more padding of {modality}")


@RERANKER.check()
def saveable(case: ComponentCase) -> None:
    """Its inputs and options, as JSON keeps them, and its tensors give the same scores."""
    network = built(case)
    inputs, options = json.loads(json.dumps([network.inputs, dict(network.options)]))
    with seed(1):
        again = case.target(inputs, **options)
    again.load_state_dict(load(save(tensors_of(network))))
    _expect_same(scores(again.eval()), scores(network), "when rebuilt")


@RERANKER.check()
def learns(case: ComponentCase) -> None:
    """Trained, it ranks new pairs better than the fused model."""
    train, new = splits()
    part = Part(case.name, dict(case.options))
    settings = replace(_SETTINGS, training=_TRAINING)
    network = fit_network(lambda: case.make(dict(WIDTHS)), part, train, new, settings, FitContext())
    mix = mix_of(network, new, settings.top_k)
    before, after = mix.tried[0.0], mix.score
    expect(after > 1.2 * before, f"mean reciprocal rank {after:.1f}, before {before:.1f}")


@RERANKER.check()
def input_unmodified(case: ComponentCase) -> None:
    """Latents stay as they were."""
    given, kept = latents(), latents()
    scores(built(case), given)
    for modality, x in given.items():
        same = torch.equal(x.values, kept[modality].values)
        expect(same and torch.equal(x.mask, kept[modality].mask), f"it changed {modality}")


@RERANKER.check()
def surroundings(case: ComponentCase) -> None:
    """Global generators, torch's settings, environment and logging are as before."""
    expect_nothing_changed(lambda: scores(built(case)))
