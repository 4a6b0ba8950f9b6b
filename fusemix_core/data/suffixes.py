"""Which modality a file is of, by its suffix."""

from __future__ import annotations

from fusemix_core.registry import registry


def modality_of_suffix() -> dict[str, str]:
    """Suffix, small and with the dot → the modality that declares it."""
    return {suffix: one.name for one in registry.all_modalities() for suffix in one.suffixes}
