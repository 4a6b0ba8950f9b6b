"""KLOT gives the original's numbers (`parity/sotalign_klot/README.md`); the objective uses it."""

import json
import math
from pathlib import Path

import pytest
import torch
from fusemix_sotalign.klot import klot, log_plan, potentials
from fusemix_sotalign.objective import KLOTObjective
from safetensors.torch import load_file
from torch.nn.functional import normalize

from fusemix_core.errors import ConfigError
from fusemix_core.interfaces import FitContext, TokenAdapter, as_tokens
from fusemix_core.objectives.infonce import InfoNCE
from fusemix_core.step import Step
from fusemix_core.testing import check_objective
from fusemix_core.testing.pairs import toy_pairs

FOLDER = Path(__file__).parent / "parity/sotalign_klot"
META = json.loads((FOLDER / "meta.json").read_text())
HYPER, V = META["hyper"], load_file(FOLDER / "vectors.safetensors")


def close(got, name):
    rule, want = META["tolerance"], V[name]
    allowed = rule["atol"] + rule["rtol"] * want.abs().max()
    assert (torch.as_tensor(got, dtype=torch.float64) - want).abs().max() <= allowed, name


def test_plans():
    scaled = V["in.student"] / HYPER["es"]
    u, v, last = potentials(scaled, HYPER["it"])
    assert last == HYPER["it"] - 1
    close((scaled + u[:, None] + v).exp(), "out.plan_student_plain")
    for side in ("student", "teacher"):
        found = log_plan(V[f"in.{side}"], HYPER["e" + side[0]], HYPER["it"]).exp()
        close(found, f"out.plan_{side}")
        if side == "student":
            close((found.sum(1) - 1 / len(found)).abs().mean(), "out.marginal_error_student")


def test_value_and_imposed_gradient():
    student = V["in.student"].clone().requires_grad_()
    teacher = V["in.teacher"].clone().requires_grad_()
    found = klot(
        student, teacher, epsilon=HYPER["es"], teacher_epsilon=HYPER["et"], iterations=HYPER["it"]
    )
    found.backward()
    close(found.detach(), "out.value")
    close(student.grad, "out.grad_student")
    assert teacher.grad is None
    (2 * klot(student, teacher, iterations=3)).backward()  # scaled with the loss, and added


def test_iterations_until_tolerance():
    *_, last = potentials(V["in.student"] / HYPER["es"], 500, tolerance=1e-6)
    assert last == V["out.iterations_until_tol"]


@pytest.mark.parametrize("epsilon", [0.5, 0.1, 0.02])
def test_a_naive_loop_gives_the_same_potentials(epsilon):
    scaled = 0.5 / epsilon * torch.randn(6, 9, generator=torch.Generator().manual_seed(4))
    a, b = torch.ones(6, 1, dtype=torch.float64), torch.ones(1, 9, dtype=torch.float64)
    kernel = scaled.double().exp()
    for _ in range(23):
        a = 1 / (6 * (kernel * b).sum(1, keepdim=True))
        b = 1 / (9 * (kernel * a).sum(0, keepdim=True))
    u, v, last = potentials(scaled, 23)
    assert last == 22
    assert torch.allclose((scaled + u[:, None] + v).double(), (kernel * a * b).log(), atol=1e-3)


def test_the_imposed_gradient_is_that_of_exact_plans():
    draw = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 5, 7, generator=draw, dtype=torch.float64)
    student.requires_grad_()
    klot(student, teacher, epsilon=0.5, iterations=2000).backward()
    step = 1e-5 * torch.randn(5, 7, generator=draw, dtype=torch.float64)
    with torch.no_grad():
        up, down = (klot(student + s, teacher, epsilon=0.5, iterations=2000) for s in (step, -step))
    assert math.isclose((up - down).item() / 2, (student.grad * step).sum().item(), rel_tol=1e-6)


def test_large_and_small_epsilons_stay_finite_in_float32():
    x = normalize(torch.randn(40, 8, generator=torch.Generator().manual_seed(1)), dim=1)
    for epsilon in (1e-3, 10.0):
        found = klot(x @ x.T, x @ x.T, epsilon=epsilon, teacher_epsilon=epsilon)
        assert abs(found.item()) < 1e-4
        assert klot(x @ -x.T, x @ x.T, epsilon=epsilon).isfinite()


@pytest.fixture
def batch():
    """(toy pairs, embeddings, links, latents, unpaired) of two modalities; row 3 lacks one."""
    pairs, draw = toy_pairs(), torch.Generator().manual_seed(2)
    rows = pairs.train.batch(torch.arange(12))
    rows.links[3, 0, 1] = -1
    embeddings = {m: torch.randn(12, 6, generator=draw) for m in rows.latents}
    alone = {
        m: (torch.randn(n, 6, generator=draw), pairs.test.latents_of(m, torch.arange(n)))
        for m, n in (("image", 8), ("text", 5))
    }
    return pairs, embeddings, rows.links, rows.latents, alone


def fitted(pairs, **options):
    objective = KLOTObjective(teacher_options={"landmarks": 0}, **options)
    objective.start({}, pairs.train, pairs.validation, FitContext())
    return objective


class OfFirstToken(TokenAdapter):
    def __init__(self, map_):
        super().__init__()
        self.map = map_

    def tokens(self, latents):
        return latents

    def pool(self, tokens, latents):
        return self.map(tokens.filled()[:, 0])


@pytest.mark.parametrize("teacher", ["rows", "tokens"])
def test_latents_of_tokens_are_taught_as_the_teacher_takes_them(batch, teacher):
    pairs, embeddings, links, latents, alone = batch
    objective = fitted(pairs, weight=3.0)
    wanted = objective(Step.of(embeddings, links, latents=latents, unpaired=alone))
    x, behind = alone["text"]
    if teacher == "tokens":  # one token an item, and padding although items are paired
        objective.teacher["text"] = OfFirstToken(objective.teacher["text"])
        paired, unpaired = as_tokens(latents["text"]).padded_to(3), as_tokens(behind)
    else:  # two tokens an item, of half the width
        paired, unpaired = (
            as_tokens(part.unflatten(1, (2, -1))) for part in (latents["text"], behind)
        )
    given = {**latents, "text": paired}, {**alone, "text": (x, unpaired)}
    found = objective(Step.of(embeddings, links, latents=given[0], unpaired=given[1]))
    torch.testing.assert_close(found, wanted)


def test_it_is_the_other_objective_and_the_divergence_of_all_items(batch):
    pairs, embeddings, links, latents, alone = batch
    objective = fitted(pairs, weight=3.0, iterations=50)
    got = objective(Step.of(embeddings, links, latents=latents, unpaired=alone))
    whole = [i for i in range(12) if i != 3]
    cosines = []
    for student in (True, False):
        sides = []
        for m, kept in (("image", range(12)), ("text", whole)):
            x, behind = alone[m]
            if student:
                rows = torch.cat([x, embeddings[m][list(kept)]])
            else:
                rows = objective.teacher[m](torch.cat([behind, latents[m][list(kept)]]))
            sides.append(normalize(rows, dim=1))
        cosines.append(sides[0] @ sides[1].T)
    value = klot(*cosines, iterations=50, tolerance=1e-6)
    assert torch.isclose(got, InfoNCE()(Step.of(embeddings, links)) + 3 * value)
    assert math.isclose(objective.log()["klot"], value.item(), rel_tol=1e-6)
    first = objective(Step.of(embeddings, links, latents=latents, unpaired={}))
    assert not torch.isclose(first, got)
    limited = fitted(pairs, rows=5)(Step.of(embeddings, links, latents=latents, unpaired=alone))
    assert limited.isfinite()


def test_the_teacher_is_the_closed_form_and_is_not_trained(batch):
    pairs = batch[0]
    objective = fitted(pairs)
    teacher = list(objective.teacher.parameters())
    assert teacher and not any(p.requires_grad for p in teacher)
    again = fitted(pairs)
    for name, value in objective.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])


@pytest.mark.slow
def test_contract():
    imposed = {"gradient_is_the_derivative": "the gradient is imposed: that of exact plans"}
    check_objective("klot", expected_failures=imposed).raise_if_failed()


@pytest.mark.parametrize(
    "wrong", [{"weight": -1.0}, {"epsilon": 0.0}, {"iterations": 0}, {"rows": 1}]
)
def test_wrong_options_are_told(wrong):
    with pytest.raises(ConfigError):
        KLOTObjective(**wrong)
