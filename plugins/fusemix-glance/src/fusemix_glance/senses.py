"""The encoders of a glance at work: films to latents, and the seconds that each encoder took."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fusemix_core.errors import ConfigError
from fusemix_core.interfaces import Encoder, Padded, as_rows
from fusemix_core.latents.fingerprint import fingerprint
from fusemix_core.registry import registry
from fusemix_core.saved.schema import EncoderInfo
from fusemix_core.specs import kind_of, plain_modality
from fusemix_glance.films import Film, window, windows
from fusemix_glance.fitting import FIRST, LOOK, SOUND

Encode = Callable[[str, list[Any]], Tensor | Padded]
"""(modality, items) → their latents, as `SavedModel.latents` gives them."""


@dataclass
class Senses:
    """Encodes moments and windows of films.

    Args:
        encode: encodes items of a modality.
        side: windows a side of a frame.

    Attributes:
        seconds: modality → seconds spent on encoding so far.
        items: modality → items encoded so far.
    """

    encode: Encode
    side: int

    def __post_init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.items: Counter[str] = Counter()

    def frames(self, film: Film) -> Tensor:
        """float32 `[M · side², d]`: all windows of all frames, by the cheap encoder."""
        seen = [part for frame in film.frames for part in windows(frame, self.side)]
        return as_rows(self._timed(FIRST, seen))

    def sounds(self, film: Film) -> Tensor | None:
        """float32 `[M, d]`; None if the film is silent."""
        return None if film.sounds is None else as_rows(self._timed(SOUND, film.sounds))

    def look(self, film: Film, moments: Sequence[int], regions: Sequence[int]) -> Tensor:
        """float32 `[k, d]`: windows of frames, by the expensive encoder."""
        seen = [window(film.frames[t], r, self.side) for t, r in zip(moments, regions, strict=True)]
        return as_rows(self._timed(LOOK, seen))

    def _timed(self, modality: str, items: Sequence[Any]) -> Tensor | Padded:
        start = time.perf_counter()
        found = self.encode(modality, list(items))
        self.seconds[modality] += time.perf_counter() - start
        self.items[modality] += len(items)
        return found


def encoder_info(modality: str, source: str | Encoder) -> EncoderInfo:
    """The record of an encoder in a saved model, with its pooled view.

    Args:
        modality: `image:first`, `audio` or `image:look`.
        source: a registered name, or a loaded encoder.

    Raises:
        ConfigError: the encoder takes other items, or has no such view.
    """
    medium = plain_modality(modality)
    spec = source.spec if isinstance(source, Encoder) else registry.encoder(source, medium)
    view = next((view for view in spec.views if kind_of(view) == "pooled"), None)
    if registry.settled(spec).takes != medium or view is None:
        raise ConfigError(
            f"'{spec.name}' doesn't give a pooled latent of {medium}.",
            "Choose another: fusemix encoders list",
        )
    known = fingerprint(spec, "float32")
    if known is None:
        if not isinstance(source, Encoder):
            source = registry.target_of(spec).load(spec, torch.device("cpu"), torch.float32)
        known = fingerprint(spec, "float32", source.weights_digest)
        spec = source.spec
    return EncoderInfo.of(
        spec, modality=modality, dim=spec.dim or 0, fingerprint=known or "", view=view
    )
