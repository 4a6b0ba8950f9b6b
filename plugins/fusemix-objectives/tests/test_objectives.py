"""The ranking loss gives sentence-transformers' numbers (`parity/*/README.md`); soft targets those
of a naive loop."""

import json
from pathlib import Path

import pytest
import torch
from fusemix_objectives.ranking import MultipleNegatives
from fusemix_objectives.soft import SoftInfoNCE
from safetensors.torch import load_file
from torch.nn.functional import normalize

from fusemix_core.errors import ConfigError
from fusemix_core.objectives.infonce import InfoNCE
from fusemix_core.step import Step
from fusemix_core.testing import check_objective

FOLDER = Path(__file__).parent / "parity/multiple_negatives"
META = json.loads((FOLDER / "meta.json").read_text())
V = load_file(FOLDER / "vectors.safetensors")


def close(got, name):
    rule, want = META["tolerance"], V[name]
    assert (got - want).abs().max() <= rule["atol"] + rule["rtol"] * want.abs().max(), name


def links(n, modalities=2):
    return torch.arange(n)[:, None, None].repeat(1, 1, modalities)


@pytest.mark.parametrize(
    ("case", "options"),
    [
        ("one_way", {"form": "one-way"}),
        ("symmetric", {"form": "symmetric"}),
        ("symmetric_joint", {"form": "symmetric-joint"}),
        ("all_joint", {"form": "all-joint"}),
        ("hard_in_batch", {"form": "one-way", "hardness": META["hyper"]["hard"]}),
    ],
)
def test_multiple_negatives_are_the_originals(case, options):
    rows = {n: V[f"in.{n}"].clone().requires_grad_() for n in ("anchor", "positive")}
    objective = MultipleNegatives(**options).double()
    objective.temperature.data = torch.tensor(1 / META["hyper"]["qscale"], dtype=torch.float64)
    loss = objective(Step.of(rows, links(len(rows["anchor"]))))
    loss.backward()
    close(loss.detach(), f"{case}.out.loss")
    for name, x in rows.items():
        close(x.grad, f"{case}.grad.{name}")


def drawn(n=6, d=4):
    draw = torch.Generator().manual_seed(0)
    return {m: torch.randn(n, d, generator=draw, dtype=torch.float64) for m in ("a", "b")}


def test_soft_targets_are_those_of_the_formula():
    rows = drawn()
    got = SoftInfoNCE(share=0.4, sharpness=0.2).double()(Step.of(rows, links(6)))
    x, y = (normalize(r, dim=1) for r in rows.values())
    total = 0.0
    for a, b in ((x, y), (y, x)):
        for i in range(6):
            logits = torch.stack([a[i] @ b[j] / 0.07 for j in range(6)])
            weights = torch.stack([(b[i] @ b[j] / 0.2).exp() for j in range(6)])
            target = 0.4 * weights / weights.sum()
            target[i] += 0.6
            total -= (target * (logits - logits.logsumexp(0))).sum() / 12
    torch.testing.assert_close(got, total, rtol=1e-6, atol=1e-6)


def test_without_a_share_it_is_infonce():
    rows = {m: r.float() for m, r in drawn().items()}
    torch.testing.assert_close(
        SoftInfoNCE(share=0.0)(Step.of(rows, links(6))), InfoNCE()(Step.of(rows, links(6)))
    )


@pytest.mark.slow
def test_contract():
    check_objective("multiple-negatives").raise_if_failed()
    check_objective("multiple-negatives", options={"form": "one-way"}).raise_if_failed()
    stopped = {"gradient_is_the_derivative": "targets follow the rows, and get no gradient"}
    check_objective("soft-infonce", expected_failures=stopped).raise_if_failed()


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: MultipleNegatives(form="both"),
        lambda: MultipleNegatives(temperature=2.0),
        lambda: SoftInfoNCE(share=1.0),
    ],
)
def test_wrong_options_are_told(wrong):
    with pytest.raises(ConfigError):
        wrong()
