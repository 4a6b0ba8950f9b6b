"""Video: any image encoder on sampled frames (`video:IMAGE_ENCODER`), VideoMAE, and an adapter that
learns which frames count. Metadata only; imports neither torch nor av."""

from __future__ import annotations

from collections.abc import Iterable

from fusemix_core.hookspecs import hookimpl
from fusemix_core.specs import ComponentSpec, EncoderSpec, FamilySpec

AV = {"av": "av>=16"}
VIDEOMAE = "fusemix-video[videomae]"


def _videomae(
    name: str, repository: str, revision: str, dim: int, parameters: int, summary: str
) -> EncoderSpec:
    return EncoderSpec(
        name=name,
        modality="video",
        target="fusemix_video.videomae:VideoMAEEncoder",
        dim=dim,
        views=("pooled", "tokens", "layers"),
        summary=f"{summary}; 16 frames",
        weights=f"MCG-NJU/{repository}",
        revision=revision,
        licence="CC-BY-NC-4.0",
        image_size=224,
        parameters=parameters,
        paper="https://arxiv.org/abs/2203.12602",
        requires={**AV, "fusemix_hf": VIDEOMAE, "transformers": VIDEOMAE},
        options={},
    )


PRESETS = (
    _videomae(
        "videomae-base",
        "videomae-base",
        "dc740ceda42fce44faed2ea03c6d447db72f6af9",
        768,
        86_227_200,
        "VideoMAE ViT-B, self-supervised on Kinetics-400",
    ),
    _videomae(
        "videomae-large",
        "videomae-large",
        "12da269a02d3e1fbbb7011e610e591fea8061dca",
        1024,
        303_860_736,
        "VideoMAE ViT-L, self-supervised on Kinetics-400",
    ),
    _videomae(
        "videomae-base-kinetics",
        "videomae-base-finetuned-kinetics",
        "488eb9a0565f257b32866000305c8178965eb9f6",
        768,
        86_227_200,
        "VideoMAE ViT-B, trained on the classes of Kinetics-400",
    ),
)


@hookimpl
def fusemix_encoders() -> Iterable[EncoderSpec | FamilySpec]:
    """The family `video:` and VideoMAE's presets."""
    family = FamilySpec(
        prefix="video",
        resolve="fusemix_video.names:resolve",
        summary="sampled frames of a video through any image encoder",
        example="video:dinov2-base:16",
        requires=AV,
    )
    return [family, *PRESETS]


@hookimpl
def fusemix_components() -> Iterable[ComponentSpec]:
    """The adapter `attention-pool`."""
    return [
        ComponentSpec(
            kind="adapter",
            name="attention-pool",
            target="fusemix_video.pooling:AttentionPoolAdapter",
            summary="a learned query attends over the frames of view `time`, then an affine map",
            options={"frames": 0, "dim": 0},
            uses=("tokens",),
        )
    ]
