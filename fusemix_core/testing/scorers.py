"""`check_scorer`: whether a scorer keeps its contract."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor
from torch.nn.functional import normalize

from fusemix_core.errors import ConfigError
from fusemix_core.interfaces import Scorer
from fusemix_core.registry import Registry, registry
from fusemix_core.testing.components import (
    ComponentCase,
    Subject,
    add_declaration_checks,
    expect_nothing_changed,
    find,
)
from fusemix_core.testing.report import Report
from fusemix_core.testing.suite import Suite, expect

SCORER = Suite("scorer", least=8)
add_declaration_checks(SCORER)


def check_scorer(
    subject: Subject,
    *,
    options: Mapping[str, Any] | None = None,
    expected_failures: Mapping[str, str] | None = None,
    registry: Registry = registry,
) -> Report:
    """Check a scorer: a registered name, a ComponentSpec or a class, built with `options`."""
    SCORER.expected(expected_failures)
    case = find("scorer", subject, options, registry)
    return SCORER.run(case.name, case, expected_failures)


def embeddings(rows: int, number: int = 0) -> dict[str, Tensor]:
    """Unit-norm `[rows, 8]` of two modalities; row i of one is near row i of the other."""
    draw = torch.Generator().manual_seed(number)
    image = torch.randn(rows, 8, generator=draw)
    text = image + 0.2 * torch.randn(rows, 8, generator=draw)
    return {"image": normalize(image, dim=1), "text": normalize(text, dim=1)}


def fitted(case: ComponentCase) -> Any:
    scorer = case.make()
    scorer.fit(embeddings(50))
    return scorer


def score(scorer: Scorer, rows: int = 20) -> Tensor:
    given = embeddings(rows, number=1)
    return scorer.score(given["image"], given["text"], "image", "text")


def expect_same(got: Tensor, wanted: Tensor, what: str) -> None:
    same = got.shape == wanted.shape and torch.allclose(got, wanted, rtol=1e-4, atol=1e-5)
    expect(same, f"{what}: other scores")


@SCORER.check()
def is_a_scorer(case: ComponentCase) -> None:
    """It is a Scorer."""
    name = type(case.make()).__name__
    expect(isinstance(case.make(), Scorer), f"{name} is not a subclass of Scorer")


@SCORER.check()
def shape(case: ComponentCase) -> None:
    """n queries and m items of a gallery have finite scores `[n, m]`, either way round."""
    scorer, queries, gallery = fitted(case), embeddings(7), embeddings(11)
    for query, target in (("image", "text"), ("text", "image")):
        scores = scorer.score(queries[query], gallery[target], query, target)
        expect(list(scores.shape) == [7, 11], f"{query} to {target}: {list(scores.shape)}")
        expect(scores.isfinite().all(), f"{query} to {target}: NaN or infinity")


@SCORER.check()
def larger_is_closer(case: ComponentCase) -> None:
    """Most queries score highest with their own partner."""
    scores = score(fitted(case))
    hits = (scores.argmax(dim=1) == torch.arange(len(scores))).float().mean().item()
    expect(hits > 0.5, f"{hits:.0%} of the queries do")


@SCORER.check()
def in_tiles(case: ComponentCase) -> None:
    """A score depends only on its query and item, so that large galleries go in tiles."""
    scorer, given = fitted(case), embeddings(20, number=1)
    whole = score(scorer)
    tile = scorer.score(given["image"][3:8], given["text"][5:12], "image", "text")
    expect_same(tile, whole[3:8, 5:12], "a tile")


@SCORER.check()
def prepared(case: ComponentCase) -> None:
    """`prepare` gives the scores of `score`."""
    scorer, given = fitted(case), embeddings(20, number=1)
    got = scorer.prepare(given["text"], "image", "text")(given["image"])
    expect_same(got, score(scorer), "prepared")


@SCORER.check()
def lifted(case: ComponentCase) -> None:
    """Inner products of lifted vectors rank a gallery as `score` does; or it refuses to lift."""
    scorer, given, against = fitted(case), embeddings(40, number=1), ["text", "image"]
    for query, target in (("image", "text"), ("text", "image"), ("text", "text")):
        try:
            asked = scorer.lift(given[query], query, against, gallery=False)
            stored = scorer.lift(given[target], target, against, gallery=True)
        except ConfigError:
            return
        scores = scorer.score(given[query], given[target], query, target)
        ordered = (asked @ stored.T).gather(1, scores.argsort(dim=1, descending=True))
        rises = ordered.diff(dim=1) > 1e-5
        expect(not rises.any(), f"{query} to {target}: lifted, they rank otherwise")


@SCORER.check()
def mapped(case: ComponentCase) -> None:
    """For embeddings that are turned it gives the scores of before; or it refuses."""
    scorer, given = fitted(case), embeddings(40, number=1)
    turn = torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(2))).Q
    try:
        other = scorer.mapped(turn)
    except ConfigError:
        return
    expected = scorer.score(given["text"], given["image"], "text", "image")
    found = other.score(given["text"] @ turn, given["image"] @ turn, "text", "image")
    same = torch.allclose(found, expected, rtol=0, atol=5e-3)  # what it keeps may be float16
    expect(same, "turned by an orthogonal matrix: other scores")


@SCORER.check()
def saveable(case: ComponentCase) -> None:
    """Its tensors, saved and given to a new one, give the same scores."""
    scorer, again = fitted(case), case.make()
    again.tensors = load(save({k: v.contiguous() for k, v in scorer.tensors.items()}))
    expect_same(score(again), score(scorer), "saved and loaded")


@SCORER.check()
def deterministic(case: ComponentCase) -> None:
    """Fitted again on the same embeddings it gives the same scores."""
    scorer = fitted(case)
    first = score(scorer)
    expect_same(score(scorer), first, "scored again")
    expect_same(score(fitted(case)), first, "fitted again")


@SCORER.check()
def extends(case: ComponentCase) -> None:
    """It takes in a third modality, and scores of the others stay as they were; or it refuses."""
    scorer = fitted(case)
    before = score(scorer)
    sounds = embeddings(50)["text"].flip(0)
    try:
        scorer.extend({"audio": sounds})
    except NotImplementedError:
        return
    expect(torch.equal(score(scorer), before), "extended: other scores of image and text")
    given = embeddings(20, number=1)
    for query, target in (("image", "audio"), ("audio", "image"), ("audio", "text")):
        of_query, of_target = given.get(query, given["text"]), given.get(target, given["text"])
        found = scorer.score(of_query, of_target, query, target)
        expect(found.isfinite().all(), f"{query} to {target}: NaN or infinity")


@SCORER.check()
def input_unmodified(case: ComponentCase) -> None:
    """Embeddings stay as they were."""
    given, kept, scorer = embeddings(20), embeddings(20), case.make()
    scorer.fit(given)
    scorer.score(given["image"], given["text"], "image", "text")
    expect(all(torch.equal(x, kept[m]) for m, x in given.items()), "it changed its input")


@SCORER.check()
def surroundings(case: ComponentCase) -> None:
    """Global generators, torch's settings, environment and logging are as before."""
    expect_nothing_changed(lambda: score(fitted(case)))
