"""timm models with a short name. Every fact is timm's own, and a test checks them."""

from __future__ import annotations

from fusemix_core.specs import EncoderSpec

REQUIRES = {"timm": "timm>=1.0.20"}
TARGET = "fusemix_timm.encoder:TimmEncoder"

CONVOLUTIONAL = ("pooled", "grid", "tokens-areas")
WITH_CLASS_TOKEN = ("pooled", "pooled-cls-mean", "tokens", "grid", "layers")
WITHOUT_CLASS_TOKEN = ("pooled", "tokens", "grid", "layers")
VIEWS = (*WITH_CLASS_TOKEN, "tokens-areas")
"""All views that a timm model may have; which of them one has shows when it is loaded."""


def _preset(
    name: str,
    model: str,
    dim: int,
    parameters: int,
    summary: str,
    paper: str,
    views: tuple[str, ...] = CONVOLUTIONAL,
    image_size: int = 224,
    licence: str = "Apache-2.0",
    revision: str = "",
) -> EncoderSpec:
    return EncoderSpec(
        name=name,
        modality="image",
        target=TARGET,
        dim=dim,
        views=views,
        summary=summary,
        weights=f"timm/{model}",
        revision=revision,
        licence=licence,
        image_size=image_size,
        parameters=parameters,
        paper=f"https://arxiv.org/abs/{paper}",
        requires=REQUIRES,
        options={"model": model},
    )


PRESETS = (
    _preset(
        "resnet50",
        "resnet50.a1_in1k",
        2048,
        23_508_032,
        "ResNet-50, ImageNet-1k labels, timm's recipe A1",
        "2110.00476",
        revision="767268603ca0cb0bfe326fa87277f19c419566ef",
    ),
    _preset(
        "mobilenetv4-small",
        "mobilenetv4_conv_small.e2400_r224_in1k",
        1280,
        2_493_024,
        "MobileNetV4 small, ImageNet-1k labels; the smallest here",
        "2404.10518",
        revision="331fb803779522b685cf942e15f914fb6741c1eb",
    ),
    _preset(
        "convnext-tiny",
        "convnext_tiny.fb_in22k",
        768,
        27_820_128,
        "ConvNeXt tiny, ImageNet-22k labels",
        "2201.03545",
    ),
    _preset(
        "convnext-base",
        "convnext_base.fb_in22k",
        1024,
        87_566_464,
        "ConvNeXt base, ImageNet-22k labels",
        "2201.03545",
    ),
    _preset(
        "swin-tiny",
        "swin_tiny_patch4_window7_224.ms_in22k",
        768,
        27_519_354,
        "Swin tiny, ImageNet-22k labels",
        "2103.14030",
        licence="MIT",
    ),
    _preset(
        "convnext-tiny-dinov3",
        "convnext_tiny.dinov3_lvd1689m",
        768,
        27_820_128,
        "ConvNeXt tiny distilled from DINOv3, self-supervised on LVD-1689M",
        "2508.10104",
        licence="DINOv3 License",
    ),
    _preset(
        "vit-small",
        "vit_small_patch16_224.augreg_in21k",
        384,
        21_665_664,
        "ViT-S/16, ImageNet-21k labels",
        "2106.10270",
        WITH_CLASS_TOKEN,
    ),
    _preset(
        "vit-base",
        "vit_base_patch16_224.augreg2_in21k_ft_in1k",
        768,
        85_798_656,
        "ViT-B/16, ImageNet-21k labels, then ImageNet-1k",
        "2106.10270",
        WITH_CLASS_TOKEN,
        revision="063c6c38a5d8510b2e57df480445e94b231dad2c",
    ),
    _preset(
        "vit-small-dinov2",
        "vit_small_patch14_dinov2.lvd142m",
        384,
        22_056_192,
        "DINOv2 ViT-S/14 as timm has it: at 518 px",
        "2304.07193",
        WITH_CLASS_TOKEN,
        image_size=518,
        revision="4610ca143709d58a633b6397a74412c2c3842454",
    ),
    _preset(
        "vit-base-dinov2-registers",
        "vit_base_patch14_reg4_dinov2.lvd142m",
        768,
        86_582_016,
        "DINOv2 ViT-B/14 with registers as timm has it: at 518 px",
        "2309.16588",
        WITH_CLASS_TOKEN,
        image_size=518,
    ),
    _preset(
        "eva02-base",
        "eva02_base_patch14_224.mim_in22k",
        768,
        85_758_720,
        "EVA-02 base, masked images of ImageNet-22k; its teacher was trained with text",
        "2303.11331",
        WITH_CLASS_TOKEN,
        licence="MIT",
    ),
    _preset(
        "clip-vit-base",
        "vit_base_patch16_clip_224.openai",
        768,
        85_799_424,
        "the image tower of OpenAI's CLIP ViT-B/16, unprojected; trained with text",
        "2103.00020",
        WITH_CLASS_TOKEN,
        revision="977e3dd0ec55ab8da155f2fbeb6b5f54948b6e3d",
    ),
    _preset(
        "siglip2-vit-base",
        "vit_base_patch16_siglip_224.v2_webli",
        768,
        92_884_224,
        "the image tower of SigLIP 2 ViT-B/16; trained with text",
        "2502.14786",
        WITHOUT_CLASS_TOKEN,
        revision="4c3661e5ac879a276ddc5ddc6d3f0ecc78fd5d82",
    ),
)
