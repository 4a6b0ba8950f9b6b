"""`score_of`: the score of images has a gradient and is the fused model's own cosine."""

import numpy as np
import pytest
import torch
from fused_toys import info
from PIL import Image
from torch import nn
from torch.nn.functional import normalize
from toys import ToyImage

from fusemix_core.adapters.identity import IdentityAdapter
from fusemix_core.adapters.linear import LinearAdapter
from fusemix_core.errors import ConfigError
from fusemix_core.fused import EncoderInfo, FusedModel
from fusemix_core.generation.guidance import score_of
from fusemix_core.interfaces import Encoder, Network
from fusemix_core.scorers.cosine import CosineScorer
from fusemix_core.specs import EncoderSpec


class Photo(Encoder):
    """Resizes to 40, crops the middle 32, normalises; a convolution and its mean."""

    spec = EncoderSpec(name="photo", modality="image", target="test:Photo", dim=10)
    prepared = "middle"

    def __init__(self):
        torch.manual_seed(0)
        self.net = nn.Sequential(
            nn.Conv2d(3, 10, 3, stride=2), nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        ).requires_grad_(False)

    @classmethod
    def load(cls, spec, device, dtype):
        return cls()

    def collate(self, items):
        rows = [item.resize((40, 40), Image.Resampling.BICUBIC) for item in items]
        start = 0 if self.prepared == "corner" else 4
        rows = [np.array(r.crop((start, start, start + 32, start + 32))) / 255.0 for r in rows]
        pixels = torch.tensor(np.stack(rows)).permute(0, 3, 1, 2).float()
        if self.prepared == "squared":
            pixels = pixels**3
        return (pixels - torch.tensor([0.5, 0.4, 0.3])[:, None, None]) / 0.2

    def network(self, view):
        return Network(_Named(self.net))

    @torch.inference_mode()
    def encode(self, batch, view="pooled"):
        return self.compute(view, x=batch)


class _Named(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x)


def fused(encoder):
    torch.manual_seed(1)
    adapters = {"text": IdentityAdapter(12, 12), "image": LinearAdapter(encoder.spec.dim, 12)}
    known = EncoderInfo.of(
        encoder.spec, modality="image", dim=encoder.spec.dim, fingerprint="", view="pooled"
    )
    model = FusedModel(
        adapters, {"text": info("text"), "image": known}, CosineScorer(), device="cpu"
    )
    model.encoder("image")._loaded = encoder
    return model


def photographs(count, side):
    draw = np.random.default_rng(3)
    coarse = [draw.integers(0, 256, (6, 6, 3)).astype(np.uint8) for _ in range(count)]
    return [Image.fromarray(c).resize((side, side), Image.Resampling.BICUBIC) for c in coarse]


def tensors(images):
    return torch.stack([torch.tensor(np.array(i)).permute(2, 0, 1) / 255 for i in images])


@pytest.mark.parametrize("side", [32, 64, 250])
def test_the_score_is_the_cosine_of_the_models_own_embeddings(side):
    model = fused(Photo())
    images = photographs(5, side)
    rows = normalize(torch.randn(5, 12), dim=1)
    own = (model.encode("image", images) * rows).sum(1)
    torch.testing.assert_close(score_of(model, rows)(tensors(images)), own, rtol=0, atol=0.02)


def test_images_moved_along_the_gradient_score_higher():
    model = fused(Photo())
    rows = normalize(torch.randn(2, 12), dim=1)
    score = score_of(model, rows)
    images = tensors(photographs(2, 32)).requires_grad_()
    before = score(images)
    (gradient,) = torch.autograd.grad(before.sum(), images)
    assert gradient.abs().amax(dim=(1, 2, 3)).min() > 0
    step = 0.02 * gradient / gradient.abs().amax(dim=(1, 2, 3), keepdim=True)
    assert (score((images + step).clamp(0, 1)) > before).all()


def test_row_i_is_compared_with_image_i():
    model = fused(Photo())
    images, rows = tensors(photographs(3, 32)), normalize(torch.randn(3, 12), dim=1)
    alone = [score_of(model, rows[i : i + 1])(images[i : i + 1]) for i in range(3)]
    torch.testing.assert_close(score_of(model, rows)(images), torch.cat(alone))


@pytest.mark.parametrize("prepared", ["corner", "squared"])
def test_images_prepared_in_a_way_that_can_not_be_followed_are_refused(prepared):
    encoder = Photo()
    encoder.prepared = prepared
    with pytest.raises(ConfigError, match="can't be followed") as error:
        score_of(fused(encoder), torch.ones(1, 12))
    assert "fusemix-timm" in error.value.hint


def test_an_encoder_that_tells_no_network_is_refused():
    with pytest.raises(ConfigError, match="has no `network`"):
        score_of(fused(ToyImage(ToyImage.spec)), torch.ones(1, 12))
