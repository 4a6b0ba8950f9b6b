"""`check_selector`: whether a selector keeps its contract."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from fusemix_core.errors import ConfigError
from fusemix_core.interfaces import (
    FitContext,
    Padded,
    PairedLatents,
    ResidentLatents,
    Selector,
    rows_of,
)
from fusemix_core.registry import Registry, registry
from fusemix_core.testing.components import (
    ComponentCase,
    Subject,
    add_declaration_checks,
    expect_nothing_changed,
    find,
    seed,
)
from fusemix_core.testing.pairs import DIMS3, all_rows, toy_pairs
from fusemix_core.testing.report import Report
from fusemix_core.testing.suite import Suite, expect

SELECTOR = Suite("selector", least=10)
add_declaration_checks(SELECTOR)

LARGE, CHUNK = 40_000, 32_768
"""Items of a large table, and how many may be read of it at once."""


def check_selector(
    subject: Subject,
    *,
    options: Mapping[str, Any] | None = None,
    expected_failures: Mapping[str, str] | None = None,
    registry: Registry = registry,
) -> Report:
    """Check a selector: a registered name, a ComponentSpec or a class, built with `options`."""
    SELECTOR.expected(expected_failures)
    case = find("selector", subject, options, registry)
    return SELECTOR.run(case.name, case, expected_failures)


def pairs(missing: float = 0.3) -> PairedLatents:
    """80 pairs of three modalities, of which some rows lack one."""
    return toy_pairs(DIMS3, train=80, missing=missing).train


def select(case: ComponentCase, given: PairedLatents, k: int, number: int = 0) -> Tensor:
    return case.make().select(given, k, FitContext(seed=number))


def expect_same(got: Tensor, wanted: Tensor, what: str) -> None:
    expect(torch.equal(got, wanted), f"{what}: {got.tolist()}, not {wanted.tolist()}")


@SELECTOR.check()
def is_a_selector(case: ComponentCase) -> None:
    """It is a Selector."""
    name = type(case.make()).__name__
    expect(isinstance(case.make(), Selector), f"{name} is not a subclass of Selector")


@SELECTOR.check()
def rows(case: ComponentCase) -> None:
    """It gives rows of the pairs: int64 on the CPU, all different."""
    for given in (pairs(0), pairs()):
        for k in (0, 1, 20, len(given)):
            found = select(case, given, k)
            shape = f"{list(found.shape)}, {found.dtype}, {found.device}"
            right = found.ndim == 1 and found.dtype == torch.int64 and found.device.type == "cpu"
            expect(right, f"{k} of {len(given)}: {shape}")
            expect(len(found.unique()) == len(found), f"{k} of {len(given)}: some more than once")
            inside = ((found >= 0) & (found < len(given))).all()
            expect(inside, f"{k} of {len(given)}: rows that are not there")


@SELECTOR.check()
def as_many_as_asked_for(case: ComponentCase) -> None:
    """It gives as many as it is asked for, or fewer where its `fewer` says why."""
    fewer = case.make().fewer
    for given in (pairs(0), pairs()):
        for k in (1, 20, len(given)):
            found = len(select(case, given, k))
            expect(found == k or (found < k and fewer), f"asked for {k}, it gives {found}")


@SELECTOR.check()
def too_many(case: ComponentCase) -> None:
    """Asked for more pairs than there are it raises ConfigError."""
    given = pairs()
    for k in (len(given) + 1, -1):
        try:
            found = select(case, given, k)
        except ConfigError:
            continue
        expect(False, f"asked for {k} of {len(given)} it gives {len(found)}")


@SELECTOR.check()
def seeded(case: ComponentCase) -> None:
    """Only the seed decides what is chosen: not torch's or numpy's global generator."""
    import numpy as np

    given, state = pairs(), np.random.get_state()  # noqa: NPY002
    found = []
    for number in (1, 2):
        with seed(number):
            np.random.seed(number)  # noqa: NPY002
            found.append(select(case, given, 20, number=5))
    np.random.set_state(state)  # noqa: NPY002
    expect_same(found[1], found[0], "with other global generators")


@SELECTOR.check()
def deterministic(case: ComponentCase) -> None:
    """Asked again it gives the same, in the same order."""
    given, selector = pairs(), case.make()
    first = selector.select(given, 20, FitContext())
    expect_same(selector.select(given, 20, FitContext()), first, "asked again")
    expect_same(select(case, given, 20), first, "made anew")


@SELECTOR.check()
def order_of_items(case: ComponentCase) -> None:
    """The order in which items lie in their tables does not matter."""
    given = pairs()
    tables, links = {}, given.links.clone()
    for k, (modality, table) in enumerate(given.tables.items()):
        order = torch.randperm(len(table), generator=torch.Generator().manual_seed(k))
        tables[modality] = ResidentLatents(rows_of(table, order))
        place = torch.cat([order.argsort(), torch.tensor([-1])])
        links[:, k] = place[links[:, k]]
    other = select(case, PairedLatents(tables, links), 20)
    expect_same(other, select(case, given, 20), "of tables in another order")


@SELECTOR.check(when=lambda case: getattr(case.target, "takes_latents", True))
def view_of_more_axes(case: ComponentCase) -> None:
    """Layers `[L, d]` of an item are looked at as one row: see `rows_of`."""
    given = pairs()
    tables = {
        m: ResidentLatents(all_rows(table).unflatten(1, (2, -1)))
        for m, table in given.tables.items()
    }
    layered = select(case, replace(given, tables=tables), 20)
    expect_same(layered, select(case, given, 20), "of layers")


@SELECTOR.check(when=lambda case: "by" in inspect.signature(case.target).parameters)
def by_one_modality(case: ComponentCase) -> None:
    """Its option `by` is a modality, "" the first: latents of the others have no part."""
    given = pairs(0)
    names = given.modalities
    for modality in ("", *names):
        selector = case.target(by=modality)
        first = selector.select(given, 20, FitContext())
        for other in names:
            tables = dict(given.tables)
            tables[other] = ResidentLatents(all_rows(tables[other]).flip(0).square())
            found = selector.select(PairedLatents(tables, given.links), 20, FitContext())
            if other == (modality or names[0]):
                expect(not torch.equal(found, first), f"by {other}: its latents have no part")
            else:
                expect_same(found, first, f"by {modality or names[0]}, with other {other} latents")


@SELECTOR.check(when=lambda case: "latents" not in getattr(case.target, "uses", ()))
def without_latents(case: ComponentCase) -> None:
    """One that does not use latents chooses without tables."""
    given = pairs()
    found = select(case, PairedLatents({}, given.links[:, :0]), 20)
    expect_same(found, select(case, given, 20), "without tables")


class _Large(ResidentLatents):
    """A table that tells how many rows were read at once."""

    most = 0

    def rows(self, index: Tensor) -> Tensor | Padded:
        self.most = max(self.most, len(index))
        return super().rows(index)


@SELECTOR.check()
def in_chunks(case: ComponentCase) -> None:
    """It reads tables in chunks of 32,768 rows or fewer, as they may be larger than memory."""
    draw = torch.Generator().manual_seed(0)
    tables = {m: _Large(torch.randn(LARGE, 4, generator=draw)) for m in ("image", "text")}
    select(case, PairedLatents(tables, torch.arange(LARGE)[:, None].repeat(1, 2)), 3)
    most = max(table.most for table in tables.values())
    expect(most <= CHUNK, f"{most} of {LARGE} rows at once")


@SELECTOR.check()
def input_unmodified(case: ComponentCase) -> None:
    """Latents and links stay as they were."""
    given, kept = pairs(), pairs()
    select(case, given, 20)
    same = all(torch.equal(all_rows(t), all_rows(kept.tables[m])) for m, t in given.tables.items())
    expect(same and torch.equal(given.links, kept.links), "it changed its input")


@SELECTOR.check()
def surroundings(case: ComponentCase) -> None:
    """Global generators, torch's settings, environment and logging are as before."""
    given = pairs()
    expect_nothing_changed(lambda: select(case, given, 20))
