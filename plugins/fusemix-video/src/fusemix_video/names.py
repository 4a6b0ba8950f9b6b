"""What `video:IMAGE_ENCODER` means. Light: the image encoder is looked up, not imported."""

from __future__ import annotations

from pathlib import Path

from fusemix_core.errors import ConfigError
from fusemix_core.latents.fingerprint import fingerprint
from fusemix_core.registry import registry
from fusemix_core.specs import EncoderSpec, kind_of
from fusemix_video import AV
from fusemix_video.sampling import split_name

TARGET = "fusemix_video.frames:FrameEncoder"


def resolve(name: str, modality: str | None = None, path: Path | None = None) -> EncoderSpec:
    """The spec of `video:NAME[:FRAMES|:RATEfps]`, where NAME is any encoder of images.

    Weights, size, licence and requirements are the image encoder's; its own fingerprint is among
    the options, so that whatever changes its latents changes the video's.
    """
    image, sampling = split_name(name)
    if not image.strip():
        raise ConfigError("'video:' names no image encoder.", "Example: video:dinov2-base")
    inner = registry.encoder(f"{image}@{path}" if path else image, "image")
    return EncoderSpec(
        name=f"video:{name}",
        modality="video",
        takes="file",
        target=TARGET,
        dim=inner.dim,
        views=video_views(inner),
        summary=f"frames through {inner.name}, their mean",
        weights=inner.weights,
        sha256=inner.sha256,
        revision=inner.revision,
        local=inner.local,
        licence=inner.licence,
        image_size=inner.image_size,
        parameters=inner.parameters,
        price=inner.price,
        paper=inner.paper,
        requires={**inner.requires, **AV},
        options={
            **sampling.options(),
            "image": image,
            "encoder": fingerprint(inner, "any", "of the weights, beside", decoding=1),
        },
    )


def video_views(inner: EncoderSpec) -> tuple[str, ...]:
    """`pooled` and `time` for each kind of pooled latent that the image encoder has.

    Raises ConfigError for an encoder of anything but images, or without pooled latents.
    """
    if inner.takes != "image":
        raise ConfigError(
            f"'{inner.name}' takes {inner.takes}, so it can't encode the frames of a video.",
            "Name an encoder of images: fusemix encoders list",
        )
    variants = [v.removeprefix("pooled") for v in inner.views if kind_of(v) == "pooled"]
    if not variants or not inner.views[0].startswith("pooled"):
        raise ConfigError(f"'{inner.name}' gives no pooled latent of an image.")
    return tuple(f"{kind}{variant}" for variant in variants for kind in ("pooled", "time"))
