"""`check_objective`: whether an objective keeps its contract."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor

from fusemix_core.data.facts import Fact
from fusemix_core.errors import ContractError
from fusemix_core.interfaces import FitContext, Objective, Padded
from fusemix_core.registry import Registry, registry
from fusemix_core.testing.components import (
    ComponentCase,
    Subject,
    add_declaration_checks,
    expect_nothing_changed,
    find,
    seed,
)
from fusemix_core.testing.report import Report
from fusemix_core.testing.steps import (
    ROWS,
    Embeddings,
    adapters_of,
    embeddings_of,
    latents_of,
    links_of,
    splits_of,
    step_of,
    tokens_of,
)
from fusemix_core.testing.suite import Suite, expect

OBJECTIVE = Suite("objective", least=17)
add_declaration_checks(OBJECTIVE)


def check_objective(
    subject: Subject,
    *,
    options: Mapping[str, Any] | None = None,
    facts: Mapping[str, Fact] | None = None,
    expected_failures: Mapping[str, str] | None = None,
    registry: Registry = registry,
) -> Report:
    """Check an objective: a registered name, a ComponentSpec or a class, built with `options`.

    facts: the values that rows have in turn, for an objective that uses facts.
    """
    OBJECTIVE.expected(expected_failures)
    case = find("objective", subject, options, registry)
    case.facts = facts or {}
    return OBJECTIVE.run(case.name, case, expected_failures)


def built(case: ComponentCase, embeddings: Embeddings | None = None) -> Any:
    """A new objective, started on toy pairs of the embeddings' modalities."""
    embeddings = embeddings or embeddings_of()
    with seed(0):
        objective = case.make()
        if isinstance(objective, Objective):
            splits = splits_of(tuple(embeddings), case.facts)
            objective.start(adapters_of(embeddings), *splits, FitContext())
    return objective


def call(
    case: ComponentCase, embeddings: Embeddings, links: Tensor, objective: Any = None, **given: Any
) -> Tensor:
    """The loss of a step, by a new objective if none is given."""
    objective = objective or built(case, embeddings)
    uses = getattr(objective, "uses", ())
    return objective(step_of(embeddings, links, **{"uses": uses, "facts": case.facts, **given}))


def loss_of(case: ComponentCase, embeddings: Embeddings, links: Tensor, **given: Any) -> float:
    with torch.no_grad():
        return call(case, embeddings, links, **given).item()


def expect_close(got: float, wanted: float, what: str) -> None:
    close = math.isclose(got, wanted, rel_tol=1e-3, abs_tol=1e-4)
    expect(close, f"{what}: the loss is {got:.6g} instead of {wanted:.6g}")


def has_finite_grad(x: Tensor) -> bool:
    return x.grad is not None and bool(x.grad.isfinite().all())


@OBJECTIVE.check()
def scalar(case: ComponentCase) -> None:
    """The loss of two or three modalities is one finite number."""
    for modalities in (2, 3):
        loss = call(case, embeddings_of(modalities), links_of(modalities))
        expect(isinstance(loss, Tensor), f"the loss is a {type(loss).__name__}, not a Tensor")
        expect(loss.shape == (), f"the loss has the shape {list(loss.shape)}")
        expect(loss.isfinite(), f"the loss of {modalities} modalities is {loss.item()}")


@OBJECTIVE.check()
def gradients(case: ComponentCase) -> None:
    """Gradients, all finite, reach every modality's embeddings and every parameter of its own."""
    for modalities in (2, 3):
        given = {m: x.requires_grad_() for m, x in embeddings_of(modalities).items()}
        objective = built(case, given)
        call(case, given, links_of(modalities), objective).backward()
        own = {n: p for n, p in objective.named_parameters() if p.requires_grad}
        for name, x in {**given, **own}.items():
            expect(x.grad is not None and x.grad.any(), f"no gradient reaches {name}")
            expect(has_finite_grad(x), f"the gradient of {name} is not finite")


@OBJECTIVE.check()
def gradient_is_the_derivative(case: ComponentCase) -> None:
    """In float64 the gradient is that of finite differences."""
    x, y = (v[:5, :4].double().requires_grad_() for v in embeddings_of().values())
    rows, links = {"image": x, "text": y}, links_of(2, 5)
    objective, latents = built(case, rows).double(), latents_of(rows)

    def loss(x: Tensor, y: Tensor) -> Tensor:
        # A copy, so that what it remembers of a batch has no part in the next.
        rows = {"image": x, "text": y}
        return call(case, rows, links, deepcopy(objective), latents=latents)

    got = loss(x, y).dtype
    expect(got == torch.float64, f"float64 embeddings gave a loss in {got}")
    torch.autograd.gradcheck(loss, (x, y), eps=1e-6, atol=1e-5)


@OBJECTIVE.check()
def scale_invariance(case: ComponentCase) -> None:
    """The objective normalises: the length of embeddings does not matter."""
    given, links = embeddings_of(), links_of()
    longer = {m: x * (3 + i) for i, (m, x) in enumerate(given.items())}
    same = {"tokens": tokens_of(given), "latents": latents_of(given)}
    got = loss_of(case, longer, links, **same)
    expect_close(got, loss_of(case, given, links, **same), "longer rows")


@OBJECTIVE.check()
def order_of_rows(case: ComponentCase) -> None:
    """The order of the rows does not matter."""
    given, links = embeddings_of(3), links_of(3)
    order = torch.randperm(ROWS, generator=torch.Generator().manual_seed(0))
    moved = {m: x[order] for m, x in given.items()}
    expect_close(loss_of(case, moved, links[order]), loss_of(case, given, links), "rows moved")


@OBJECTIVE.check()
def prefers_alignment(case: ComponentCase) -> None:
    """Embeddings that agree have less loss than the same ones paired wrongly."""
    for modalities in (2, 3):
        given, links = embeddings_of(modalities, noise=0.05), links_of(modalities)
        wrong = {m: x.roll(i, 0) for i, (m, x) in enumerate(given.items())}
        right_loss, wrong_loss = loss_of(case, given, links), loss_of(case, wrong, links)
        expect(
            right_loss < wrong_loss,
            f"{modalities} modalities: {right_loss:.4g} aligned, {wrong_loss:.4g} paired wrongly",
        )


@OBJECTIVE.check()
def descent_aligns(case: ComponentCase) -> None:
    """Following the gradient brings the pairs' cosines up."""
    objective = built(case)
    given = {m: x.requires_grad_() for m, x in embeddings_of(noise=1.0).items()}
    optimiser = torch.optim.SGD(given.values(), lr=0.5)
    x, y = given.values()
    before = torch.cosine_similarity(x, y).mean().item()
    for _ in range(20):
        optimiser.zero_grad()
        call(case, given, links_of(), objective).backward()
        optimiser.step()
    after = torch.cosine_similarity(x, y).mean().item()
    expect(after > before, f"the mean cosine of pairs went from {before:.3f} to {after:.3f}")


@OBJECTIVE.check()
def missing_entries(case: ComponentCase) -> None:
    """Embeddings of entries that are missing have no part in the loss and get no gradient."""
    links = links_of(3)
    links[::4, :, 0] = links[1::4, :, 1] = links[2::4, :, 2] = -1
    absent = links[:, 0] < 0
    given = {m: x.requires_grad_() for m, x in embeddings_of(3).items()}
    loss = call(case, given, links)
    expect(loss.isfinite(), f"the loss is {loss.item()}")
    loss.backward()
    other = {}
    for k, (modality, x) in enumerate(given.items()):
        reached = x.grad[absent[:, k]].any() if x.grad is not None else False
        expect(not reached, f"a gradient reaches {modality} although it is missing")
        other[modality] = torch.where(absent[:, k, None], x.detach() + 5, x.detach())
    expect_close(loss_of(case, other, links), loss.item(), "other values where entries are missing")


@OBJECTIVE.check()
def mixed_and_shared_items(case: ComponentCase) -> None:
    """Rows mixed from two sources, and rows that share an item, have a finite loss and gradient."""
    shared = links_of()
    shared[:, :, 0] //= 4
    for what, links in (("mixed", links_of(2, ROWS, sources=2)), ("sharing an item", shared)):
        given = {m: x.requires_grad_() for m, x in embeddings_of().items()}
        loss = call(case, given, links)
        loss.backward()
        good = loss.isfinite() and all(map(has_finite_grad, given.values()))
        expect(good, f"rows {what}: the loss is {loss.item()}, or its gradient is not finite")


@OBJECTIVE.check()
def deterministic(case: ComponentCase) -> None:
    """The same batch gives the same loss, from the same state."""
    objective, given = built(case), embeddings_of()
    state = deepcopy(objective.state_dict())
    with torch.no_grad():
        first = call(case, given, links_of(), objective).item()
        objective.load_state_dict(state)
        second = call(case, given, links_of(), objective).item()
    expect(first == second, f"first {first}, then {second}")


@OBJECTIVE.check()
def log_is_numbers(case: ComponentCase) -> None:
    """`log` gives finite floats, or tensors of one, by name."""
    objective = built(case)
    call(case, embeddings_of(), links_of(), objective)
    logged = objective.log()
    expect(isinstance(logged, dict), f"log() gave a {type(logged).__name__}")
    for name, value in logged.items():
        if isinstance(value, Tensor) and value.shape == ():
            value = value.item()
        good = isinstance(name, str) and isinstance(value, float) and math.isfinite(value)
        expect(good, f"log() gave {name!r}: {value!r}")


@OBJECTIVE.check()
def resumes(case: ComponentCase) -> None:
    """Its state, put into a new one, gives the same loss: training can be resumed."""
    first, given = built(case), embeddings_of()
    optimiser = torch.optim.SGD([*first.parameters(), torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    if any(p.requires_grad for p in first.parameters()):
        call(case, given, links_of(), first).backward()
    optimiser.step()
    with torch.no_grad():
        call(case, given, links_of(), first)
        state = deepcopy(first.state_dict())
        wanted = call(case, given, links_of(), first).item()
        second = built(case)
        second.load_state_dict(state, strict=True)
        expect_close(
            call(case, given, links_of(), second).item(), wanted, "with the first one's state"
        )


@OBJECTIVE.check()
def input_unmodified(case: ComponentCase) -> None:
    """Embeddings and links stay as they were."""
    given, links = embeddings_of(), links_of()
    kept = {m: x.clone() for m, x in given.items()}, links.clone()
    call(case, given, links)
    same = torch.equal(links, kept[1]) and all(torch.equal(x, kept[0][m]) for m, x in given.items())
    expect(same, "it changed its input")


@OBJECTIVE.check()
def surroundings(case: ComponentCase) -> None:
    """Global generators, torch's settings, environment and logging are as before."""
    objective = built(case)
    expect_nothing_changed(lambda: call(case, embeddings_of(), links_of(), objective))


def uses(name: str) -> Callable[[ComponentCase], bool]:
    """Whether the class of a case declares a name."""
    return lambda case: name in getattr(case.target, "uses", ())


@OBJECTIVE.check()
def reads_what_it_declares(case: ComponentCase) -> None:
    """It reads nothing outside `uses`, and each of that within three steps."""
    objective = built(case)
    for _ in range(3):
        call(case, embeddings_of(), links_of(), objective)
    for name in getattr(case.target, "uses", ()):
        objective = built(case)
        fewer = [use for use in objective.uses if use != name]
        try:
            for _ in range(3):
                call(case, embeddings_of(), links_of(), objective, uses=fewer)
        except ContractError:
            continue
        expect(False, f"it declares '{name}' and never reads it")


@OBJECTIVE.check(when=uses("tokens"))
def tokens(case: ComponentCase) -> None:
    """Tokens have a part in the loss, and a gradient; padding, and what a row lacks, have none."""
    given, links = embeddings_of(), links_of()
    links[::4, :, 0] = -1
    lacking = (links[:, 0] < 0).any(dim=1)
    own = tokens_of(given)
    values = {m: x.values.requires_grad_() for m, x in own.items()}
    loss = call(case, given, links, tokens=own)
    loss.backward()
    for modality, x in values.items():
        grad = torch.zeros_like(x) if x.grad is None else x.grad
        reached = grad.isfinite().all() and grad.any()
        expect(reached, f"no gradient, or not a finite one, reaches the tokens of {modality}")
        expect(not grad[lacking].any(), f"a gradient reaches tokens of {modality} without pair")
        expect(not grad[~own[modality].mask].any(), f"a gradient reaches padding of {modality}")
    longer = {m: x.padded_to(x.values.shape[1] + 2) for m, x in own.items()}
    full = {m: Padded(x.filled(torch.nan), x.mask) for m, x in own.items()}
    for what, tokens in (("more padding", longer), ("padding of NaN", full)):
        expect_close(loss_of(case, given, links, tokens=tokens), loss.item(), what)


@OBJECTIVE.check(when=uses("trust"))
def trust(case: ComponentCase) -> None:
    """Wrong pairs cost less if they are not trusted; with any trust the loss is finite."""
    given, links = embeddings_of(noise=0.05), links_of()
    wrong = torch.arange(ROWS) < 4
    given["text"] = torch.where(wrong[:, None], given["text"].roll(1, 0), given["text"])
    trusting = loss_of(case, given, links)
    doubting = loss_of(case, given, links, trust=(~wrong).float())
    expect(
        doubting < trusting,
        f"{trusting:.4g} where wrong pairs are trusted, {doubting:.4g} where not",
    )
    for each in (torch.zeros(ROWS), torch.linspace(0, 1, ROWS)):
        rows = {m: x.clone().requires_grad_() for m, x in given.items()}
        loss = call(case, rows, links, trust=each)
        loss.backward()
        good = loss.isfinite() and all(map(has_finite_grad, rows.values()))
        expect(good, f"the loss is {loss.item()}, or its gradient not finite, with trust {each}")


@OBJECTIVE.check(when=lambda case: uses("adapters")(case) and not uses("latents")(case))
def through(case: ComponentCase) -> None:
    """Embeddings of other adapters have a part in the loss, their lengths and what a row lacks have
    none."""
    given, links = embeddings_of(), links_of()
    links[::4, :, 0] = -1
    own = latents_of(given)
    loss = loss_of(case, given, links, latents=own)
    other = loss_of(case, given, links, latents={m: x.roll(1, 1) for m, x in own.items()})
    expect(abs(other - loss) > 1e-6, "other embeddings of `step.through` give the same loss")
    longer = {m: 3 * x for m, x in own.items()}
    longer["image"] = torch.where(links[:, 0, [0]] < 0, own["image"] + 5, longer["image"])
    expect_close(loss_of(case, given, links, latents=longer), loss, "longer rows of other adapters")


@OBJECTIVE.check(when=uses("unpaired"))
def unpaired(case: ComponentCase) -> None:
    """Unpaired items have a part in the loss, and a gradient, in any order; there may be none."""
    given, links = embeddings_of(), links_of()
    alone = {
        m: (x.roll(3, 0)[: 9 + k].requires_grad_(), latents_of({m: x})[m][: 9 + k])
        for k, (m, x) in enumerate(embeddings_of(noise=1.0).items())
    }
    found = call(case, given, links, unpaired=alone)
    found.backward()
    for modality, (x, _) in alone.items():
        reached = x.grad is not None and x.grad.isfinite().all() and x.grad.any()
        expect(reached, f"no gradient, or not a finite one, reaches unpaired items of {modality}")
    moved = {m: tuple(y.detach().roll(k, 0) for y in x) for k, (m, x) in enumerate(alone.items())}
    expect_close(
        loss_of(case, given, links, unpaired=moved),
        found.item(),
        "unpaired items of one modality moved",
    )
    for modality in alone:
        fewer = call(case, given, links, unpaired={modality: alone[modality]})
        expect(fewer.isfinite(), f"the loss is {fewer.item()} with unpaired items of one modality")


@OBJECTIVE.check()
def is_an_objective(case: ComponentCase) -> None:
    """It is an Objective."""
    name = type(built(case)).__name__
    expect(isinstance(built(case), Objective), f"{name} is not a subclass of Objective")
