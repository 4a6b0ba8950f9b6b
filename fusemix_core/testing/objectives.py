"""`check_objective`: whether an objective keeps its contract."""

from __future__ import annotations

import math
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor

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
from fusemix_core.testing.pairs import toy_pairs
from fusemix_core.testing.report import Report
from fusemix_core.testing.suite import Suite, expect

MODALITIES = ("image", "text", "audio")
ROWS, WIDTH = 16, 8

OBJECTIVE = Suite("objective", least=15)
add_declaration_checks(OBJECTIVE)

Embeddings = dict[str, Tensor]


def check_objective(
    subject: Subject,
    *,
    options: Mapping[str, Any] | None = None,
    expected_failures: Mapping[str, str] | None = None,
    registry: Registry = registry,
) -> Report:
    """Check an objective: a registered name, a ComponentSpec or a class, built with `options`."""
    OBJECTIVE.expected(expected_failures)
    case = find("objective", subject, options, registry)
    return OBJECTIVE.run(case.name, case, expected_failures)


def embeddings_of(modalities: int = 2, noise: float = 0.5, rows: int = ROWS) -> Embeddings:
    """Rows `[n, d]` of each modality: the same for all, and noise of each."""
    draw = torch.Generator().manual_seed(modalities)
    shared = torch.randn(rows, WIDTH, generator=draw)
    return {
        m: shared + noise * torch.randn(rows, WIDTH, generator=draw)
        for m in MODALITIES[:modalities]
    }


def links_of(modalities: int = 2, rows: int = ROWS, sources: int = 1) -> Tensor:
    """int64 `[n, S, K]`, every id of its own."""
    return torch.arange(rows * sources * modalities).reshape(rows, sources, modalities)


def tokens_of(embeddings: Embeddings) -> dict[str, Padded]:
    """Tokens `[n, T, d]` made of each modality's embeddings; some rows have one fewer."""
    found = {}
    for k, (modality, x) in enumerate(embeddings.items()):
        values = torch.stack([(1 + t) * x.roll(t, 1) for t in range(3 + k)], dim=1)
        mask = torch.ones(values.shape[:2], dtype=torch.bool)
        mask[:, -1] = x.detach()[:, 0] <= 0
        found[modality] = Padded(values, mask)
    return found


def built(case: ComponentCase) -> Any:
    with seed(0):
        return case.make()


def averaged_of(embeddings: Embeddings) -> Embeddings:
    """What averaged adapters might give of the same rows: nearly their embeddings, as data."""
    return {m: x.detach() + 0.1 * x.detach().roll(1, 1) for m, x in embeddings.items()}


def call(objective: Any, embeddings: Embeddings, links: Tensor, **given: Any) -> Any:
    """The loss. What the objective takes beside embeddings and links is made of these, where it is
    not `given` by its keyword."""
    made: dict[str, Any] = {}
    if getattr(objective, "takes_tokens", False):
        made["tokens"] = tokens_of(embeddings)
    if getattr(objective, "takes_trust", False):
        made["trust"] = torch.ones(len(links))
    if getattr(objective, "momentum", None) is not None:
        made["averaged"] = averaged_of(embeddings)
    if getattr(objective, "takes_unpaired", False):
        made["unpaired"] = {}
    if "latents" in given:
        made["latents"] = given["latents"]
    return objective(embeddings, links, **{k: given.get(k, own) for k, own in made.items()})


def loss_of(case: ComponentCase, embeddings: Embeddings, links: Tensor, **given: Any) -> float:
    with torch.no_grad():
        return call(built(case), embeddings, links, **given).item()


def expect_close(got: float, wanted: float, what: str) -> None:
    close = math.isclose(got, wanted, rel_tol=1e-3, abs_tol=1e-4)
    expect(close, f"{what}: the loss is {got:.6g} instead of {wanted:.6g}")


@OBJECTIVE.check()
def scalar(case: ComponentCase) -> None:
    """The loss of two or three modalities is one finite number."""
    for modalities in (2, 3):
        loss = call(built(case), embeddings_of(modalities), links_of(modalities))
        expect(isinstance(loss, Tensor), f"the loss is a {type(loss).__name__}, not a Tensor")
        expect(loss.shape == (), f"the loss has the shape {list(loss.shape)}")
        expect(loss.isfinite(), f"the loss of {modalities} modalities is {loss.item()}")


@OBJECTIVE.check()
def gradients(case: ComponentCase) -> None:
    """Gradients, all finite, reach every modality's embeddings and every parameter of its own."""
    for modalities in (2, 3):
        objective = built(case)
        given = {m: x.requires_grad_() for m, x in embeddings_of(modalities).items()}
        call(objective, given, links_of(modalities)).backward()
        own = {n: p for n, p in objective.named_parameters() if p.requires_grad}
        for name, x in {**given, **own}.items():
            expect(x.grad is not None and x.grad.any(), f"no gradient reaches {name}")
            expect(x.grad.isfinite().all(), f"the gradient of {name} is not finite")


@OBJECTIVE.check()
def gradient_is_the_derivative(case: ComponentCase) -> None:
    """In float64 the gradient is that of finite differences."""
    objective = built(case).double()
    x, y = (v[:5, :4].double().requires_grad_() for v in embeddings_of().values())
    links, averaged = links_of(2, 5), averaged_of({"image": x, "text": y})

    def loss(x: Tensor, y: Tensor) -> Tensor:
        # A copy, so that what it remembers of a batch has no part in the next.
        return call(deepcopy(objective), {"image": x, "text": y}, links, averaged=averaged)

    got = loss(x, y).dtype
    expect(got == torch.float64, f"float64 embeddings gave a loss in {got}")
    torch.autograd.gradcheck(loss, (x, y), eps=1e-6, atol=1e-5)


@OBJECTIVE.check()
def scale_invariance(case: ComponentCase) -> None:
    """The objective normalises: the length of embeddings does not matter."""
    given, links = embeddings_of(), links_of()
    longer = {m: x * (3 + i) for i, (m, x) in enumerate(given.items())}
    tokens = tokens_of(given)
    got = loss_of(case, longer, links, tokens=tokens)
    expect_close(got, loss_of(case, given, links, tokens=tokens), "longer rows")


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
    before = torch.cosine_similarity(*given.values()).mean().item()
    for _ in range(20):
        optimiser.zero_grad()
        call(objective, given, links_of()).backward()
        optimiser.step()
    after = torch.cosine_similarity(*given.values()).mean().item()
    expect(after > before, f"the mean cosine of pairs went from {before:.3f} to {after:.3f}")


@OBJECTIVE.check()
def missing_entries(case: ComponentCase) -> None:
    """Embeddings of entries that are missing have no part in the loss and get no gradient."""
    links = links_of(3)
    links[::4, :, 0] = links[1::4, :, 1] = links[2::4, :, 2] = -1
    absent = links[:, 0] < 0
    given = {m: x.requires_grad_() for m, x in embeddings_of(3).items()}
    loss = call(built(case), given, links)
    expect(loss.isfinite(), f"the loss is {loss.item()}")
    loss.backward()
    other = {}
    for k, (modality, x) in enumerate(given.items()):
        reached = x.grad[absent[:, k]].any() if x.grad is not None else False
        expect(not reached, f"a gradient reaches {modality} where it is missing")
        other[modality] = torch.where(absent[:, k, None], x.detach() + 5, x.detach())
    expect_close(loss_of(case, other, links), loss.item(), "other values where entries are missing")


@OBJECTIVE.check()
def mixed_and_shared_items(case: ComponentCase) -> None:
    """Rows mixed from two sources, and rows that share an item, have a finite loss and gradient."""
    shared = links_of()
    shared[:, :, 0] //= 4
    for what, links in (("mixed", links_of(2, ROWS, sources=2)), ("sharing an item", shared)):
        given = {m: x.requires_grad_() for m, x in embeddings_of().items()}
        loss = call(built(case), given, links)
        loss.backward()
        good = loss.isfinite() and all(x.grad.isfinite().all() for x in given.values())
        expect(good, f"rows {what}: the loss is {loss.item()}, or its gradient is not finite")


@OBJECTIVE.check()
def deterministic(case: ComponentCase) -> None:
    """The same batch gives the same loss, from the same state."""
    objective, given = built(case), embeddings_of()
    state = deepcopy(objective.state_dict())
    with torch.no_grad():
        first = call(objective, given, links_of()).item()
        objective.load_state_dict(state)
        second = call(objective, given, links_of()).item()
    expect(first == second, f"first {first}, then {second}")


@OBJECTIVE.check()
def log_is_numbers(case: ComponentCase) -> None:
    """`log` gives finite floats by name."""
    objective = built(case)
    call(objective, embeddings_of(), links_of())
    logged = objective.log()
    expect(isinstance(logged, dict), f"log() gave a {type(logged).__name__}")
    for name, value in logged.items():
        good = isinstance(name, str) and isinstance(value, float) and math.isfinite(value)
        expect(good, f"log() gave {name!r}: {value!r}")


@OBJECTIVE.check()
def resumes(case: ComponentCase) -> None:
    """Its state, put into a new one, gives the same loss: training can be resumed."""
    first, given = built(case), embeddings_of()
    optimiser = torch.optim.SGD([*first.parameters(), torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    if any(p.requires_grad for p in first.parameters()):
        call(first, given, links_of()).backward()
    optimiser.step()
    with torch.no_grad():
        call(first, given, links_of())
        state = deepcopy(first.state_dict())
        wanted = call(first, given, links_of()).item()
        second = built(case)
        second.load_state_dict(state, strict=True)
        expect_close(call(second, given, links_of()).item(), wanted, "with the first one's state")


@OBJECTIVE.check()
def input_unmodified(case: ComponentCase) -> None:
    """Embeddings and links stay as they were."""
    given, links = embeddings_of(), links_of()
    kept = {m: x.clone() for m, x in given.items()}, links.clone()
    call(built(case), given, links)
    same = torch.equal(links, kept[1]) and all(torch.equal(x, kept[0][m]) for m, x in given.items())
    expect(same, "it changed its input")


@OBJECTIVE.check()
def surroundings(case: ComponentCase) -> None:
    """Global generators, torch's settings, environment and logging are as before."""
    objective = built(case)
    expect_nothing_changed(lambda: call(objective, embeddings_of(), links_of()))


@OBJECTIVE.check(when=lambda case: getattr(case.target, "takes_tokens", False))
def tokens(case: ComponentCase) -> None:
    """Tokens have a part in the loss, and a gradient; padding, and what a row lacks, have none."""
    given, links = embeddings_of(), links_of()
    links[::4, :, 0] = -1
    own = tokens_of(given)
    values = {m: x.values.requires_grad_() for m, x in own.items()}
    loss = call(built(case), given, links, tokens=own)
    loss.backward()
    for modality, x in values.items():
        reached = x.grad is not None and x.grad.isfinite().all() and x.grad.any()
        expect(reached, f"no gradient, or not a finite one, reaches the tokens of {modality}")
        lacking = (links[:, 0] < 0).any(dim=1)
        expect(not x.grad[lacking].any(), f"a gradient reaches tokens of {modality} without pair")
        expect(not x.grad[~own[modality].mask].any(), f"a gradient reaches padding of {modality}")
    longer = {m: x.padded_to(x.values.shape[1] + 2) for m, x in own.items()}
    full = {m: Padded(x.filled(torch.nan), x.mask) for m, x in own.items()}
    for what, tokens in (("more padding", longer), ("padding of NaN", full)):
        expect_close(loss_of(case, given, links, tokens=tokens), loss.item(), what)


@OBJECTIVE.check(when=lambda case: getattr(case.target, "takes_trust", False))
def trust(case: ComponentCase) -> None:
    """Wrong pairs cost less where they are not trusted; with any trust the loss is finite."""
    given, links = embeddings_of(noise=0.05), links_of()
    wrong = torch.arange(ROWS) < 4
    given["text"] = torch.where(wrong[:, None], given["text"].roll(1, 0), given["text"])
    told, untold = loss_of(case, given, links, trust=(~wrong).float()), loss_of(case, given, links)
    expect(told < untold, f"{untold:.4g} where wrong pairs are trusted, {told:.4g} where not")
    for each in (torch.zeros(ROWS), torch.linspace(0, 1, ROWS)):
        rows = {m: x.clone().requires_grad_() for m, x in given.items()}
        loss = call(built(case), rows, links, trust=each)
        loss.backward()
        good = loss.isfinite() and all(x.grad.isfinite().all() for x in rows.values())
        expect(good, f"the loss is {loss.item()}, or its gradient not finite, with trust {each}")


@OBJECTIVE.check(when=lambda case: getattr(case.target, "momentum", None) is not None)
def averaged(case: ComponentCase) -> None:
    """Averaged embeddings have a part in the loss, their lengths and what a row lacks have none."""
    momentum = built(case).momentum
    expect(isinstance(momentum, float) and 0 <= momentum < 1, f"momentum is {momentum!r}")
    given, links = embeddings_of(), links_of()
    links[::4, :, 0] = -1
    own = averaged_of(given)
    loss = loss_of(case, given, links, averaged=own)
    other = loss_of(case, given, links, averaged={m: x.roll(1, 1) for m, x in own.items()})
    expect(abs(other - loss) > 1e-6, "other averaged embeddings give the same loss")
    longer = {m: torch.where(links[:, 0, [0]] < 0, x + 5, 3 * x) for m, x in own.items()}
    expect_close(loss_of(case, given, links, averaged=longer), loss, "longer averaged rows")


@OBJECTIVE.check(when=lambda case: getattr(case.target, "takes_unpaired", False))
def unpaired(case: ComponentCase) -> None:
    """Unpaired items have a part in the loss, and a gradient, in any order; there may be none."""
    pairs, given, links = toy_pairs(), embeddings_of(), links_of()
    alone = {
        m: (x.roll(3, 0)[: 9 + k].requires_grad_(), pairs.test.latents_of(m, torch.arange(9 + k)))
        for k, (m, x) in enumerate(embeddings_of(noise=1.0).items())
    }

    def loss(unpaired: Mapping[str, tuple[Tensor, Tensor]]) -> Tensor:
        objective = built(case)
        objective.fit(pairs.train, pairs.validation, FitContext())
        asked = {"unpaired": unpaired}
        if objective.takes_latents:
            asked["latents"] = pairs.train.batch(torch.arange(ROWS)).latents
        return call(objective, given, links, **asked)

    found = loss(alone)
    found.backward()
    for modality, (x, _) in alone.items():
        reached = x.grad is not None and x.grad.isfinite().all() and x.grad.any()
        expect(reached, f"no gradient, or not a finite one, reaches unpaired items of {modality}")
    moved = {m: tuple(y.detach().roll(k, 0) for y in x) for k, (m, x) in enumerate(alone.items())}
    expect_close(loss(moved).item(), found.item(), "unpaired items of one modality moved")
    for modality in alone:
        fewer = loss({modality: alone[modality]})
        expect(fewer.isfinite(), f"the loss is {fewer.item()} with unpaired items of one modality")


@OBJECTIVE.check()
def is_an_objective(case: ComponentCase) -> None:
    """It is an Objective."""
    name = type(built(case)).__name__
    expect(isinstance(built(case), Objective), f"{name} is no subclass of Objective")
