"""fusemix-timm: names, weights from disk and from a hub's cache, preprocessing, the contract."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import timm
import torch
from fusemix_timm import fusemix_encoders, resolve
from fusemix_timm.encoder import TimmEncoder, check_name
from PIL import Image
from safetensors.torch import save_file

from fusemix_core.errors import ArtefactError, ConfigError, UnknownNameError
from fusemix_core.latents.fingerprint import fingerprint
from fusemix_core.registry import Registry

CPU = torch.device("cpu")
REVISION = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def registry() -> Registry:
    registry = Registry(entry_points=lambda: [])
    for spec in fusemix_encoders():
        registry.add(spec)
    return registry


@pytest.fixture(scope="module")
def images() -> list[Image.Image]:
    random = np.random.default_rng(0)
    sizes = [(200, 300), (160, 160), (90, 400), (333, 181), (17, 23)]
    return [Image.fromarray(random.integers(0, 256, (*s, 3), dtype=np.uint8)) for s in sizes]


@pytest.fixture(scope="module")
def tiny() -> TimmEncoder:
    return TimmEncoder.tiny(resolve("tf_efficientnet_b0"))


def test_a_size_takes_the_whole_image_at_so_many_pixels(images):
    spec = resolve("tf_efficientnet_b0")
    encoder = TimmEncoder.tiny(replace(spec, options={**spec.options, "size": 64}))
    halves = Image.new("RGB", (64, 64))
    halves.paste((255, 255, 255), (32, 0, 64, 64))
    batch = encoder.collate([halves, images[0]])
    assert batch.shape == (2, 3, 64, 64)
    edges = batch[0, 0, 0, [0, 31, 32, 63]]  # nothing is cropped
    assert edges[0] < edges[3] and encoder.save_preprocessing(Path())["crop_pct"] == 1.0
    assert encoder.encode(batch, "pooled").shape == (2, encoder.spec.dim)


def seeded(name: str) -> torch.nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = timm.create_model(name, pretrained=False)
    return model.eval()


def load(registry: Registry, name: str, dtype: torch.dtype = torch.float32) -> TimmEncoder:
    spec = registry.encoder(name)
    return registry.target_of(spec).load(spec, CPU, dtype)


def expected(model: torch.nn.Module, encoder: TimmEncoder, images: list) -> torch.Tensor:
    """What timm itself gives with the classifier taken off."""
    model.reset_classifier(0)
    with torch.no_grad():
        return model(encoder.collate(images))


# -- light import and names ------------------------------------------------------------------------


def test_listing_and_resolving_import_nothing_heavy():
    code = (
        "import sys, fusemix_timm as p; p.fusemix_encoders(); p.resolve('resnet18'); "
        "print([m for m in ('torch', 'timm', 'numpy', 'PIL', 'torchvision') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_family_resolves_any_name(registry):
    spec = registry.encoder("timm:convnext_tiny.fb_in22k")
    assert spec.name == "timm:convnext_tiny.fb_in22k"
    assert (spec.modality, spec.takes) == ("image", "image")
    assert spec.options["model"] == "convnext_tiny.fb_in22k"


def test_empty_name_is_a_config_error(registry):
    with pytest.raises(ConfigError, match="names no model"):
        registry.encoder("timm:")


@pytest.mark.parametrize(
    ("name", "near"),
    [("resnet51", "resnet50"), ("resnet50.a1_in1kk", "resnet50.a1_in1k")],
)
def test_unknown_name_gets_the_nearest(name, near):
    with pytest.raises(UnknownNameError) as error:
        check_name(name, local=False)
    assert near in error.value.hint


def test_a_model_without_trained_weights_says_so():
    trained = {name.partition(".")[0] for name in timm.list_models(pretrained=True)}
    untrained = next(name for name in timm.list_models() if name not in trained)
    with pytest.raises(ConfigError, match="no trained weights") as error:
        check_name(untrained, local=False)
    assert f"timm:{untrained}@" in error.value.hint
    check_name(untrained, local=True)


# -- weights ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["test_vit", "test_efficientnet", "test_convnext", "test_resnet"])
def test_weights_from_safetensors_give_timms_own_latents(registry, tmp_path, images, name):
    model = seeded(name)
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    encoder = load(registry, f"timm:{name}@{tmp_path / 'w.safetensors'}")
    got = encoder.encode(encoder.collate(images))
    torch.testing.assert_close(got, expected(model, encoder, images), rtol=1e-4, atol=1e-5)


def test_weights_from_pth(registry, tmp_path, images):
    model = seeded("test_resnet")
    torch.save({"state_dict": model.state_dict()}, tmp_path / "w.pth")
    encoder = load(registry, f"timm:test_resnet@{tmp_path / 'w.pth'}")
    got = encoder.encode(encoder.collate(images))
    torch.testing.assert_close(got, expected(model, encoder, images), rtol=1e-4, atol=1e-5)


def test_weights_of_another_number_of_classes(registry, tmp_path, images):
    model = timm.create_model("test_resnet", num_classes=7).eval()
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    encoder = load(registry, f"timm:test_resnet@{tmp_path / 'w.safetensors'}")
    got = encoder.encode(encoder.collate(images))
    torch.testing.assert_close(got, expected(model, encoder, images), rtol=1e-4, atol=1e-5)


def test_folder_in_hub_layout(registry, tmp_path, images):
    model = seeded("test_vit")
    timm.models.save_for_hf(model, tmp_path, safe_serialization=True)
    encoder = load(registry, f"timm:test_vit@{tmp_path}")
    got = encoder.encode(encoder.collate(images))
    torch.testing.assert_close(got, expected(model, encoder, images), rtol=1e-4, atol=1e-5)
    with pytest.raises(ArtefactError, match="contains test_vit, not test_resnet"):
        load(registry, f"timm:test_resnet@{tmp_path}")


class Trap:
    """Runs code when unpickled by a careless loader."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


def test_pickled_code_is_refused_and_not_run(registry, tmp_path):
    torch.save({"state_dict": Trap(tmp_path / "sprung")}, tmp_path / "w.pth")
    with pytest.raises(ArtefactError, match="can't be read as weights"):
        load(registry, f"timm:test_resnet@{tmp_path / 'w.pth'}")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("fault", ["missing", "extra", "shape"])
def test_weights_that_do_not_fit_are_refused(registry, tmp_path, fault):
    state = seeded("test_resnet").state_dict()
    first = next(iter(state))
    if fault == "missing":
        del state[first]
    elif fault == "extra":
        state["surprise"] = torch.zeros(1)
    else:
        state[first] = torch.zeros(1, 2, 3)
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(ArtefactError, match="do not fit timm's test_resnet") as error:
        load(registry, f"timm:test_resnet@{tmp_path / 'w.safetensors'}")
    assert (first if fault != "extra" else "surprise") in str(error.value)


def test_a_folder_that_holds_no_model_is_refused(registry, tmp_path):
    with pytest.raises(ArtefactError, match="do not fit"):
        load(registry, f"timm:test_resnet@{tmp_path}")


def test_hub_weights_at_a_pinned_revision(tmp_path, monkeypatch):
    """From a hub's cache on disk, so the real way of loading, offline."""
    model = seeded("test_resnet")
    repo = tmp_path / "models--timm--test_resnet.r160_in1k" / "snapshots" / REVISION
    repo.mkdir(parents=True)
    save_file(model.state_dict(), repo / "model.safetensors")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    spec = replace(resolve("test_resnet.r160_in1k"), revision=REVISION)
    encoder = TimmEncoder.load(spec, CPU, torch.float32)
    assert torch.equal(encoder.model.conv1[0].weight, model.conv1[0].weight)
    with pytest.raises(ArtefactError) as refused:
        TimmEncoder.load(replace(spec, revision=""), CPU, torch.float32)
    assert "timm:NAME@" in refused.value.hint


# -- preprocessing ---------------------------------------------------------------------------------


def test_preprocessing_is_timms_value_by_value(registry, tmp_path, images):
    model = seeded("test_resnet")
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    encoder = load(registry, f"timm:test_resnet@{tmp_path / 'w.safetensors'}")
    own = timm.data.create_transform(
        **timm.data.resolve_model_data_config(model), is_training=False
    )
    assert torch.equal(encoder.collate(images), torch.stack([own(i) for i in images]))


def test_preprocessing_equals_a_naive_form(tiny, images):
    config = timm.data.resolve_model_data_config(tiny.model)
    side = config["input_size"][-1]
    scaled = int(np.floor(side / config["crop_pct"]))
    for image, got in zip(images, tiny.collate(images), strict=True):
        width, height = image.size
        short = min(width, height)
        size = (
            scaled if width == short else int(scaled * width / short),
            scaled if height == short else int(scaled * height / short),
        )
        left, top = (round((n - side) / 2) for n in size)
        pixels = np.asarray(image.resize(size, Image.Resampling.BICUBIC)) / np.float32(255)
        pixels = pixels[top : top + side, left : left + side]
        naive = (pixels - np.float32(config["mean"])) / np.float32(config["std"])
        np.testing.assert_allclose(got.permute(1, 2, 0).numpy(), naive, atol=1e-5)


def test_grey_and_palette_images_are_read_as_rgb(tiny, images):
    grey = images[0].convert("L")
    assert torch.equal(tiny.collate([grey]), tiny.collate([grey.convert("RGB")]))


@pytest.mark.parametrize("wrong", ["a.jpg", Path("a.jpg"), np.zeros((8, 8, 3), np.uint8), None])
def test_wrong_type_raises_type_error(tiny, images, wrong):
    with pytest.raises(TypeError, match="takes PIL images"):
        tiny.collate([images[0], wrong])


# -- the contract ----------------------------------------------------------------------------------


def test_rows_are_items_whatever_the_batch(tiny, images):
    whole = tiny.encode(tiny.collate(images))
    single = torch.cat([tiny.encode(tiny.collate([image])) for image in images])
    torch.testing.assert_close(whole, single, rtol=1e-4, atol=1e-5)
    backwards = tiny.encode(tiny.collate(images[::-1])).flip(0)
    torch.testing.assert_close(whole, backwards, rtol=1e-4, atol=1e-5)
    assert whole.shape == (len(images), tiny.spec.dim) and whole.isfinite().all()


def test_empty_batch(tiny):
    assert tiny.encode(tiny.collate([])).shape == (0, tiny.spec.dim)


def test_frozen_deterministic_and_float32(tiny, images):
    batch = tiny.collate(images)
    first, again = tiny.encode(batch), tiny.encode(batch)
    assert torch.equal(first, again) and not first.requires_grad
    assert not tiny.model.training and not any(p.requires_grad for p in tiny.model.parameters())


def test_half_precision_still_returns_float32(registry, tmp_path, images):
    save_file(seeded("test_vit").state_dict(), tmp_path / "w.safetensors")
    name = f"timm:test_vit@{tmp_path / 'w.safetensors'}"
    exact, rough = load(registry, name), load(registry, name, torch.bfloat16)
    batch = exact.collate(images)
    latents = rough.encode(batch)
    assert latents.dtype == torch.float32
    assert torch.cosine_similarity(latents, exact.encode(batch)).min() > 0.99


def test_unknown_view_is_a_config_error(tiny, images):
    with pytest.raises(ConfigError, match="no view 'tokens'"):
        tiny.encode(tiny.collate(images[:1]), "tokens")


@pytest.mark.parametrize(
    ("name", "kind"), [("vit_small_patch14_dinov2", "VisionTransformer"), ("resnet50", "ResNet")]
)
def test_miniature_is_of_its_kind_and_leaves_the_generator_alone(name, kind):
    state = torch.random.get_rng_state()
    encoder = TimmEncoder.tiny(resolve(name))
    assert torch.equal(state, torch.random.get_rng_state())
    assert type(encoder.model).__name__ == kind
    assert encoder.weights_digest == TimmEncoder.tiny(resolve(name)).weights_digest


def test_collate_travels_to_a_worker_without_the_weights(tiny, images):
    parcel = pickle.dumps(tiny.collate)
    assert len(parcel) < 20_000
    there = pickle.loads(parcel)  # noqa: S301  our own bytes
    assert torch.equal(there(images), tiny.collate(images))


def test_fingerprint_follows_the_weights(registry, tmp_path, monkeypatch):
    monkeypatch.setenv("FUSEMIX_HOME", str(tmp_path / "home"))
    state = seeded("test_resnet").state_dict()
    save_file(state, tmp_path / "a.safetensors")
    name = next(iter(state))
    save_file({**state, name: state[name] + 1}, tmp_path / "b.safetensors")
    prints = [
        fingerprint(registry.encoder(f"timm:test_resnet@{tmp_path / f}.safetensors"), "float32")
        for f in "aab"
    ]
    assert prints[0] == prints[1] != prints[2] and None not in prints
    digests = [
        load(registry, f"timm:test_resnet@{tmp_path / f}.safetensors").weights_digest for f in "aab"
    ]
    assert digests[0] == digests[1] != digests[2]


def test_fingerprint_without_a_revision_waits_for_the_weights(registry):
    spec = registry.encoder("timm:resnet18.a1_in1k")
    assert fingerprint(spec, "float32") is None
    assert fingerprint(spec, "float32", digest="x") is not None
    assert fingerprint(replace(spec, options={"model": "resnet34"}), "float32", digest="x") != (
        fingerprint(spec, "float32", digest="x")
    )


def test_a_gpu_gets_bytes_and_makes_the_same_numbers_of_them(tiny, images):
    plain = tiny.collate(images)
    there = TimmEncoder(tiny.spec, tiny.model, CPU, torch.float32)
    there.table = there._table()  # on a GPU it is there from the start
    sent = there.collate(images)
    assert sent.dtype == torch.uint8 and plain.nbytes == 4 * sent.nbytes
    assert torch.equal(there.table(sent), plain)
    assert torch.equal(there.encode(sent), tiny.encode(plain))
    copy = pickle.loads(pickle.dumps(there))  # noqa: S301
    assert torch.equal(copy.collate(images), sent)
