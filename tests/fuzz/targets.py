"""Every target."""

from __future__ import annotations

from fuzz import artefacts, configs, media, readers

TARGETS = [*readers.TARGETS, *media.TARGETS, *configs.TARGETS, *artefacts.TARGETS]
