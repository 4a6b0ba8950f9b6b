"""Rates that this machine has shown, to estimate the time of the next run."""

from __future__ import annotations

import json
from pathlib import Path

from fusemix_core.home import home

_SLOWEST, _FASTEST = 1e-6, 1e12
"""Items a second; what is not between these was never measured."""


def encode_rate_key(fingerprint: str, device: str) -> str:
    return f"encode {fingerprint} {device}"


def fit_rate_key(recipe: str, device: str) -> str:
    return f"fit {recipe} {device}"


class Rates:
    """Items a second by key, in `<home>/rates.json`."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or home() / "rates.json"
        try:
            rates = json.loads(self.path.read_text())
        except (OSError, ValueError, RecursionError):
            rates = {}
        self._rates = rates if isinstance(rates, dict) else {}

    def seconds(self, key: str, items: int) -> float | None:
        """Seconds that `items` would take; None if nothing is known.

        A key of the device `auto` is served by any device's rate.
        """
        if items == 0:
            return 0.0
        if key.endswith(" auto"):
            key = next((k for k in self._rates if k.startswith(key.removesuffix("auto"))), key)
        rate = self._rates.get(key)
        known = isinstance(rate, int | float) and _SLOWEST < rate < _FASTEST
        return items / rate if known else None

    def record(self, key: str, items: int, seconds: float) -> None:
        """Remember a rate; a home that can't be written costs the estimate, not the run."""
        if items < 1 or seconds <= 0:
            return
        self._rates[key] = round(items / seconds, 3)
        temporary = self.path.with_suffix(".tmp")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(json.dumps(self._rates, indent=1, sort_keys=True))
            temporary.replace(self.path)
        except OSError:
            return
