"""fusemix-dinov2: presets, weights in hub layout, views against transformers, the contract."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import started
import torch
from fusemix_dinov2 import PRESETS, fusemix_encoders
from fusemix_dinov2.encoder import ARCHITECTURES, DinoEncoder
from PIL import Image
from safetensors.torch import load_file, save_file
from torchvision.transforms import v2

from fusemix_core.encoders.pixels import PixelTable
from fusemix_core.errors import ArtefactError, ConfigError
from fusemix_core.latents.fingerprint import fingerprint
from fusemix_core.registry import Registry
from fusemix_core.testing.encoders import check_encoder

CPU = torch.device("cpu")
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
COMMON = {"do_normalize": True, "do_rescale": True, "do_resize": True, "rescale_factor": 1 / 255}


def bit(size: int, crop: int, **normal: list[float]) -> dict:
    """preprocessor_config.json of DINOv2 and RAD-DINO on the hub."""
    return {
        **COMMON,
        "image_processor_type": "BitImageProcessor",
        "do_convert_rgb": True,
        "do_center_crop": True,
        "size": {"shortest_edge": size},
        "crop_size": {"height": crop, "width": crop},
        "resample": 3,
        **normal,
    }


V2 = bit(256, 224, **IMAGENET)
RAD = bit(518, 518, image_mean=[0.5307] * 3, image_std=[0.2583] * 3)
V3 = {
    **COMMON,
    **IMAGENET,
    "image_processor_type": "DINOv3ViTImageProcessorFast",
    "do_center_crop": None,
    "do_convert_rgb": None,
    "crop_size": None,
    "default_to_square": True,
    "data_format": "channels_first",
    "device": None,
    "resample": 2,
    "size": {"height": 224, "width": 224},
}
SHALLOW = {
    "dinov2-small": {"mlp_ratio": 1, "image_size": 518},
    "dinov2-small-registers": {"mlp_ratio": 1, "image_size": 518},
    "dinov3-small": {"intermediate_size": 384, "num_register_tokens": 4, "image_size": 224},
    "rad-dino": {"mlp_ratio": 1, "image_size": 518},
}
"""Presets of the four kinds, with what makes two blocks of each as small as can be."""


@pytest.fixture(scope="module")
def registry() -> Registry:
    registry = Registry(entry_points=lambda: [])
    for spec in fusemix_encoders():
        registry.add(spec)
    return registry


@pytest.fixture(scope="module")
def images() -> list[Image.Image]:
    random = np.random.default_rng(0)
    sizes = [(200, 300), (224, 224), (90, 120), (1, 1), (3, 5)]
    return [Image.fromarray(random.integers(0, 256, (*s, 3), dtype=np.uint8)) for s in sizes]


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """Random models as wide as the presets, in hub layout; no tensor is left at zero or one."""
    made = {}
    for name, small in SHALLOW.items():
        spec = next(p for p in PRESETS if p.name == name)
        kind = ARCHITECTURES[spec.options["architecture"]]
        config = kind.config(
            hidden_size=spec.dim,
            num_attention_heads=6,
            num_hidden_layers=2,
            patch_size=kind.patch,
            **small,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            model = kind.model(config)
            for parameter in model.parameters():
                torch.nn.init.normal_(parameter, std=0.1)
        folder = made[name] = tmp_path_factory.mktemp(name)
        model.save_pretrained(folder)
        settings = V3 if name == "dinov3-small" else RAD if name == "rad-dino" else V2
        (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return made


def load(registry: Registry, name: str, dtype: torch.dtype = torch.float32) -> DinoEncoder:
    spec = registry.encoder(name)
    return registry.target_of(spec).load(spec, CPU, dtype)


# -- names -----------------------------------------------------------------------------------------


def test_listing_imports_nothing_heavy():
    code = (
        "import sys, fusemix_dinov2 as p; p.fusemix_encoders(); "
        "print([m for m in ('torch', 'transformers', 'numpy', 'PIL') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_dinov2_is_the_base_and_all_names_differ(registry):
    assert registry.encoder("dinov2").weights == "facebook/dinov2-base"
    names = [n for p in PRESETS for n in (p.name, *p.aliases)]
    assert len(names) == len(set(names))
    assert all(len(p.revision) == 40 and int(p.revision, 16) for p in PRESETS)
    assert all(p.licence == "DINOv3 License" for p in PRESETS if "dinov3" in p.name)


SIZES = {  # heads, blocks, feed-forward
    "small": (6, 12, {"intermediate_size": 1536}),
    "small-plus": (6, 12, {"intermediate_size": 1536, "use_gated_mlp": True}),
    "base": (12, 12, {"intermediate_size": 3072}),
    "large": (16, 24, {"intermediate_size": 4096}),
    "huge-plus": (20, 32, {"intermediate_size": 5120, "use_gated_mlp": True}),
    "7b": (
        32,
        40,
        {
            "intermediate_size": 8192,
            "use_gated_mlp": True,
            "query_bias": False,
            "value_bias": False,
        },
    ),
    "giant": (24, 40, {}),
}


@pytest.mark.parametrize("spec", PRESETS, ids=lambda p: p.name)
def test_parameters_are_those_of_the_library(spec):
    size = "base" if spec.name == "rad-dino" else spec.name.partition("-")[2]
    heads, blocks, feed_forward = SIZES[size.removesuffix("-registers")]
    name = spec.options["architecture"]
    kind = ARCHITECTURES[name]
    if name == "dinov3_vit":
        own = {"num_register_tokens": 4, **feed_forward}
    else:
        own = {"image_size": 518, "use_swiglu_ffn": "giant" in size}
    with torch.device("meta"):
        model = kind.model(
            kind.config(
                hidden_size=spec.dim,
                num_attention_heads=heads,
                num_hidden_layers=blocks,
                patch_size=kind.patch,
                **own,
            )
        )
    assert sum(p.numel() for p in model.parameters()) == spec.parameters


# -- views -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["dinov2-small", "dinov2-small-registers", "dinov3-small"])
def test_views_are_the_librarys_own_values(registry, folders, images, name):
    encoder = load(registry, f"{name}@{folders[name]}")
    kind = ARCHITECTURES[encoder.spec.options["architecture"]]
    model = kind.model.from_pretrained(folders[name]).eval()
    registers = getattr(model.config, "num_register_tokens", 0)
    assert registers == (0 if name == "dinov2-small" else 4)
    batch = encoder.collate(images[:2])
    with torch.inference_mode():
        wanted = model(batch, output_hidden_states=True)
    patches = wanted.last_hidden_state[:, 1 + registers :]
    side = batch.shape[-1] // kind.patch
    got = {view: encoder.encode(batch, view) for view in encoder.spec.views}
    assert torch.equal(got["pooled"], wanted.pooler_output)
    assert torch.equal(got["pooled"], wanted.last_hidden_state[:, 0])
    assert torch.equal(got["tokens"], patches)
    assert torch.equal(got["pooled-cls-mean"][:, : encoder.spec.dim], wanted.pooler_output)
    assert torch.equal(got["pooled-cls-mean"][:, encoder.spec.dim :], patches.mean(dim=1))
    assert got["grid"].shape == (2, side, side, encoder.spec.dim)
    assert torch.equal(got["grid"][:, 1, 2], patches[:, side + 2])
    assert got["layers"].shape == (2, 2, encoder.spec.dim)
    assert torch.equal(got["layers"][:, 0], wanted.hidden_states[1][:, 0])
    assert torch.equal(got["layers"][:, -1], got["pooled"])


def test_unknown_view_names_those_there_are(registry, folders, images):
    encoder = load(registry, f"dinov2-small@{folders['dinov2-small']}")
    with pytest.raises(ConfigError, match="no view 'time'") as error:
        encoder.encode(encoder.collate(images[:1]), "time")
    assert "pooled-cls-mean, tokens, grid, layers" in error.value.hint


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_honoured_and_latents_are_float32(registry, folders, images, dtype):
    name = f"dinov3-small@{folders['dinov3-small']}"
    exact, rough = load(registry, name), load(registry, name, dtype)
    assert {p.dtype for p in rough.model.parameters()} == {dtype}
    batch = exact.collate(images[:2])
    for view in exact.spec.views:
        latents = rough.encode(batch, view)
        assert latents.dtype == torch.float32
        apart = torch.cosine_similarity(latents, exact.encode(batch, view), dim=-1)
        assert apart.min() > 0.98, view


# -- preprocessing ---------------------------------------------------------------------------------


def test_settings_are_those_of_the_folder(registry, folders, images):
    shapes = {n: load(registry, f"{n}@{f}").collate(images[:1]).shape for n, f in folders.items()}
    assert shapes["dinov2-small"] == shapes["dinov3-small"] == (1, 3, 224, 224)
    assert shapes["rad-dino"] == (1, 3, 518, 518)


@pytest.mark.parametrize(("name", "short"), [("dinov2-small", 256), ("rad-dino", 518)])
def test_dinov2_pixels_are_those_of_its_authors_transform(registry, folders, images, name, short):
    """torchvision's transform on Pillow images, as in DINOv2's evaluation code.

    Where an odd number of pixels is cropped, the two may differ by one pixel in where they begin.
    """
    encoder = load(registry, f"{name}@{folders[name]}")
    assert encoder.processor.backend == "pil"
    settings = V2 if name == "dinov2-small" else RAD
    long = [int(short * max(i.size) / min(i.size)) for i in images]
    side = settings["crop_size"]["height"]
    images = [i for i, n in zip(images, long, strict=True) if (n - side) % 2 == 0]
    assert len(images) >= 3
    author = v2.Compose(
        [
            v2.Resize(short, interpolation=v2.InterpolationMode.BICUBIC),
            v2.CenterCrop(side),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(settings["image_mean"], settings["image_std"]),
        ]
    )
    got = encoder.collate(images)
    torch.testing.assert_close(got, torch.stack([author(i) for i in images]), rtol=0, atol=1e-5)


def test_dinov2_pixels_are_those_of_the_librarys_processor(registry, folders, images):
    from transformers import BitImageProcessorPil

    encoder = load(registry, f"dinov2-small@{folders['dinov2-small']}")
    own = BitImageProcessorPil(**V2)
    assert torch.equal(encoder.collate(images), own(images, return_tensors="pt")["pixel_values"])


@pytest.mark.parametrize("name", ["dinov2-small", "dinov3-small"])
def test_a_gpu_gets_bytes_if_it_makes_the_same_numbers_of_them(registry, folders, images, name):
    """DINOv3's processor resizes what it has scaled, so that there is nothing to look up."""
    plain, there = (load(registry, f"{name}@{folders[name]}") for _ in range(2))
    # On a GPU it is made from the start.
    there.table = PixelTable.of(there._pixels, there._bytes, torch.device("cpu"))
    assert (there.table is None) == (name == "dinov3-small")
    batch, sent = plain.collate(images), there.collate(images)
    assert batch.nbytes == sent.nbytes * (1 if there.table is None else 4)
    assert torch.equal(there.encode(sent, "grid"), plain.encode(batch, "grid"))


def test_dinov3_pixels_are_those_of_its_authors_transform(registry, folders, images):
    """On tensors, whole picture to a square, as in the script that converted the weights."""
    from transformers import DINOv3ViTImageProcessor

    encoder = load(registry, f"dinov3-small@{folders['dinov3-small']}")
    author = v2.Compose(
        [
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Resize((224, 224), antialias=True),
            v2.Normalize(IMAGENET["image_mean"], IMAGENET["image_std"]),
        ]
    )
    got = encoder.collate(images)
    torch.testing.assert_close(got, torch.stack([author(i) for i in images]), rtol=0, atol=1e-5)
    own = DINOv3ViTImageProcessor(**{k: v for k, v in V3.items() if v is not None})
    each = [own(i, return_tensors="pt")["pixel_values"][0] for i in images]
    assert torch.equal(got, torch.stack(each))


@pytest.mark.slow
def test_pixels_do_not_depend_on_torchvision_being_there(registry, folders, images, tmp_path):
    images[0].save(tmp_path / "i.png")
    name = f"dinov2-small@{folders['dinov2-small']}"
    code = (
        "import sys; sys.modules['torchvision'] = None\n"
        "import torch\nfrom PIL import Image\nfrom fusemix_core.registry import Registry\n"
        "import fusemix_dinov2 as plugin\n"
        "registry = Registry(entry_points=lambda: [])\n"
        "[registry.add(s) for s in plugin.fusemix_encoders()]\n"
        f"spec = registry.encoder({name!r})\n"
        "encoder = registry.target_of(spec).load(spec, torch.device('cpu'), torch.float32)\n"
        f"pixels = encoder.collate([Image.open({str(tmp_path / 'i.png')!r})])\n"
        f"torch.save(pixels, {str(tmp_path / 'pixels.pt')!r})\n"
    )
    done = started.run("-c", code)
    assert done.returncode == 0, done.stderr
    there = torch.load(tmp_path / "pixels.pt", weights_only=True)
    assert torch.equal(there, load(registry, name).collate(images[:1]))


def test_another_models_processor_is_refused(registry, folders, tmp_path):
    for file in folders["dinov2-small"].iterdir():
        (tmp_path / file.name).symlink_to(file)
    (tmp_path / "preprocessor_config.json").unlink()
    settings = {**COMMON, **IMAGENET, "image_processor_type": "ViTImageProcessor"}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    with pytest.raises(ArtefactError, match="by a ViTImageProcessor of pil"):
        load(registry, f"dinov2-small@{tmp_path}")


# -- weights that do not fit -----------------------------------------------------------------------


def test_registers_are_not_dropped_in_silence(registry, folders, tmp_path):
    folder = folders["dinov2-small-registers"]
    with pytest.raises(ArtefactError, match="contains a dinov2_with_registers 384 wide") as error:
        load(registry, f"dinov2-small@{folder}")
    assert error.value.hint == f"Use dinov2-small-registers@{folder.resolve()}"
    with pytest.raises(ArtefactError, match="dinov2-base is a dinov2 768 wide"):
        load(registry, f"dinov2-base@{folders['dinov2-small']}")
    config = folder / "config.json"
    odd = json.loads(config.read_text()) | {"hidden_size": 48}
    (tmp_path / "config.json").write_text(json.dumps(odd))
    with pytest.raises(ArtefactError, match="registers 48 wide") as error:
        load(registry, f"dinov2-small@{tmp_path}")
    assert "hf:NAME@FOLDER" in error.value.hint


@pytest.mark.parametrize("fault", ["missing tensor", "no weights", "no processor", "pickle"])
def test_weights_that_do_not_fit_are_refused(registry, folders, tmp_path, fault):
    for file in folders["dinov2-small"].iterdir():
        (tmp_path / file.name).symlink_to(file)
    weights = tmp_path / "model.safetensors"
    state = load_file(weights)
    if fault == "no processor":
        (tmp_path / "preprocessor_config.json").unlink()
    else:
        weights.unlink()
    if fault == "missing tensor":
        del state["layernorm.weight"]
        save_file(state, weights, metadata={"format": "pt"})
    if fault == "pickle":
        torch.save(state, tmp_path / "pytorch_model.bin")
    with pytest.raises(ArtefactError):
        load(registry, f"dinov2-small@{tmp_path}")


def test_a_gated_repository_says_how_to_get_in(registry, monkeypatch):
    """The error that huggingface_hub raises, wrapped as transformers wraps it."""
    import httpx
    from huggingface_hub.errors import GatedRepoError
    from transformers import AutoConfig

    def refused(*_: object, **__: object) -> None:
        response = httpx.Response(401, request=httpx.Request("GET", "https://huggingface.co"))
        try:
            raise GatedRepoError("401 Client Error", response=response)
        except GatedRepoError as error:
            raise OSError("You are trying to access a gated repo.") from error

    monkeypatch.setattr(AutoConfig, "from_pretrained", refused)
    with pytest.raises(ArtefactError, match="dinov3-base is gated") as error:
        load(registry, "dinov3-base")
    assert "https://huggingface.co/facebook/dinov3-vitb16-pretrain-lvd1689m" in error.value.hint
    assert "hf auth login" in error.value.hint


def test_without_network_the_hint_names_a_copy_on_disk(registry, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ArtefactError, match="can't be loaded from facebook/dinov2-giant") as error:
        load(registry, "dinov2-giant")
    assert "dinov2-giant@FOLDER" in error.value.hint


# -- the contract ----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["dinov2", pytest.param("dinov2-base-registers", marks=pytest.mark.long), "dinov3-base"]
)
def test_the_miniature_keeps_the_contract(registry, name):
    spec = registry.encoder(name)
    encoder = DinoEncoder.tiny(spec)
    results = check_encoder(spec, encoder=encoder)
    assert [r for r in results if not r.passed] == [] and len(results) >= 10
    assert encoder.spec.views == spec.views
    assert encoder.weights_digest == DinoEncoder.tiny(spec).weights_digest


def test_empty_batch_in_every_view(registry):
    encoder = DinoEncoder.tiny(registry.encoder("dinov3-base"))
    for view in encoder.spec.views:
        one = encoder.encode(encoder.collate([Image.new("RGB", (9, 9))]), view)
        assert encoder.encode(encoder.collate([]), view).shape == (0, *one.shape[1:])


def test_fingerprint_follows_the_weights_and_not_the_views(
    registry, folders, tmp_path, monkeypatch
):
    monkeypatch.setenv("FUSEMIX_HOME", str(tmp_path / "home"))
    for file in folders["dinov2-small"].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    spec = registry.encoder(f"dinov2-small@{tmp_path}")
    before = fingerprint(spec, "float32")
    assert before == fingerprint(replace(spec, views=("pooled",)), "float32")
    state = load_file(tmp_path / "model.safetensors")
    state["layernorm.bias"] += 1
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert fingerprint(spec, "float32") != before
    hub = registry.encoder("dinov2-small")
    assert fingerprint(hub, "float32") != fingerprint(replace(hub, revision="0" * 40), "float32")
