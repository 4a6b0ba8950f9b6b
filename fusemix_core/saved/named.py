"""Names of folders that may be mistyped."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from fusemix_core.errors import ArtefactError


def check_named(source: str | os.PathLike[str]) -> None:
    """Raise `ArtefactError`, with similar names, if `source` is neither there nor a hub id, as the
    folder above it is there."""
    path = Path(os.path.expanduser(os.fspath(source)))
    if not path.exists() and path.parent.is_dir() and path.parent != Path():
        raise ArtefactError(f"There is no folder {path}.", similar(path))


def similar(path: Path) -> str:
    """A hint for a path that isn't there: those like it in the folder above."""
    if not path.parent.is_dir():
        return f"There is no folder {path.parent} either."
    near = difflib.get_close_matches(path.name, [one.name for one in path.parent.iterdir()])
    close = " or ".join(str(path.parent / name) for name in near)
    return f"Did you mean {close}?" if close else f"Look into {path.parent}/ for its name."
