"""Names of folders that may be mistyped."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from fusemix_core.errors import ArtefactError
from fusemix_core.registry import registry


def check_named(source: str | os.PathLike[str]) -> None:
    """Raise `ArtefactError`, with similar names, if `source` is neither there nor a model of a
    plugin nor a hub id, as the folder above it is there."""
    text = os.fspath(source)
    path = Path(os.path.expanduser(text))
    if not path.exists() and path.parent.is_dir() and text not in registry.all_models():
        raise ArtefactError(f"There is no run, model or index {path}.", similar(path))


def similar(path: Path) -> str:
    """A hint for a path that isn't there: folders like it in the one above."""
    if not path.parent.is_dir():
        return f"There is no folder {path.parent} either."
    names = [one.name for one in path.parent.iterdir() if one.is_dir()]
    near = difflib.get_close_matches(path.name, names)
    close = " or ".join(str(path.parent / name) for name in near)
    return f"Did you mean {close}?" if close else f"Look into {path.parent}/ for its name."
