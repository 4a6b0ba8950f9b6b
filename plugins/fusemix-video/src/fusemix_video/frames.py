"""`FrameEncoder`: sampled frames of a video, each through an image encoder."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Self

import torch
from PIL import Image
from torch import Tensor

from fusemix_core.errors import ConfigError
from fusemix_core.interfaces import Encoder, Padded, as_rows
from fusemix_core.registry import registry
from fusemix_core.specs import EncoderSpec
from fusemix_video.decoding import Video
from fusemix_video.names import video_views
from fusemix_video.samples import sample_videos
from fusemix_video.sampling import Sampling

CHUNK = 32
"""Frames that the image encoder takes at once."""
HELD = 256
"""Frames that a batch contains ready for the encoder. Those beyond are decoded again when their
turn comes, so that an hour of film takes no more memory than this."""


@dataclass(frozen=True)
class FrameBatch:
    """The videos `paths`, of which `counts` frames each are wanted; `held` are the first of all
    these frames, `CHUNK` at a time, as the image encoder collated them."""

    paths: list[Path]
    counts: list[int]
    held: list[Any]


class FrameEncoder(Encoder):
    """A video's frames through the image encoder that the name contains; `pooled` is their mean.

    View `time` is `[n, T, d]` for a number of frames, and `Padded` by rate.
    """

    def __init__(self, spec: EncoderSpec, image: Encoder) -> None:
        self.spec = spec
        self.image = image
        self.sampling = Sampling.of(dict(spec.options))

    @classmethod
    def load(cls, spec: EncoderSpec, device: torch.device, dtype: torch.dtype) -> Self:
        """The image encoder, loaded from where it finds its own weights, or from `...@PATH`."""
        inner = image_spec(spec)
        return cls(spec, registry.target_of(inner).load(inner, device, dtype))

    @classmethod
    def tiny(cls, spec: EncoderSpec) -> Self:
        """The image encoder's own miniature."""
        inner = image_spec(spec)
        image = registry.target_of(inner).tiny(inner)
        spec = replace(
            spec,
            dim=image.spec.dim,
            views=video_views(image.spec),
            image_size=image.spec.image_size,
            parameters=None,
            weights="",
            sha256="",
            revision="",
        )
        return cls(spec, image)

    def collate(self, items: Sequence[Path]) -> FrameBatch:
        """Decodes the frames of video files. All of them, so that a damaged file shows here.

        Raises DataError for a file that can't be decoded.
        """
        for item in items:
            if not isinstance(item, Path):
                raise TypeError(f"{self.spec.name} takes a Path, not {type(item).__name__}")
        batch = FrameBatch(list(items), [], [])
        for chunk in chunks(self._decoded(batch)):
            if len(batch.held) < HELD // CHUNK:
                batch.held.append(self.image.collate(chunk))
        return batch

    @torch.inference_mode()
    def encode(self, batch: FrameBatch, view: str = "pooled") -> Tensor | Padded:
        """float32: `pooled [n, d]`, `time [n, T, d]`; the same of variants, `pooled-cls-mean`."""
        if view not in self.spec.views:
            raise ConfigError(
                f"{self.spec.name} has no view '{view}'.", f"It has: {', '.join(self.spec.views)}."
            )
        kind, dash, variant = view.partition("-")
        pooled = f"pooled{dash}{variant}"
        parts = [as_rows(self.image.encode(b, pooled)) for b in self._collated(batch)]
        videos = torch.cat(parts).split(batch.counts)
        if kind == "pooled":
            empty = parts[0].new_empty(0, parts[0].shape[1])
            return torch.stack([v.mean(dim=0) for v in videos]) if videos else empty
        return self._in_time(videos, parts[0].shape[1])

    @classmethod
    def sample_items(cls, spec: EncoderSpec) -> Sequence[Path]:
        """Small videos in a temporary folder; see `sample_videos`."""
        return sample_videos()

    @property
    def weights_digest(self) -> str:
        return self.image.weights_digest

    def _in_time(self, videos: tuple[Tensor, ...], dim: int) -> Tensor | Padded:
        if self.sampling.rate is None:
            return torch.stack(videos) if videos else torch.empty(0, self.sampling.frames, dim)
        if not videos:
            return Padded(torch.empty(0, 0, dim), torch.empty(0, 0, dtype=torch.bool))
        return Padded.of(videos)

    def _collated(self, batch: FrameBatch) -> Iterator[Any]:
        """All frames of the batch as the image encoder wants them; one empty part for no frames."""
        yield from batch.held
        yield from map(self.image.collate, chunks(self._decoded_again(batch)))
        if not batch.paths:
            yield self.image.collate([])

    def _decoded(self, batch: FrameBatch) -> Iterator[Image.Image]:
        """The frames of all videos, counted in `batch.counts`."""
        for path in batch.paths:
            with Video(path) as video:
                times = self.sampling.times(video.duration)
                batch.counts.append(len(times))
                yield from video.pictures(times)

    def _decoded_again(self, batch: FrameBatch) -> Iterator[Image.Image]:
        """The frames that the batch does not hold."""
        held = len(batch.held) * CHUNK
        for path, count in zip(batch.paths, batch.counts, strict=True):
            if held < count:
                with Video(path) as video:
                    yield from video.pictures(self.sampling.times(video.duration)[held:])
            held = max(0, held - count)


def image_spec(spec: EncoderSpec) -> EncoderSpec:
    """The spec of the image encoder behind the spec of a video encoder."""
    path = f"@{spec.weights}" if spec.local and spec.weights else ""
    return registry.encoder(f"{spec.options['image']}{path}", "image")


def chunks(pictures: Iterable[Image.Image]) -> Iterator[list[Image.Image]]:
    """`CHUNK` pictures at a time."""
    pictures = iter(pictures)
    while chunk := list(islice(pictures, CHUNK)):
        yield chunk
