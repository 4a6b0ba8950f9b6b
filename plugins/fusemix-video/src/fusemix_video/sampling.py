"""At which times of a video to take frames. Standard library only."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Self

from fusemix_core.errors import ConfigError

FRAMES = 8
"""How many frames, unless the encoder's name says."""

_SUFFIX = re.compile(r"(?P<rest>.*):(?P<number>\d+(\.\d+)?)(?P<rate>fps)?", re.DOTALL)


@dataclass(frozen=True)
class Sampling:
    """So many `frames` of each video, or where `rate` is given, so many a second."""

    frames: int = FRAMES
    rate: float | None = None

    @classmethod
    def of(cls, options: dict[str, Any]) -> Self:
        """The sampling that an encoder's options hold."""
        return cls(**{k: options[k] for k in ("frames", "rate") if k in options})

    def options(self) -> dict[str, Any]:
        return {"frames": self.frames} if self.rate is None else {"rate": self.rate}

    def times(self, duration: float) -> list[float]:
        """Seconds from the start, ascending: the centres of equal parts of the video.

        By rate a part lasts 1/rate, and there is one at least.
        """
        if self.rate is None:
            part, count = duration / self.frames, self.frames
        else:
            part, count = 1 / self.rate, max(1, round(duration * self.rate))
        return [min((i + 0.5) * part, duration) for i in range(count)]


def split_name(name: str) -> tuple[str, Sampling]:
    """(image encoder, sampling) of `NAME`, `NAME:16` or `NAME:2fps`.

    Raises ConfigError for a number that can't be one of frames.
    """
    found = _SUFFIX.fullmatch(name)
    if not found:
        return name, Sampling()
    number = float(found["number"])
    if number <= 0 or (not found["rate"] and number != int(number)):
        raise ConfigError(
            f"'video:{name}' asks for {found['number']}{found['rate'] or ' frames'}.",
            f"Examples: video:{found['rest']}:16 (frames), video:{found['rest']}:0.5fps",
        )
    return found["rest"], Sampling(rate=number) if found["rate"] else Sampling(int(number))
