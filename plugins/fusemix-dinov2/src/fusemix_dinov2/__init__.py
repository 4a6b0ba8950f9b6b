"""DINOv2 (with and without registers), DINOv3 and RAD-DINO as fusemix encoders. Metadata only;
imports neither transformers nor torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from fusemix_core.hookspecs import hookimpl
from fusemix_core.specs import EncoderSpec

REQUIRES = {
    "fusemix_hf": "fusemix-hf>=0.2",
    "transformers": "transformers>=5.4",
}
REQUIRES_V3 = {**REQUIRES, "torchvision": "torchvision>=0.21"}
VIEWS = ("pooled", "pooled-cls-mean", "tokens", "grid", "layers")


def _dino(
    name: str,
    architecture: str,
    dim: int,
    parameters: int,
    weights: str,
    revision: str,
    *,
    summary: str,
    paper: str,
    licence: str = "Apache-2.0",
    image_size: int = 224,
    aliases: tuple[str, ...] = (),
    requires: Mapping[str, str] = REQUIRES,
) -> EncoderSpec:
    return EncoderSpec(
        name=name,
        aliases=aliases,
        modality="image",
        target="fusemix_dinov2.encoder:DinoEncoder",
        dim=dim,
        views=VIEWS,
        summary=summary,
        weights=weights,
        revision=revision,
        licence=licence,
        image_size=image_size,
        parameters=parameters,
        paper=f"https://arxiv.org/abs/{paper}",
        requires=requires,
        options={"architecture": architecture},
    )


def _v2(size: str, dim: int, parameters: int, revision: str) -> EncoderSpec:
    return _dino(
        f"dinov2-{size}",
        "dinov2",
        dim,
        parameters,
        f"facebook/dinov2-{size}",
        revision,
        summary=f"DINOv2 {size}, self-supervised on LVD-142M (CLS)",
        paper="2304.07193",
        aliases=("dinov2",) if size == "base" else (),
    )


def _registers(size: str, dim: int, parameters: int, revision: str) -> EncoderSpec:
    return _dino(
        f"dinov2-{size}-registers",
        "dinov2_with_registers",
        dim,
        parameters,
        f"facebook/dinov2-with-registers-{size}",
        revision,
        summary=f"DINOv2 {size} with four registers: cleaner patch tokens (CLS)",
        paper="2309.16588",
    )


def _v3(size: str, vit: str, dim: int, parameters: int, revision: str) -> EncoderSpec:
    return _dino(
        f"dinov3-{size}",
        "dinov3_vit",
        dim,
        parameters,
        f"facebook/dinov3-{vit}-pretrain-lvd1689m",
        revision,
        summary=f"DINOv3 {size}, self-supervised on LVD-1689M; gated on the hub (CLS)",
        paper="2508.10104",
        licence="DINOv3 License",
        aliases=(f"dinov3-{vit}",),
        requires=REQUIRES_V3,
    )


PRESETS = (
    _v2("small", 384, 22_056_576, "ed25f3a31f01632728cabb09d1542f84ab7b0056"),
    _v2("base", 768, 86_580_480, "f9e44c814b77203eaa57a6bdbbd535f21ede1415"),
    _v2("large", 1024, 304_368_640, "47b73eefe95e8d44ec3623f8890bd894b6ea2d6c"),
    _v2("giant", 1536, 1_136_480_768, "611a9d42f2335e0f921f1e313ad3c1b7178d206d"),
    _registers("small", 384, 22_058_112, "0d9846e56b43a21fa46d7f3f5070f0506a5795a9"),
    _registers("base", 768, 86_583_552, "a1d738ccfa7ae170945f210395d99dde8adb1805"),
    _registers("large", 1024, 304_372_736, "e4c89a4e05589de9b3e188688a303d0f3c04d0f3"),
    _registers("giant", 1536, 1_136_486_912, "8d0d49f77fb8b5dd78842496ff14afe7dd4d85cb"),
    _v3("small", "vits16", 384, 21_596_544, "114c1379950215c8b35dfcd4e90a5c251dde0d32"),
    _v3("small-plus", "vits16plus", 384, 28_692_864, "c93d816fc9e567563bc068f01475bec89cc634a6"),
    _v3("base", "vitb16", 768, 85_660_416, "5931719e67bbdb9737e363e781fb0c67687896bc"),
    _v3("large", "vitl16", 1024, 303_129_600, "ea8dc2863c51be0a264bab82070e3e8836b02d51"),
    _v3("huge-plus", "vith16plus", 1280, 840_592_640, "c807c9eeea853df70aec4069e6f56b28ddc82acc"),
    _v3("7b", "vit7b16", 4096, 6_716_035_072, "b80367753773648a6793235ab9c65cdbb029506f"),
    _dino(
        "rad-dino",
        "dinov2",
        768,
        86_580_480,
        "microsoft/rad-dino",
        "110cbc18d5133582e320b43d53bf5c44e410c936",
        summary="RAD-DINO: DINOv2 base for chest X-rays; for research, not for the clinic (CLS)",
        paper="2401.10815",
        licence="MIT",
        image_size=518,
    ),
)


@hookimpl
def fusemix_encoders() -> Iterable[EncoderSpec]:
    """The presets."""
    return PRESETS
