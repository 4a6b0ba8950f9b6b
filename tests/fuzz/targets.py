"""Every target."""

from __future__ import annotations

from fuzz import readers

TARGETS = [*readers.TARGETS]
