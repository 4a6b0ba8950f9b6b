"""fusemix-hf: images, value for value what transformers' own models and processors give."""

from __future__ import annotations

import json

import pytest
import torch
import transformers
from PIL import Image
from transformers import (
    AutoImageProcessor,
    CLIPImageProcessorPil,
    ConvNextConfig,
    ConvNextModel,
    ResNetConfig,
    ResNetModel,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessorPil,
    ViTMAEConfig,
    ViTMAEModel,
    ViTModel,
)

from fusemix_core.encoders.pixels import PixelTable
from fusemix_core.testing.encoders import check_encoder

SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "image_size": 32,
    "patch_size": 8,
}
CLASS = lambda output: output.last_hidden_state[:, 0]  # noqa: E731
MEAN = lambda output: output.last_hidden_state.mean(1)  # noqa: E731
OWN = lambda output: output.pooler_output.flatten(1)  # noqa: E731
VITS = {
    "ViT": OWN,
    "DeiT": OWN,
    "Beit": OWN,
    "Dinov2": OWN,
    "Dinov2WithRegisters": OWN,
    "DINOv3ViT": OWN,
    "CLIPVision": OWN,
    "SiglipVision": OWN,
    "IJepa": MEAN,
    "ViTMSN": CLASS,
    "Data2VecVision": CLASS,
}
PROCESSOR = {"size": {"height": 32, "width": 32}}


@pytest.fixture(scope="module")
def processor():
    return ViTImageProcessorPil(**PROCESSOR)


def vit(name: str):
    config = getattr(transformers, f"{name}Config")(**SMALL)
    return transformers.AutoModel.from_config(config)


@pytest.mark.parametrize("name", VITS)
def test_views_of_a_vision_transformer(save, load, processor, images, name):
    folder, model = save(lambda: vit(name), processor)
    encoder = load(folder)
    pixels = processor(images, input_data_format="channels_last", return_tensors="pt").pixel_values
    batch = encoder.collate(images)
    assert torch.equal(batch["pixel_values"], pixels)
    with torch.no_grad():
        output = model(pixels, output_hidden_states=True)
    near = {"rtol": 1e-4, "atol": 1e-5}
    pooled = encoder.encode(batch)
    torch.testing.assert_close(pooled, VITS[name](output), **near)
    tokens, grid = encoder.encode(batch, "tokens"), encoder.encode(batch, "grid")
    torch.testing.assert_close(tokens, output.last_hidden_state[:, -16:], **near)
    assert grid.shape == (len(images), 4, 4, 32)
    assert torch.equal(grid[:, 1, 2], tokens[:, 6])
    layers = encoder.encode(batch, "layers")
    first = output.hidden_states[1]
    first = first[:, 0] if name not in ("IJepa", "SiglipVision") else first.mean(1)
    assert layers.shape == (len(images), 3, 32)
    torch.testing.assert_close(layers[:, 0], first, **near)
    torch.testing.assert_close(layers[:, -1], pooled)


def test_patches_are_in_raster_order(save, load, processor):
    """Changing one patch of the input changes the first block's token there most."""
    encoder = load(save(lambda: vit("Dinov2"), processor)[0])
    plain = Image.new("RGB", (32, 32), (90, 90, 90))
    other = plain.copy()
    other.paste((255, 0, 0), (16, 8, 24, 16))  # the second row's third patch
    grids = encoder.encode(encoder.collate([plain, other]), "grid")
    moved = (grids[0] - grids[1]).norm(dim=-1)
    assert moved.argmax() == 1 * 4 + 2


def test_without_a_trained_pooler_the_class_token(save, load, processor, images):
    """As google/vit-base-patch16-224, whose weights have a classifier and no pooler."""
    config = ViTConfig(**SMALL)
    folder, model = save(lambda: ViTForImageClassification(config), processor)
    encoder = load(folder)
    batch = encoder.collate(images)
    with torch.no_grad():
        wanted = model.vit(batch["pixel_values"]).last_hidden_state[:, 0]
    torch.testing.assert_close(encoder.encode(batch), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["convnext", "resnet"])
def test_convolutions_give_what_the_model_pools(save, load, processor, images, kind):
    sizes = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]}
    make = {
        "convnext": lambda: ConvNextModel(ConvNextConfig(**sizes)),
        "resnet": lambda: ResNetModel(ResNetConfig(embedding_size=8, **sizes)),
    }[kind]
    folder, model = save(make, processor)
    encoder = load(folder)
    batch = encoder.collate(images)
    with torch.no_grad():
        wanted = model(batch["pixel_values"]).pooler_output.flatten(1)
    torch.testing.assert_close(encoder.encode(batch), wanted, rtol=1e-4, atol=1e-5)
    assert encoder.spec.views == ("pooled",)


def test_a_masked_autoencoder_hides_nothing(save, load, processor, images):
    folder, _ = save(lambda: ViTMAEModel(ViTMAEConfig(**SMALL)), processor)
    encoder = load(folder)
    batch = encoder.collate(images)
    assert torch.equal(encoder.encode(batch), encoder.encode(batch))
    assert encoder.encode(batch, "grid").shape == (len(images), 4, 4, 32)
    same = ViTModel(ViTConfig(**SMALL), add_pooling_layer=False).eval()
    state = encoder.model.state_dict()
    state = {k.replace("vit_mae.", ""): v for k, v in state.items()}
    same.load_state_dict(state, strict=True)
    with torch.no_grad():
        wanted = same(batch["pixel_values"]).last_hidden_state
    torch.testing.assert_close(encoder.encode(batch), wanted[:, 0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(encoder.encode(batch, "tokens"), wanted[:, 1:], rtol=1e-4, atol=1e-5)


HUB = {
    # What the hub's preprocessor_config.json of these repositories hold.
    "openai/clip-vit-base-patch32": {
        "crop_size": 224,
        "do_center_crop": True,
        "do_normalize": True,
        "do_resize": True,
        "feature_extractor_type": "CLIPFeatureExtractor",
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "resample": 3,
        "size": 224,
    },
    "google/vit-base-patch16-224-in21k": {
        "do_normalize": True,
        "do_resize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "size": 224,
    },
}


@pytest.mark.parametrize("repo", HUB)
def test_preprocessing_is_the_librarys_value_by_value(save, load, repo):
    kind = "CLIPVision" if "clip" in repo else "ViT"
    config = getattr(transformers, f"{kind}Config")(
        **{**SMALL, "image_size": 224, "patch_size": 56}
    )
    folder, _ = save(lambda: transformers.AutoModel.from_config(config))
    (folder / "preprocessor_config.json").write_text(json.dumps(HUB[repo]))
    encoder = load(folder)
    assert encoder.spec.modality == "image"
    noise = torch.randint(256, (3, 300, 250, 3), dtype=torch.uint8, generator=torch.manual_seed(0))
    pictures = [Image.fromarray(picture.numpy()) for picture in noise]
    settings = HUB[repo]
    if kind == "CLIPVision":
        own = CLIPImageProcessorPil(
            size={"shortest_edge": 224},
            crop_size={"height": 224, "width": 224},
            image_mean=settings["image_mean"],
            image_std=settings["image_std"],
        )
    else:
        own = ViTImageProcessorPil(**settings)
    wanted = own(pictures, return_tensors="pt").pixel_values
    assert torch.equal(encoder.collate(pictures)["pixel_values"], wanted)
    library = AutoImageProcessor.from_pretrained(folder, backend="pil")
    assert torch.equal(library(pictures, return_tensors="pt").pixel_values, wanted)


@pytest.mark.parametrize("name", ["Dinov2", "SiglipVision", "ViTMAE"])
def test_a_gpu_gets_bytes_and_makes_the_same_numbers_of_them(save, load, processor, images, name):
    folder, _ = save(lambda: vit(name), processor)
    plain, there = load(folder), load(folder)
    # On a GPU it is there from the start.
    there.table = PixelTable.of(there._pixels, there._bytes, torch.device("cpu"))
    batch, sent = plain.collate(images), there.collate(images)
    assert sent["pixel_values"].dtype == torch.uint8
    assert batch["pixel_values"].nbytes == 4 * sent["pixel_values"].nbytes
    assert torch.equal(there.table(sent["pixel_values"]), batch["pixel_values"])
    for view in ("pooled", "grid"):
        assert torch.equal(there.encode(sent, view), plain.encode(batch, view))


def test_half_precision_still_returns_float32(save, load, processor, images):
    folder, _ = save(lambda: vit("Dinov2"), processor)
    exact, rough = load(folder), load(folder, dtype=torch.bfloat16)
    batch = exact.collate(images)
    assert rough.encode(batch).dtype == torch.float32
    assert torch.cosine_similarity(rough.encode(batch), exact.encode(batch)).min() > 0.99


@pytest.mark.parametrize("tiny", [False, pytest.param(True, marks=pytest.mark.long)])
def test_kit(save, processor, registry, tiny):
    folder, _ = save(lambda: vit("Dinov2WithRegisters"), processor)
    report = check_encoder(f"hf:tiny@{folder}", device="cpu", tiny=tiny, registry=registry)
    assert not [result for result in report if not result.passed]
