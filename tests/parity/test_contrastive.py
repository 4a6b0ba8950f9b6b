"""The contrastive objectives give the numbers of open_clip, SAIL and sentence-transformers.

Each folder's README.md says where its vectors come from and what they are.
"""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import normalize

from fusemix_core.objectives.infonce import InfoNCE
from fusemix_core.objectives.multi_positive import MultiPositive
from fusemix_core.objectives.siglip import SigLIP
from fusemix_core.step import Step


class Vectors:
    """The vectors of a folder beside this file."""

    def __init__(self, name):
        folder = Path(__file__).parent / name
        self.tensors = load_file(folder / "vectors.safetensors")
        self.tolerance = json.loads((folder / "meta.json").read_text())["tolerance"]

    def __getitem__(self, name):
        return self.tensors[name]

    def rows(self, *names):
        """Rows that get a gradient, and links of as many items of their own."""
        rows = {n: self[n].clone().requires_grad_() for n in names}
        count = len(self[names[0]])
        return rows, torch.arange(count)[:, None, None].repeat(1, 1, len(names))

    def close(self, got, name):
        want = self[name]
        allowed = self.tolerance["atol"] + self.tolerance["rtol"] * want.abs().max()
        assert (got - want).abs().max() <= allowed, name

    def close_across(self, got, name, rows):
        """A gradient to unit rows taken as they are, seen by an objective that normalises: without
        its part along the rows."""
        unit = rows.detach()
        want = self[name] - (self[name] * unit).sum(1, keepdim=True) * unit
        allowed = self.tolerance["atol"] + self.tolerance["rtol"] * want.abs().max()
        assert (got - want).abs().max() <= allowed, name


OPEN_CLIP, SAIL, RANKING = Vectors("open_clip"), Vectors("sail"), Vectors("multiple_negatives")


def test_siglip_is_open_clips():
    rows, links = OPEN_CLIP.rows("in.a", "in.b")
    objective = SigLIP(scale=OPEN_CLIP["in.scale"].item(), bias=-10.0).double()
    objective.log_scale.data = OPEN_CLIP["in.scale"].log()
    loss = objective(Step.of(rows, links))
    loss.backward()
    OPEN_CLIP.close(loss, "siglip.out.loss")
    for side in "ab":
        x = rows[f"in.{side}"]
        OPEN_CLIP.close_across(x.grad, f"siglip.grad.{side}", x)
    OPEN_CLIP.close(objective.log_scale.grad / OPEN_CLIP["in.scale"], "siglip.grad.scale")
    OPEN_CLIP.close(objective.bias.grad, "siglip.grad.bias")


@pytest.mark.parametrize("objective", [InfoNCE, MultiPositive])
def test_infonce_is_open_clips(objective):
    rows, links = OPEN_CLIP.rows("in.a", "in.b")
    objective = objective().double()
    objective.temperature.data = 1 / OPEN_CLIP["in.scale"]
    loss = objective(Step.of(rows, links))
    loss.backward()
    OPEN_CLIP.close(loss, "clip.out.loss")
    for side in "ab":
        x = rows[f"in.{side}"]
        OPEN_CLIP.close_across(x.grad, f"clip.grad.{side}", x)
    # d/dscale = d/dtemperature · dtemperature/dscale, temperature = 1/scale
    OPEN_CLIP.close(-objective.temperature.grad / OPEN_CLIP["in.scale"] ** 2, "clip.grad.scale")


def test_infonce_is_sails():
    rows, links = SAIL.rows("infonce.in.a", "infonce.in.b")
    objective = InfoNCE().double()
    objective.temperature.data = 1 / SAIL["infonce.in.scale"]
    SAIL.close(objective(Step.of(rows, links)), "infonce.out.loss")


def test_infonce_is_the_symmetric_ranking_loss_its_gradients_too():
    rows, links = RANKING.rows("in.anchor", "in.positive")
    objective = InfoNCE(temperature=0.05).double()
    objective.temperature.data = torch.tensor(0.05, dtype=torch.float64)
    loss = objective(Step.of(rows, links))
    loss.backward()
    RANKING.close(loss, "symmetric.out.loss")
    for side in ("anchor", "positive"):
        RANKING.close(rows[f"in.{side}"].grad, f"symmetric.grad.{side}")


@pytest.mark.parametrize("head", ["linear", "glu", "mlp"])
@pytest.mark.parametrize("captions", ["single", "multi"])
def test_siglip_is_sails_up_to_its_mean_over_all_pairs(head, captions):
    """SAIL divides by n², and averages over the captions of an image."""
    case = f"{head}_{captions}"
    sides = ["proj_b", "proj_b_extra"] if captions == "multi" else ["proj_b"]
    names = [f"{case}.out.{side}" for side in ("proj_a", *sides)]
    rows, links = SAIL.rows(*names)
    objective = SigLIP(scale=20.0).double()
    objective.log_scale.data = SAIL[f"{case}.param.logit_scale"][0].clone()
    objective.bias.data = SAIL[f"{case}.param.logit_bias"][0].clone()
    image, *texts = names
    losses = [objective(Step.of({image: rows[image], t: rows[t]}, links[:, :, :2])) for t in texts]
    loss = torch.stack(losses).mean() / len(links)
    loss.backward()
    SAIL.close(loss, f"{case}.out.loss")
    SAIL.close(objective.log_scale.grad, f"{case}.grad.logit_scale")
    SAIL.close(objective.bias.grad, f"{case}.grad.logit_bias")
    bias = f"{case}.grad.b.{'fc2' if head == 'mlp' else 'out'}.bias"
    SAIL.close(sum(rows[t].grad.sum(0) for t in texts), bias)
    logits = (
        objective.log_scale.exp()
        * normalize(rows[texts[0]], dim=1)
        @ normalize(rows[image], dim=1).T
    )
    SAIL.close(logits + objective.bias, f"{case}.out.logits_ba")
