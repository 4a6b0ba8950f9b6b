"""Which modality a file is of, by its suffix."""

from __future__ import annotations

from fusemix_core.data.media import AUDIO_SUFFIXES, IMAGE_SUFFIXES, VIDEO_SUFFIXES


def modality_of_suffix() -> dict[str, str]:
    """Suffix, small and with the dot → the modality of such files."""
    return {
        **dict.fromkeys(IMAGE_SUFFIXES, "image"),
        **dict.fromkeys(AUDIO_SUFFIXES, "audio"),
        **dict.fromkeys(VIDEO_SUFFIXES, "video"),
    }
