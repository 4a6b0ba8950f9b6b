"""`check_fuser`: whether a fuser keeps its contract, on labelled rows that it fits in seconds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor

from fusemix_core.data.facts import Fact
from fusemix_core.fuser import Fitted, Fuser, Labelled
from fusemix_core.interfaces import (
    FitContext,
    Padded,
    PairedLatents,
    ResidentLatents,
    Targets,
    Task,
)
from fusemix_core.padded import as_tokens
from fusemix_core.paired import ResidentTokens
from fusemix_core.registry import Registry, registry
from fusemix_core.saved.components import tensors_of
from fusemix_core.tasks.classify import Classify
from fusemix_core.tasks.regress import Regress
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

FUSER = Suite("fuser", least=14)
add_declaration_checks(FUSER)

WIDTHS = {"image": 10, "text": 6, "table": 4}
TRAIN, VALIDATION, NEW = 110, 50, 60
"""Rows of each split."""
_SMALL = 0.03
"""About the spread of a number in a row of unit norm with a thousand of them."""

Latents = dict[str, Tensor | Padded]


def check_fuser(
    subject: Subject,
    *,
    options: Mapping[str, Any] | None = None,
    expected_failures: Mapping[str, str] | None = None,
    registry: Registry = registry,
) -> Report:
    """Check a fuser: a registered name, a ComponentSpec or a class, fitted with `options`.

    Example:
        check_fuser("mlp", options={"width": 16}).raise_if_failed()
    """
    FUSER.expected(expected_failures)
    case = prepare(subject, options=options, registry=registry)
    return FUSER.run(case.name, case, expected_failures)


@dataclass(frozen=True)
class Rows:
    """The splits of labelled rows, and their task."""

    train: Labelled
    validation: Labelled
    new: Labelled
    task: Task


def labelled_rows(
    kind: type[Classify] | type[Regress] = Classify, missing: float = 0.3, tokens: bool = False
) -> Rows:
    """Rows of three modalities whose target depends on all of them.

    Args:
        kind: of the task: three classes, or a number. Every tenth target is not known.
        missing: how often a row lacks a modality.
        tokens: whether texts have one to three tokens each, and latents come as tokens.
    """
    count, draw = TRAIN + VALIDATION + NEW, torch.Generator().manual_seed(0)
    cause = torch.randn(count, 3, generator=draw)
    tables: dict[str, ResidentLatents] = {}
    for k, (modality, width) in enumerate(WIDTHS.items()):
        seen = cause * torch.tensor([1.0 if j == k else 0.3 for j in range(3)])
        rows = seen @ torch.randn(3, width, generator=draw)
        tables[modality] = ResidentLatents(rows + 0.3 * torch.randn(count, width, generator=draw))
    if tokens:
        lengths = torch.randint(1, 4, (count,), generator=draw)
        own = tables["text"].latents.repeat_interleave(lengths, 0)
        noise = 0.1 * torch.randn(own.shape, generator=draw)
        tables["text"] = ResidentTokens(own + noise, lengths)
    links = torch.arange(count)[:, None].repeat(1, 3)
    gaps = torch.rand(count, 3, generator=draw) < missing
    gaps[gaps.all(dim=1), 0] = False
    links[gaps] = -1
    value = cause.sum(dim=1).numpy()
    value[::10] = np.nan
    fact = Fact("number", value)
    if kind is Classify:
        classes = np.where(np.isnan(value), -1, np.digitize(value, [-1, 1]))
        fact = Fact("class", classes.astype(np.int64), ("a", "b", "c"))
    task = kind.learn({"target": fact})
    pairs = PairedLatents(tables, links).with_tokens(tables if tokens else ())
    whole = Labelled(pairs, task.targets({"target": fact}), torch.arange(count))
    train, validation, new = (
        whole.select(own) for own in torch.arange(count).split([TRAIN, VALIDATION, NEW])
    )
    return Rows(train, validation, new, task)


@dataclass
class FuserCase(ComponentCase):
    """A fuser, and what it is fitted to."""

    def rows(self, *args: Any, **options: Any) -> Rows:
        """Labelled rows in the form that the fuser takes."""
        return labelled_rows(*args, **options, tokens=self.takes_tokens)

    def fit(self, rows: Rows, seed: int = 0) -> Fitted:
        """The result of `fit` for these rows."""
        context = FitContext(seed=seed)
        return self.target.fit(rows.train, rows.validation, rows.task, context, **self.options)

    @cached_property
    def fitted(self) -> Fitted:
        """Fitted to rows that lack some modalities."""
        return self.fit(self.rows())

    @property
    def takes_tokens(self) -> bool:
        return "tokens" in getattr(self.target, "uses", ())


def prepare(
    subject: Subject,
    *,
    options: Mapping[str, Any] | None = None,
    registry: Registry = registry,
) -> FuserCase:
    """The case that the checks look at; arguments as of `check_fuser`."""
    return FuserCase(**vars(find("fuser", subject, options, registry)))


def latents_of(rows: Labelled) -> Latents:
    return {m: rows.latents(m) for m in rows.modalities}


def resident(rows: Labelled) -> dict[str, ResidentLatents]:
    """The tables of rows, which the kit keeps in memory."""
    return {m: t for m, t in rows.pairs.tables.items() if isinstance(t, ResidentLatents)}


def score(fuser: Fuser, rows: Labelled, latents: Latents | None = None) -> Tensor:
    """The scores of rows, or of other latents of theirs."""
    with torch.no_grad():
        return fuser(latents_of(rows) if latents is None else latents, rows.present)


def expect_scores(scores: Tensor, count: int, outputs: int, what: str) -> None:
    """Fail unless they are finite float32 `[count, outputs]`."""
    form = f"{str(scores.dtype).removeprefix('torch.')} {list(scores.shape)}"
    wanted = f"float32 [{count}, {outputs}]"
    expect(form == wanted, f"{what}: {form}, not {wanted}")
    expect(scores.isfinite().all(), f"{what}: NaN or infinity")


def expect_same(got: Tensor, wanted: Tensor, what: str) -> None:
    same = got.shape == wanted.shape and torch.allclose(got, wanted, rtol=1e-4, atol=1e-5)
    expect(same, f"{what}: other scores")


@FUSER.check()
def is_a_fuser(case: FuserCase) -> None:
    """It is a Fuser, and `fit` gives a Fitted with one of its class."""
    expect(
        isinstance(case.target, type) and issubclass(case.target, Fuser),
        f"{case.name} is not a subclass of Fuser",
    )
    kind = type(case.fitted).__name__
    expect(isinstance(case.fitted, Fitted), f"fit gave a {kind}")
    expect(isinstance(case.fitted.fuser, case.target), "fit gave a fuser of another class")


@FUSER.check()
def ready_to_use(case: FuserCase) -> None:
    """The fitted fuser is in eval mode on the CPU."""
    for name, module in case.fitted.fuser.named_modules():
        expect(not module.training, f"'{name}' is in training mode")
    for name, tensor in case.fitted.fuser.state_dict().items():
        expect(tensor.device.type == "cpu", f"{name} is on {tensor.device}")


@FUSER.check()
def every_subset(case: FuserCase) -> None:
    """Rows of any non-empty subset of the modalities have finite scores."""
    complete, fuser = case.rows(missing=0.0).new, case.fitted.fuser
    given = latents_of(complete)
    for own in product([True, False], repeat=len(WIDTHS)):
        if any(own):
            names = " + ".join(m for m, there in zip(WIDTHS, own, strict=True) if there)
            with torch.no_grad():
                found = fuser(given, torch.tensor(own).expand(NEW, -1))
            expect_scores(found, NEW, fuser.outputs, names)


@FUSER.check()
def absent_changes_nothing(case: FuserCase) -> None:
    """Whatever the latents of a missing modality contain, the scores are the same."""
    rows, fuser = case.rows().new, case.fitted.fuser
    wanted = score(fuser, rows)
    for filling in (torch.nan, 1e3):
        given = latents_of(rows)
        for k, modality in enumerate(WIDTHS):
            gone = ~rows.present[:, k]
            given[modality] = _filled(given[modality], gone, filling)
        found = score(fuser, rows, given)
        expect(torch.equal(found, wanted), f"other scores with {filling} if one is missing")


def _filled(latents: Tensor | Padded, rows: Tensor, value: float) -> Tensor | Padded:
    """Latents with the value in some rows, which then have tokens in every position."""
    if isinstance(latents, Padded):
        values = latents.values.masked_fill(rows[:, None, None], value)
        return Padded(values, latents.mask | rows[:, None])
    return latents.masked_fill(rows[:, None], value)


@FUSER.check()
def row_by_row(case: FuserCase) -> None:
    """The scores of a row don't depend on the order of rows, nor on the others in the batch."""
    rows, fuser = case.rows().new, case.fitted.fuser
    wanted, given = score(fuser, rows), latents_of(rows)
    order = torch.arange(NEW).flip(0)
    for what, own in (
        ("in another order", order),
        ("some of them", order[20:27]),
        ("a single row", order[3:4]),
    ):
        with torch.no_grad():
            found = fuser({m: x[own] for m, x in given.items()}, rows.present[own])
        expect_same(found, wanted[own], what)


@FUSER.check(when=lambda case: case.takes_tokens)
def padding(case: FuserCase) -> None:
    """More padding, whatever it contains, changes nothing."""
    rows, fuser = case.rows().new, case.fitted.fuser
    wanted, given = score(fuser, rows), latents_of(rows)
    for modality, x in given.items():
        tokens = as_tokens(x)
        longer = tokens.padded_to(tokens.values.shape[1] + 3)
        values = torch.where(longer.mask[..., None], longer.values, torch.nan)
        found = score(fuser, rows, {**given, modality: Padded(values, longer.mask)})
        expect_same(found, wanted, f"more padding of {modality}")


@FUSER.check()
def saveable(case: FuserCase) -> None:
    """Its inputs, outputs and options, as JSON keeps them, and its tensors give the same scores."""
    rows, fuser = case.rows().new, case.fitted.fuser
    made = json.loads(json.dumps([fuser.inputs, fuser.outputs, dict(fuser.options)]))
    with seed(1):
        again = case.target(made[0], made[1], **made[2])
    again.load_state_dict(load(save(tensors_of(fuser))))
    expect_same(score(again.eval(), rows), score(fuser, rows), "when rebuilt")


@FUSER.check()
def learns(case: FuserCase) -> None:
    """On new rows its loss is lower than that of the best constant scores."""
    for kind in (Classify, Regress):
        rows = case.rows(kind)
        fitted = case.fitted if kind is Classify else case.fit(rows)
        _expect_lower_loss(fitted.fuser, rows, kind.__name__)


@FUSER.check()
def learns_from_small_latents(case: FuserCase) -> None:
    """It does so if the numbers in latents are small, as in rows of unit norm of a wide encoder."""
    rows = case.rows()
    for table in resident(rows.new).values():
        table.latents *= _SMALL
    _expect_lower_loss(case.fit(rows).fuser, rows, f"latents times {_SMALL}")


def _expect_lower_loss(fuser: Fuser, rows: Rows, what: str) -> None:
    found = score(fuser, rows.new)
    expect_scores(found, NEW, rows.task.outputs, what)
    constant = rows.task.baseline(rows.train.targets).expand(NEW, -1)
    own, other = (float(rows.task.loss(s, rows.new.targets)) for s in (found, constant))
    expect(own < 0.9 * other, f"{what}: {own:.3f}, constant scores {other:.3f}")


@FUSER.check()
def complete_rows(case: FuserCase) -> None:
    """Fitted to rows that lack nothing, it predicts rows of one modality."""
    rows = case.rows(missing=0.0)
    fuser = case.fit(rows).fuser
    for k, modality in enumerate(WIDTHS):
        own = torch.zeros(NEW, len(WIDTHS), dtype=torch.bool)
        own[:, k] = True
        with torch.no_grad():
            found = fuser(latents_of(rows.new), own)
        expect_scores(found, NEW, fuser.outputs, f"{modality} only")


@FUSER.check()
def scores_of_rows_left_out(case: FuserCase) -> None:
    """If `fit` gives scores of rows that were left out, there is a finite one for each row."""
    if case.fitted.scores is not None:
        expect_scores(case.fitted.scores, TRAIN, case.fitted.fuser.outputs, "of training rows")


@FUSER.check()
def unknown_targets(case: FuserCase) -> None:
    """Targets that aren't known have no part in the fit, whatever their values."""
    rows, wanted = case.rows(), score(case.fitted.fuser, case.rows().new)
    parts = []
    for part in (rows.train, rows.validation):
        targets = part.targets
        values = targets.values.where(targets.known, torch.zeros_like(targets.values) + 2)
        parts.append(replace(part, targets=Targets(values, targets.known)))
    found = case.fit(replace(rows, train=parts[0], validation=parts[1]))
    expect_same(score(found.fuser, rows.new), wanted, "with other values of unknown targets")


@FUSER.check()
def seeded(case: FuserCase) -> None:
    """Only the rows and the seed decide the result: not torch's global generator."""
    rows, wanted = case.rows(), score(case.fitted.fuser, case.rows().new)
    with seed(12345):
        found = case.fit(rows)
    expect_same(score(found.fuser, rows.new), wanted, "fitted again with the same seed")


@FUSER.check()
def sees_only_its_rows(case: FuserCase) -> None:
    """Latents that neither training nor validation rows link have no part in the fit."""
    rows, other = case.rows(), case.rows()
    for table in resident(other.new).values():
        of_new = slice(TRAIN + VALIDATION, None)
        if isinstance(table, ResidentTokens):
            of_new = slice(int(table.lengths[: TRAIN + VALIDATION].sum()), None)
        table.latents[of_new] *= -50
    found = score(case.fit(other).fuser, rows.new)
    expect_same(found, score(case.fitted.fuser, rows.new), "with other latents of new rows")


@FUSER.check()
def input_unmodified(case: FuserCase) -> None:
    """Latents, links and targets stay as they were."""
    rows, kept = case.rows(), case.rows()
    found = case.fit(rows)
    score(found.fuser, rows.new)
    for part, was in ((rows.train, kept.train), (rows.validation, kept.validation)):
        same = torch.equal(part.pairs.links, was.pairs.links) and torch.equal(
            part.targets.values, was.targets.values
        )
        before = resident(was)
        for modality, table in resident(part).items():
            same = same and torch.equal(table.latents, before[modality].latents)
        expect(same, "it changed its input")


@FUSER.check()
def surroundings(case: FuserCase) -> None:
    """Global generators, torch's settings, environment and logging are as before."""
    rows = case.rows()
    expect_nothing_changed(lambda: score(case.fit(rows).fuser, rows.new))
