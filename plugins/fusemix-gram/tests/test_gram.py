"""GRAM gives the original's numbers; `parity/gram/README.md` says where they come from."""

import json
from pathlib import Path

import pytest
import torch
from fusemix_gram.objective import GramObjective, volumes
from safetensors.torch import load_file

from fusemix_core.errors import ConfigError
from fusemix_core.runs.config import find_recipe
from fusemix_core.step import Step
from fusemix_core.testing import check_objective

FOLDER = Path(__file__).parent / "parity/gram"
META = json.loads((FOLDER / "meta.json").read_text())
V = load_file(FOLDER / "vectors.safetensors")


def close(got, name):
    rule, want = META["tolerance"], V[name]
    allowed = max(rule["atol"] + rule["rtol"] * want.abs().max(), rule["overrides"].get(name, 0))
    assert (got - want).abs().max() <= allowed, name


@pytest.mark.parametrize("count", [3, 4, 5])
def test_volumes_and_loss_are_the_originals(count):
    rows = {f"m{i}": V[f"in.modality{i}"].clone().requires_grad_() for i in range(count)}
    anchor, *others = rows.values()
    close(volumes(anchor, others), f"out.volume{count}")
    close(volumes(V["in.other_queries"], others), f"out.volume{count}_queries")
    links = torch.arange(len(anchor))[:, None, None].repeat(1, 1, count)
    loss = GramObjective(temperature=META["hyper"]["temp"])(Step.of(rows, links))
    loss.backward()
    close(loss.detach(), f"out.loss{count}")
    for i, x in enumerate(rows.values()):
        # The original takes unit rows as they are; the objective normalises, which takes the part
        # of a gradient that lies along the row.
        unit, want = x.detach(), V[f"grad.loss{count}.modality{i}"]
        across = want - (want * unit).sum(1, keepdim=True) * unit
        name = f"grad.loss{count}.modality{i}"
        allowed = max(1e-5 + 1e-5 * want.abs().max(), META["tolerance"]["overrides"].get(name, 0))
        assert (x.grad - across).abs().max() <= allowed


def naive(anchor, others):
    found = torch.empty(len(anchor), len(others[0]), dtype=anchor.dtype)
    for i, a in enumerate(anchor):
        for j in range(len(others[0])):
            rows = torch.stack([a, *(o[j] for o in others)])
            found[i, j] = torch.linalg.det(rows @ rows.T).abs().sqrt()
    return found


@pytest.mark.parametrize("count", [1, 2, 4])
def test_volumes_are_determinants(count):
    draw = torch.Generator().manual_seed(count)
    anchor, *others = (
        torch.nn.functional.normalize(torch.randn(n, 8, generator=draw, dtype=torch.float64))
        for n in (5, *[7] * count)
    )
    torch.testing.assert_close(volumes(anchor, others), naive(anchor, others))


def test_modalities_that_agree_have_no_volume_and_a_finite_gradient():
    x = torch.eye(4).requires_grad_()
    found = volumes(x, [x, x])
    assert found.max() < 1e-5
    found.sum().backward()
    assert x.grad.isfinite().all()


def test_another_anchor_and_rows_that_lack_a_modality():
    draw = torch.Generator().manual_seed(0)
    rows = {m: torch.randn(6, 5, generator=draw) for m in ("image", "text", "audio")}
    links = torch.arange(18).reshape(6, 1, 3)
    first = GramObjective(anchor="text")(Step.of(rows, links))
    moved = {m: rows[m] for m in ("text", "image", "audio")}
    torch.testing.assert_close(first, GramObjective()(Step.of(moved, links)))
    links[2, 0, 1] = -1
    keep = torch.arange(6) != 2
    whole = {m: x[keep] for m, x in rows.items()}
    torch.testing.assert_close(
        GramObjective()(Step.of(rows, links)), GramObjective()(Step.of(whole, links[keep]))
    )
    links[:] = -1
    assert GramObjective()(Step.of(rows, links)) == 0
    with pytest.raises(ConfigError, match="'sound'"):
        GramObjective(anchor="sound")(Step.of(rows, torch.arange(18).reshape(6, 1, 3)))


@pytest.mark.parametrize("wrong", [{"temperature": 0.0}, {"smoothing": 1.0}])
def test_wrong_options_are_told(wrong):
    with pytest.raises(ConfigError):
        GramObjective(**wrong)


def test_contract_and_recipe():
    check_objective("gram").raise_if_failed()
    assert find_recipe("gram", []).objective.name == "gram"
