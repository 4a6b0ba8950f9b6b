"""How long a fit may go on: a time, or a number of training steps."""

from __future__ import annotations

import math
import re
import time
from dataclasses import dataclass, field

from fusemix_core.errors import ConfigError

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


@dataclass(frozen=True)
class Budget:
    """The seconds or the training steps that a fit may take, from now on; by default any number."""

    seconds: float = math.inf
    steps: float = math.inf
    began: float = field(default_factory=time.monotonic)

    @classmethod
    def of(cls, text: str) -> Budget:
        """From `90s`, `10m`, `1.5h`, `2d`, `2000 steps`, or nothing.

        Raises:
            ConfigError: for anything else.
        """
        found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(s|m|h|d|steps?)\s*", text)
        if not text.strip():
            return cls()
        if not found or not float(found[1]):
            raise ConfigError(
                f"'{text}' isn't a budget.", "Examples: 90s, 10m, 2h, or '2000 steps'."
            )
        if found[2].startswith("step"):
            return cls(steps=math.ceil(float(found[1])))
        return cls(seconds=float(found[1]) * UNITS[found[2]])

    @property
    def left(self) -> float:
        """Seconds that are left, by this process's clock; infinite without a time."""
        return self.seconds - (time.monotonic() - self.began)

    def allows(self, steps: int = 0) -> bool:
        """Whether there is time left, and so many steps in all are within it: by this process's
        clock."""
        return self.left > 0 and steps <= self.steps
