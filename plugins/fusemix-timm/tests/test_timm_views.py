"""fusemix-timm: the views of every kind of model against timm's own features, and the presets."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
from fusemix_timm import fusemix_encoders, resolve
from fusemix_timm.encoder import TimmEncoder
from fusemix_timm.presets import CONVOLUTIONAL, PRESETS, VIEWS, WITH_CLASS_TOKEN
from fusemix_timm.views import view_of, views_of
from PIL import Image
from safetensors.torch import save_file

from fusemix_core.errors import ConfigError
from fusemix_core.latents.backends import Work, accelerate
from fusemix_core.latents.fingerprint import fingerprint
from fusemix_core.registry import Registry
from fusemix_core.testing.encoders import check_encoder

CPU = torch.device("cpu")
KINDS = {
    "resnet50": CONVOLUTIONAL,
    "efficientnet_b0": CONVOLUTIONAL,
    "swin_tiny": CONVOLUTIONAL,
    "vit_small": WITH_CLASS_TOKEN,
    "vit_base_siglip": ("pooled", "tokens", "grid", "layers"),
    "eva02_base": WITH_CLASS_TOKEN,
}
"""A name of each kind → the views that its miniature has."""


@pytest.fixture
def registry() -> Registry:
    registry = Registry(entry_points=lambda: [])
    for spec in fusemix_encoders():
        registry.add(spec)
    return registry


@pytest.fixture(scope="module")
def images() -> list[Image.Image]:
    random = np.random.default_rng(0)
    sizes = [(200, 300), (160, 160), (17, 23)]
    return [Image.fromarray(random.integers(0, 256, (*s, 3), dtype=np.uint8)) for s in sizes]


@pytest.fixture(scope="module")
def miniatures() -> dict[str, TimmEncoder]:
    return {name: TimmEncoder.tiny(resolve(name)) for name in KINDS}


def close(got: torch.Tensor, wanted: torch.Tensor) -> None:
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)


# -- which views a model has -----------------------------------------------------------------------


@pytest.mark.parametrize("name", KINDS)
def test_a_model_has_the_views_of_its_kind(miniatures, name):
    assert miniatures[name].spec.views == KINDS[name]


def test_a_view_that_the_model_lacks_is_an_error_naming_those_it_has(miniatures, images):
    encoder = miniatures["resnet50"]
    with pytest.raises(ConfigError, match="no view 'layers'") as error:
        encoder.encode(encoder.collate(images[:1]), "layers")
    assert error.value.hint == "It has: pooled, grid, tokens-areas."


def test_a_loaded_model_knows_its_width_and_its_views(registry, tmp_path):
    model = timm.create_model("test_convnext").eval()
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    spec = registry.encoder(f"timm:test_convnext@{tmp_path / 'w.safetensors'}")
    assert (spec.views, spec.dim) == (VIEWS, None)
    encoder = TimmEncoder.load(spec, CPU, torch.float32)
    assert (encoder.spec.views, encoder.spec.dim) == (
        CONVOLUTIONAL,
        model.num_features,
    )
    narrow = TimmEncoder.load(replace(spec, views=("pooled",)), CPU, torch.float32)
    assert narrow.spec.views == ("pooled",)


@pytest.mark.parametrize(
    ("name", "views"),
    [
        ("test_mambaout", CONVOLUTIONAL),  # [n, H, W, d]
        ("test_vit2", ("pooled", "tokens", "grid", "layers")),  # a register, no class token
        ("test_vit_relpos", ("pooled", "tokens", "grid", "layers")),  # nothing before the patches
        ("pit_ti_224", ("pooled",)),  # a class token alone
        ("crossvit_9_240", ("pooled",)),  # two lists of tokens
    ],
)
def test_odd_models_have_what_they_can(name, views):
    model = timm.create_model(name, pretrained=False, num_classes=0).eval()
    pixels = torch.zeros(1, *model.pretrained_cfg["input_size"])
    with torch.inference_mode():
        assert views_of(model, pixels) == views
        assert all(view_of(model, pixels, view).isfinite().all() for view in views)


# -- their values ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", KINDS)
def test_grid_and_tokens_are_timms_last_map(miniatures, images, name):
    """The map as `forward_intermediates` gives it, normed, channels before rows and columns."""
    encoder = miniatures[name]
    batch = encoder.collate(images)
    with torch.inference_mode():
        if name == "efficientnet_b0":  # its last convolution comes after the last intermediate
            wanted = encoder.model.forward_features(batch)
        else:
            norm = name != "resnet50"
            wanted = encoder.model.forward_intermediates(batch, norm=norm)[1][-1]
    grid = encoder.encode(batch, "grid")
    assert grid.shape[:3] == (3, *wanted.shape[2:]) and grid.shape[1] > 1
    close(grid, wanted.permute(0, 2, 3, 1))
    if "tokens" in encoder.spec.views:
        assert torch.equal(encoder.encode(batch, "tokens"), grid.flatten(1, 2))


def test_areas_of_a_map(miniatures, images):
    encoder = miniatures["efficientnet_b0"]
    batch = encoder.collate(images)
    grid, areas = encoder.encode(batch, "grid"), encoder.encode(batch, "tokens-areas")
    side = grid.shape[1]
    assert areas.shape == (len(images), 10, grid.shape[3])
    torch.testing.assert_close(areas[:, 0], grid.mean(dim=(1, 2)))
    last = grid[:, side * 2 // 3 :, side // 3 : -(-side * 2 // 3)].mean(dim=(1, 2))
    torch.testing.assert_close(areas[:, 1 + 2 * 3 + 1], last)


def test_pooled_is_the_mean_of_the_grid_where_a_model_pools_so(miniatures, images):
    encoder = miniatures["efficientnet_b0"]
    batch = encoder.collate(images)
    close(encoder.encode(batch, "grid").mean(dim=(1, 2)), encoder.encode(batch))


@pytest.mark.parametrize("name", ["vit_small", "eva02_base"])
def test_class_token_and_mean_of_the_patches(miniatures, images, name):
    encoder = miniatures[name]
    batch = encoder.collate(images)
    with torch.inference_mode():
        features = encoder.model.forward_features(batch)
    wanted = torch.cat([features[:, 0], features[:, 1:].mean(dim=1)], dim=1)
    assert torch.equal(encoder.encode(batch, "pooled-cls-mean"), wanted)


@pytest.mark.parametrize("name", ["vit_small", "eva02_base", "vit_base_siglip"])
def test_layers_are_timms_pooling_after_every_block(miniatures, images, name):
    """Against the blocks themselves, seen by hooks, and for the last one against `pooled`."""
    encoder = miniatures[name]
    model, batch = encoder.model, encoder.collate(images)
    seen: list[torch.Tensor] = []
    hooks = [b.register_forward_hook(lambda _, __, out: seen.append(out)) for b in model.blocks]
    with torch.inference_mode():
        features = model.forward_features(batch)
    for hook in hooks:
        hook.remove()
    first = model.num_prefix_tokens
    by_token = model.global_pool == "token"
    wanted = [s[:, 0] if by_token else s[:, first:].mean(dim=1) for s in seen]
    layers = encoder.encode(batch, "layers")
    assert layers.shape == (3, len(model.blocks), encoder.spec.dim)
    close(layers[:, :-1], torch.stack(wanted[:-1], dim=1))
    if model.global_pool == "map":
        close(layers[:, -1], features[:, first:].mean(dim=1))
    else:
        assert torch.equal(layers[:, -1], encoder.encode(batch))


@pytest.mark.parametrize("name", ["vit_small", "swin_tiny"])
def test_half_precision_gives_float32_in_every_view(miniatures, images, name):
    exact = miniatures[name]
    model = TimmEncoder.tiny(resolve(name)).model
    rough = TimmEncoder(exact.spec, model, CPU, torch.bfloat16)
    assert rough.spec.views == exact.spec.views
    batch = exact.collate(images)
    for view in exact.spec.views:
        latents = rough.encode(batch, view)
        assert latents.dtype == torch.float32
        assert torch.cosine_similarity(latents, exact.encode(batch, view), dim=-1).mean() > 0.98


@pytest.mark.parametrize(
    "name",
    [
        *(pytest.param(n, marks=pytest.mark.slow) for n in ("resnet50", "vit_small")),
        *(pytest.param(n, marks=pytest.mark.long) for n in ("swin_tiny", "vit_base_siglip")),
    ],
)
def test_the_miniature_keeps_the_contract(miniatures, name):
    encoder = miniatures[name]
    results = check_encoder(encoder.spec, encoder=encoder)
    assert [r for r in results if not r.passed] == [] and len(results) >= 10


@pytest.mark.parametrize("name", ["resnet50", "swin_tiny", "vit_small", "vit_base_siglip"])
def test_no_items_have_the_shape_of_one_in_every_view(miniatures, name):
    encoder = miniatures[name]
    one = encoder.collate([Image.new("RGB", (9, 9))])
    for view in encoder.spec.views:
        assert encoder.encode(one[:0], view).shape == (0, *encoder.encode(one, view).shape[1:])


def test_views_have_no_part_in_the_fingerprint():
    spec = next(p for p in PRESETS if p.revision)
    assert fingerprint(spec, "float32") == fingerprint(replace(spec, views=("pooled",)), "float32")


# -- presets ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", PRESETS, ids=lambda p: p.name)
def test_presets_hold_timms_own_facts(spec):
    config = timm.get_pretrained_cfg(spec.options["model"])
    assert config.license == spec.licence.lower().replace(" ", "-")
    assert config.hf_hub_id == spec.weights
    assert config.input_size == (3, spec.image_size, spec.image_size)
    with torch.device("meta"), torch.inference_mode():
        model = timm.create_model(spec.options["model"], num_classes=0).eval()
        pixels = torch.zeros(1, *config.input_size)
        assert views_of(model, pixels) == spec.views
        assert view_of(model, pixels, "pooled").shape == (1, spec.dim)
    assert sum(p.numel() for p in model.parameters()) == spec.parameters


def test_a_preset_takes_weights_from_disk(registry, images, tmp_path):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = timm.create_model("mobilenetv4_conv_small").eval()
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    spec = registry.encoder(f"mobilenetv4-small@{tmp_path / 'w.safetensors'}")
    encoder = registry.target_of(spec).load(spec, CPU, torch.float32)
    model.reset_classifier(0)
    batch = encoder.collate(images[:1])
    with torch.inference_mode():
        wanted = model(batch)  # without channels_last, so that sums are in another order
    torch.testing.assert_close(encoder.encode(batch), wanted, rtol=1e-3, atol=1e-4)
    assert encoder.encode(batch, "grid").shape == (1, 7, 7, 960)


def test_presets_have_names_of_their_own():
    assert len({p.name for p in PRESETS}) == len(PRESETS)
    assert all(len(p.revision) in (0, 40) for p in PRESETS)
    taught = [p.name for p in PRESETS if "trained with text" in p.summary]
    assert taught == ["eva02-base", "clip-vit-base", "siglip2-vit-base"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "view"),
    [
        pytest.param("efficientnet_b0", "pooled", marks=pytest.mark.long),  # see fusemix-starter
        ("vit_small", "tokens"),
        pytest.param("vit_small", "layers", marks=pytest.mark.long),
    ],
)
def test_openvino_gives_the_same_views(miniatures, images, tmp_path, kind, view):
    encoder = miniatures[kind]
    probe, batch = encoder.collate(images[:2]), encoder.collate([*images, *images])
    expected = encoder.encode(batch, view)
    try:
        assert accelerate(encoder, Work(view, "f", tmp_path, 9), lambda: probe, "openvino") == ""
        assert encoder.runtime is not None
        torch.testing.assert_close(encoder.encode(batch, view), expected, rtol=1e-4, atol=1e-4)
    finally:
        encoder.runtime = None
