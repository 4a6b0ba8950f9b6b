"""`check_correction`: whether a correction keeps its contract."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor
from torch.nn.functional import normalize

from fusemix_core.interfaces import Correction, CorrectionPairs, FitContext
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

CORRECTION = Suite("correction", least=7)
add_declaration_checks(CORRECTION)
_DIM, _ROWS = 8, 40


def check_correction(
    subject: Subject,
    *,
    options: Mapping[str, Any] | None = None,
    expected_failures: Mapping[str, str] | None = None,
    registry: Registry = registry,
) -> Report:
    """Check a correction: a registered name, a ComponentSpec or a class, built with `options`."""
    CORRECTION.expected(expected_failures)
    case = find("correction", subject, options, registry)
    return CORRECTION.run(case.name, case, expected_failures)


def pairs() -> CorrectionPairs:
    """Training pairs whose latents are about 3 long."""
    draw = torch.Generator().manual_seed(0)
    latents = 3 * normalize(torch.randn(_ROWS, _DIM, generator=draw), dim=1)
    rows = normalize(latents + 0.5 * torch.randn(_ROWS, _DIM, generator=draw), dim=1)
    return CorrectionPairs(rows, latents, latents.unique(dim=0))


def fitted(case: ComponentCase) -> Any:
    correction = case.make()
    correction.fit("audio", "text", pairs(), FitContext())
    return correction


def corrected(correction: Correction, rows: Tensor, first: int = 0) -> Tensor:
    return correction(rows, "audio", "text", range(first, first + len(rows)))


def expect_same(got: Tensor, wanted: Tensor, what: str) -> None:
    same = got.shape == wanted.shape and torch.allclose(got, wanted, rtol=1e-4, atol=1e-4)
    expect(same, f"{what}: other rows")


@CORRECTION.check()
def is_a_correction(case: ComponentCase) -> None:
    """It is a Correction."""
    name = type(case.make()).__name__
    expect(isinstance(case.make(), Correction), f"{name} is not a subclass of Correction")


@CORRECTION.check()
def finite_rows(case: ComponentCase) -> None:
    """It gives as many rows of the same width, finite, none zero."""
    rows = pairs().rows
    found = corrected(fitted(case), rows)
    expect(found.shape == rows.shape, f"{list(found.shape)} for rows {list(rows.shape)}")
    expect(found.isfinite().all(), "it gives NaN or infinity")
    expect((found.norm(dim=1) > 0).all(), "a row is zero")


@CORRECTION.check()
def row_by_row(case: ComponentCase) -> None:
    """A row is corrected in the same way in any batch: it depends on itself and its seed."""
    correction, rows = fitted(case), pairs().rows
    alone = corrected(correction, rows[3:4], first=3)
    expect_same(corrected(correction, rows)[3:4], alone, "in a batch")


@CORRECTION.check()
def same_pairs_same_fit(case: ComponentCase) -> None:
    """The same pairs and seed give the same correction."""
    rows = pairs().rows
    expect_same(corrected(fitted(case), rows), corrected(fitted(case), rows), "fitted again")


@CORRECTION.check()
def saved_and_loaded(case: ComponentCase) -> None:
    """Its tensors contain all that it has learnt: with them a new one gives the same."""
    first, second, rows = fitted(case), case.make(), pairs().rows
    if tensors := first.tensors:
        kept = {name: value.contiguous() for name, value in tensors.items()}
        second.tensors = load(save(kept))
        expect_same(corrected(second, rows), corrected(first, rows), "loaded")


@CORRECTION.check()
def each_pair_of_modalities(case: ComponentCase) -> None:
    """Learning of one pair of modalities leaves another as it was."""
    correction, rows = fitted(case), pairs().rows
    before = corrected(correction, rows)
    given = pairs()
    other = CorrectionPairs(given.rows.flip(1), -given.latents, -given.known)
    correction.fit("image", "text", other, FitContext())
    expect_same(corrected(correction, rows), before, "after another fit")


@CORRECTION.check()
def nothing_changed(case: ComponentCase) -> None:
    """Random states, settings, environment and logging are as before."""
    expect_nothing_changed(lambda: corrected(fitted(case), pairs().rows))
