"""Pickled weights of a model in hub layout as safetensors, without running anything in them."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fusemix_core.disk import give_usual_mode
from fusemix_core.errors import ArtefactError, ConfigError, RunExistsError
from fusemix_core.registry import Registry, registry
from fusemix_core.specs import EncoderSpec
from fusemix_hf.files import first_line, parse, read_files

_WEIGHTS = re.compile(r"(open_clip_)?pytorch_model(-\d+-of-\d+)?\.bin")
_INDEX = "pytorch_model.bin.index.json"
_COPIED = ("*.json", "*.jinja", "*.md", "*.model", "*.txt", "LICENSE*")
"""Config, tokenizer, processor and model card; nothing that runs, no other weights."""


def source_of(name: str, registry: Registry = registry) -> tuple[str, Path]:
    """(the name without its folder, the folder) of the model to convert, downloaded if need be.

    Raises ArtefactError if it can't be had, ConfigError for an encoder of no hub.
    """
    base, _, path = name.partition("@")
    if path:
        folder = Path(path).expanduser()
        if not (folder / "config.json").is_file():
            raise ArtefactError(
                f"{folder} contains no transformers model: there is no config.json in it."
            )
        return base, folder
    if base.startswith("hf:"):
        # Not by the registry: which tower is meant does not matter here.
        repo, _ = parse(base.removeprefix("hf:"))
        return f"hf:{repo}", _download(repo, read_files(base.removeprefix("hf:")).revision)
    spec: EncoderSpec = registry.encoder(name)
    if not spec.weights or spec.sha256 or "://" in spec.weights:
        raise ConfigError(
            f"The weights of {spec.name} come from no hub of models.",
            "Name a model of the hub: hf:NAME, or a folder: hf:NAME@FOLDER",
        )
    return base, _download(spec.weights, spec.revision)


def convert(source: Path, folder: Path) -> Path:
    """Write the model in `source` to `folder`, its .bin files as .safetensors; the absolute folder.

    It appears whole or not at all. Raises RunExistsError for a folder that holds something,
    ConfigError for one inside the source, ArtefactError for a source without .bin, or with one
    that is not a plain table of tensors.
    """
    folder = folder.expanduser().absolute()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RunExistsError(f"{folder} exists already.", "Name a new or an empty folder.")
    if source.resolve() in (folder, *folder.resolve().parents):
        raise ConfigError(f"{folder} lies in {source}.", "Name a folder elsewhere.")
    found = [p for p in sorted(source.rglob("*.bin")) if _WEIGHTS.fullmatch(p.name)]
    if not found:
        ready = any(source.glob("*.safetensors"))
        raise ArtefactError(
            f"{source} contains no pytorch_model.bin.",
            "It has safetensors already: use it as it is." if ready else "",
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        for path in found:
            target = new / path.relative_to(source).with_name(_safe(path.name))
            target.parent.mkdir(parents=True, exist_ok=True)
            _write(_read(path), target)
        for pattern in _COPIED:
            for path in source.rglob(pattern):
                _copy(path, new / path.relative_to(source))
        new.chmod(0o755)
        os.replace(new, folder)  # an empty folder gives way
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return folder


def _download(repo: str, revision: str) -> Path:
    """The folder in the hub's cache."""
    from huggingface_hub import snapshot_download

    weights = ("pytorch_model*.bin", "*/pytorch_model*.bin", "open_clip_pytorch_model.bin")
    try:
        return Path(
            snapshot_download(
                repo,
                revision=revision or None,
                allow_patterns=[*_COPIED, *weights],
                ignore_patterns=["onnx/*", "openvino/*"],
            )
        )
    except (OSError, ValueError) as error:
        raise ArtefactError(
            f"{repo} can't be had: {first_line(error)}",
            "Check its name and the network, or give a copy on disk: NAME@FOLDER",
        ) from error


def _read(path: Path) -> Mapping[str, Any]:
    """The tensors in a .bin. Raises ArtefactError if there is anything else in it."""
    import torch

    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=_is_zip(path))
    except Exception as error:  # torch, pickle and zip each have their own
        raise ArtefactError(
            f"{path} can't be read as weights: {type(error).__name__}.",
            "It is damaged, or contains more than tensors, and no code in it is run.",
        ) from error
    if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise ArtefactError(
            f"{path} is not a table of tensors, as a transformers model's would be."
        )
    return state


def _is_zip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"PK"


def _write(state: Mapping[str, Any], path: Path) -> None:
    from safetensors.torch import save_file

    # Tied weights share their memory, which safetensors can't say: each gets a copy.
    tensors = {name: value.contiguous().clone() for name, value in state.items()}
    save_file(tensors, path, metadata={"format": "pt"})
    give_usual_mode(path)


def _copy(path: Path, target: Path) -> None:
    """Copy a file; the list of the shards gets their new names."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if path.name != _INDEX:
        shutil.copyfile(path, target)
        return
    index = json.loads(path.read_text("utf-8"))
    index["weight_map"] = {name: _safe(file) for name, file in index["weight_map"].items()}
    target = target.with_name("model.safetensors.index.json")
    target.write_text(json.dumps(index, indent=1), "utf-8")


def _safe(name: str) -> str:
    """`pytorch_model-1-of-2.bin` → `model-1-of-2.safetensors`."""
    return name.replace("pytorch_", "", 1).removesuffix(".bin") + ".safetensors"
