"""What a file is, by its name."""

from __future__ import annotations

import os
import re

from fusemix_core.data.media.extras import EXTRAS
from fusemix_core.registry import registry

_ABOUT = re.compile(
    r"(readme|licen[cs]e|copying|notice|changelog|citation|requirements)\b.*", re.IGNORECASE
)


def modality_of_suffix() -> dict[str, str]:
    """Suffix, small and with the dot → the modality that declares it, or that an installed extra
    reads from such files."""
    found = {s: extra.modality for extra in EXTRAS if extra.installed for s in extra.suffixes}
    return found | {s: one.name for one in registry.all_modalities() for s in one.suffixes}


def is_about(name: str) -> bool:
    """Whether a file tells of the data, such as README.txt, and isn't one of them."""
    return _ABOUT.fullmatch(os.path.basename(name)) is not None
