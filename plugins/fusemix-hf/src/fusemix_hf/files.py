"""The JSON files that say what a model is, from a hub or a folder. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fusemix_core.errors import ArtefactError, ConfigError

_EXAMPLE = "Example: hf:google/vit-base-patch16-224-in21k"


@dataclass(frozen=True)
class Files:
    """What a model's config, its processor's and its tokenizer's hold; empty if there is none.

    `revision` is the commit that they are of, empty for a folder.
    """

    config: Mapping[str, Any]
    processor: Mapping[str, Any]
    tokenizer: Mapping[str, Any]
    revision: str = ""


def parse(name: str) -> tuple[str, str]:
    """(hub id, revision) of `ID` or `ID:REVISION`; the revision may be a commit, tag or branch."""
    repo, colon, revision = name.strip().partition(":")
    if not repo or (colon and not revision):
        raise ConfigError(f"'hf:{name}' names no {'revision' if repo else 'model'}.", _EXAMPLE)
    return repo, revision


def read_files(name: str, path: Path | None = None) -> Files:
    """The files of the hub's model `name` (see `parse`), or of the folder `path`.

    A revision that moves is pinned to its commit of today; offline, to the commit in the cache.
    Raises ArtefactError if there is no config.json to be had.
    """
    repo, revision = parse(name)
    if path:
        return _from_folder(name, path)
    from huggingface_hub import hf_hub_download

    try:
        config = Path(hf_hub_download(repo, "config.json", revision=revision or None))
    except (OSError, ValueError) as error:
        raise ArtefactError(
            f"hf:{name} can't be had: {first_line(error)}",
            f"Check its name and the network, or give a copy on disk: hf:{name}@FOLDER",
        ) from error
    commit = config.parent.name

    def fetched(file: str) -> Mapping[str, Any]:
        try:
            return _read(Path(hf_hub_download(repo, file, revision=commit)))
        except (OSError, ValueError):  # most have not all of these
            return {}

    return Files(_read(config), _processor(fetched), fetched("tokenizer_config.json"), commit)


def first_line(error: Exception) -> str:
    """What an error says, in short."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]


def _from_folder(name: str, path: Path) -> Files:
    if not (path / "config.json").is_file():
        raise ArtefactError(
            f"{path} contains no transformers model: there is no config.json in it.",
            f"Give the folder that save_pretrained wrote: hf:{name}@FOLDER",
        )

    def found(file: str) -> Mapping[str, Any]:
        return _read(path / file) if (path / file).is_file() else {}

    return Files(found("config.json"), _processor(found), found("tokenizer_config.json"))


def _processor(read: Any) -> Mapping[str, Any]:
    """The settings of the image processor or feature extractor, both merged if there are two."""
    if own := read("preprocessor_config.json"):
        return own
    parts = read("processor_config.json")
    found = (parts.get(part) for part in ("image_processor", "feature_extractor"))
    return {k: v for part in found if isinstance(part, dict) for k, v in part.items()}


def _read(path: Path) -> Mapping[str, Any]:
    try:
        value = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ArtefactError(f"{path} is not JSON: {error}", "Fetch it anew.") from error
    if not isinstance(value, dict):
        raise ArtefactError(f"{path} contains no JSON object.", "Fetch it anew.")
    return value
