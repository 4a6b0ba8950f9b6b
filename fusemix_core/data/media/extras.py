"""File formats that need a package more: which package, and whether it is there."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec

from fusemix_core.errors import DataError
from fusemix_core.project import how_to_install


@dataclass(frozen=True)
class Extra:
    """An extra of fusemix that reads further files.

    name: as in `fusemix[NAME]`. module: what it brings. modality, suffixes: what it
    reads.
    """

    name: str
    module: str
    modality: str
    suffixes: tuple[str, ...]

    @property
    def installed(self) -> bool:
        return _is_there(self.module)

    @property
    def requirement(self) -> str:
        """As pip takes it."""
        return f"fusemix[{self.name}]"

    @property
    def remedy(self) -> str:
        """How to get it."""
        return f"to read it: {how_to_install(self.requirement)}"

    def require(self, what: str) -> None:
        """Raise `DataError` for a file that is `what` unless the extra is there."""
        if not self.installed:
            raise DataError(f"the file is {what}; {self.remedy}")


HEIC = Extra("heic", "pillow_heif", "image", (".heic", ".heif"))
DICOM = Extra("dicom", "pydicom", "image", (".dcm", ".dicom"))
AV = Extra("av", "av", "audio", (".m4a", ".aac", ".m4b", ".mka", ".weba"))
EXTRAS = (HEIC, DICOM, AV)


def extra_of(suffix: str) -> Extra | None:
    """The extra that reads files of a suffix (lower case, with the dot)."""
    return next((extra for extra in EXTRAS if suffix in extra.suffixes), None)


@cache
def _is_there(module: str) -> bool:
    return find_spec(module) is not None
