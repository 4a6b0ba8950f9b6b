"""The folder of a saved model, `config.json`, `model.safetensors` and `README.md`: read strictly,
written whole or not at all."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from fusemix_core.config import from_dict
from fusemix_core.digests import file_sha256
from fusemix_core.disk import Advice, explained, flush
from fusemix_core.errors import ArtefactError, ConfigError, UnknownNameError
from fusemix_core.packaged import packaged_folder
from fusemix_core.project import upgrade
from fusemix_core.registry import registry
from fusemix_core.saved.format1 import read_format1
from fusemix_core.saved.named import check_named
from fusemix_core.saved.schema import (
    FORMAT,
    EncoderInfo,
    SavedConfig,
    SavedPart,
    check_modality,
    check_part_name,
    describe,
    kind_of_part,
)
from fusemix_core.versions import version

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
FILES = (CONFIG, WEIGHTS, CARD)

_MAX_CONFIG_BYTES = 4 << 20
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")

ADVICE = Advice(
    "Free some space, or choose a folder on a larger disk; the model that was there is kept.",
    "Choose a folder that you may write to.",
    "Check the disk; the model that was there is kept.",
)
"""Where a model can't be written."""


def locate(source: str | os.PathLike[str], revision: str | None = None) -> Path:
    """The folder that `source` names: a model's or a run's folder here, `PLUGIN:NAME` of a model
    that a plugin brings, or a hub id such as `someone/model` (fetched, at `revision`). A name in a
    folder that exists here, such as a mistyped `runs/fist` or `fist.index`, is not a hub id.

    Raises:
        ArtefactError: If there is no such folder and it isn't a hub id, or can't be fetched.
    """
    text = os.fspath(source)
    path = Path(os.path.expanduser(text))
    if path.is_dir():
        if revision is not None:
            raise ConfigError(
                f"{path} is a folder, which has no revision '{revision}'.",
                "Leave out revision, or give a hub id.",
            )
        inside = path / "model"  # of a run's folder
        return inside if not (path / CONFIG).exists() and (inside / CONFIG).exists() else path
    if path.exists() or not _HUB_ID.fullmatch(text):
        models = registry.all_models()
        if text in models and not path.exists():
            return packaged_folder(models[text].path)
        more = f", or a model of a plugin: {', '.join(models)}" if models else ""
        raise ArtefactError(
            f"{text} is not a folder.",
            f"Give the folder that save_pretrained wrote, a hub id such as 'someone/model'{more}.",
        )
    check_named(text)
    return _download(text, revision)


def _download(hub_id: str, revision: str | None) -> Path:
    """The snapshot of a hub repository, of which only the three files are fetched."""
    import huggingface_hub

    try:
        return Path(
            huggingface_hub.snapshot_download(hub_id, revision=revision, allow_patterns=list(FILES))
        )
    except Exception as error:  # its errors are those of its HTTP client, which differ by version
        raise ArtefactError(
            f"'{hub_id}' is neither a folder here nor can it be fetched from the hub: "
            f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}",
            "Check the name and the network; a private model needs `hf auth login`.",
        ) from error


def read_config(folder: Path) -> SavedConfig:
    """The config of a saved model. Anything wrong with it is an `ArtefactError`."""
    path = folder / CONFIG
    values = _read_json(path)
    if not isinstance(values, dict) or type(values.get("format")) is not int:
        raise ArtefactError(f"{path} is not the config of a saved model.", _saved_how(folder))
    written_by = f"{values.get('fusemix')!r:.40}"
    if values["format"] > FORMAT:
        raise ArtefactError(
            f"{path} has format {values['format']}; fusemix {version()} reads up to {FORMAT}.",
            f"It was saved by fusemix {written_by}. To upgrade: {upgrade()}",
        )
    try:
        config = read_format1(values) if values["format"] == 1 else _read_format2(values)
        _check(config)
    except ConfigError as error:
        newer = (
            f"It was saved by fusemix {written_by}, this is {version()}. If that is newer, "
            f"upgrade: {upgrade()}"
        )
        raise ArtefactError(
            f"{path}: {error.message}", "\n".join(filter(None, [error.hint, newer]))
        ) from error
    return config


def _read_format2(values: Mapping[str, Any]) -> SavedConfig:
    config = from_dict(SavedConfig, values)
    for name in config.encoders:
        check_modality(name)
    for name in config.parts:
        check_part_name(name)
    encoders = {
        name: from_dict(EncoderInfo, value, f"encoders.{name}.")
        for name, value in values["encoders"].items()
    }
    parts = {
        name: from_dict(SavedPart, value, f"parts.{name}.")
        for name, value in values["parts"].items()
    }
    return dataclasses.replace(config, encoders=encoders, parts=parts)


def _check(config: SavedConfig) -> None:
    """Raise `ConfigError` for what types don't show."""
    if config.format not in range(1, FORMAT + 1):
        raise ConfigError(f"format is {config.format}; formats are 1 to {FORMAT}.")
    if not config.encoders:
        raise ConfigError("A saved model has one encoder or more.")
    for name, info in config.encoders.items():
        if info.modality != name:
            raise ConfigError(f"encoders.{name}.modality is {info.modality!r}, not '{name}'.")
        if info.dim < 1:
            raise ConfigError(f"encoders.{name}.dim is {info.dim}.")
        try:
            registry.component("medium", info.takes)
        except UnknownNameError as error:
            hint = "Install the plugin that brings it."
            raise ConfigError(f"encoders.{name}.takes: {error.message}", hint) from error
    for name, part in config.parts.items():
        if kind_of_part(name) == "adapter" and any(w == 0 for w in part.arguments):
            raise ConfigError(
                f"parts.{name}.arguments are {list(part.arguments)}: widths are positive."
            )
    for name, count in config.seen.items():
        if name not in config.encoders or type(count) is not int or count < 0:
            raise ConfigError(f"seen.{name} is {count!r}: no number of items of a modality.")
    _check_printable(config.kind, [config.kind, config.dist])
    for named in (*config.encoders.values(), *config.parts.values()):
        _check_printable(named.name, vars(named).values())


def _check_printable(name: str, values: Iterable[Any]) -> None:
    shown = [value for value in values if isinstance(value, str)]
    if not name or not all(value.isprintable() for value in shown):
        raise ConfigError(f"{name!r} is not described by printable text.")


def _read_json(path: Path) -> Any:
    """JSON within the standard: UTF-8, finite numbers, no key twice, of a sensible size."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        table = dict(pairs)
        if len(table) < len(pairs):
            raise ValueError("a key occurs twice in one table")
        return table

    try:
        with open(path, "rb") as file:
            raw = file.read(_MAX_CONFIG_BYTES + 1)
        if len(raw) > _MAX_CONFIG_BYTES:
            raise ValueError(f"it is larger than {_MAX_CONFIG_BYTES >> 20} MiB")
        values = json.loads(raw.decode("utf-8"), object_pairs_hook=unique)
        json.dumps(values, allow_nan=False, ensure_ascii=False).encode()
    except FileNotFoundError as error:
        raise ArtefactError(f"{path} does not exist.", _saved_how(path.parent)) from error
    except (OSError, ValueError, RecursionError) as error:
        raise ArtefactError(f"{path} can't be read: {error}", _saved_how(path.parent)) from error
    return values


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """The tensors of a saved model by name, on the CPU, mapped from the file."""
    import safetensors
    import safetensors.torch

    path = folder / WEIGHTS
    try:
        return safetensors.torch.load_file(path)
    except FileNotFoundError as error:
        raise ArtefactError(f"{path} does not exist.", _saved_how(folder)) from error
    except (OSError, ValueError, KeyError, AttributeError, safetensors.SafetensorError) as error:
        raise ArtefactError(f"{path} can't be read: {error}", _saved_how(folder)) from error


def check_tensors(folder: Path, tensors: Mapping[str, Tensor], expected: Mapping[str, str]) -> None:
    """Raise `ArtefactError` unless the file contains just the tensors that are `expected`, as
    `describe` puts them."""
    wrong = [f"{name} is missing" for name in expected if name not in tensors]
    wrong += [f"{name} is not expected" for name in tensors if name not in expected]
    wrong += [
        f"{name} is {describe(tensors[name])}, not {form}"
        for name, form in expected.items()
        if name in tensors and describe(tensors[name]) != form
    ]
    wrong += [
        f"{name} contains values that are not finite"
        for name, form in expected.items()
        if name in tensors and describe(tensors[name]) == form and not _finite(tensors[name])
    ]
    if wrong:
        more = f"; and {len(wrong) - 8} more" if len(wrong) > 8 else ""
        raise ArtefactError(
            f"{folder / WEIGHTS} does not fit {CONFIG}: {'; '.join(wrong[:8])}{more}.",
            _saved_how(folder),
        )


def _finite(tensor: Tensor) -> bool:
    return not tensor.is_floating_point() or bool(tensor.isfinite().all())


def check_digest(folder: Path, config: SavedConfig) -> None:
    """Raise `ArtefactError` unless the weights are, byte for byte, those that were saved."""
    if file_sha256(folder / WEIGHTS) != config.weights_sha256:
        raise ArtefactError(
            f"{folder / WEIGHTS} is not the file {CONFIG} was saved with: its SHA-256 differs.",
            "It is damaged, or the files are of two models. " + _saved_how(folder),
        )


def _saved_how(folder: Path) -> str:
    return f"{folder} should be a folder as save_pretrained wrote it: fetch or save it again."


# -- writing -------------------------------------------------------------------------------------


def replace_folder(folder: Path, fill: Callable[[Path], None]) -> None:
    """Put a folder that `fill` writes in the place of `folder`, whole or not at all.

    Only an empty folder, or one that holds a saved model and nothing else, is replaced. Raises
    `ArtefactError` for another one, and where the disk does not let it be written.
    """
    try:
        folder = folder.expanduser().resolve()
    except (OSError, RuntimeError) as error:
        raise ArtefactError(f"{folder} can't be written: {error}", ADVICE.denied) from error
    with explained(f"The model {folder}", ADVICE):
        _check_replaceable(folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
        unique = uuid.uuid4().hex[:8]
        new = folder.with_name(f".{folder.name}.{unique}.new")
        old = folder.with_name(f".{folder.name}.{unique}.old")
        try:
            new.mkdir()
            fill(new)
            for path in (*new.iterdir(), new):
                flush(path)
            if folder.exists():
                folder.rename(old)
            try:
                new.rename(folder)
            except OSError:
                if old.exists():
                    old.rename(folder)
                raise
            flush(folder.parent)
        finally:
            shutil.rmtree(new, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def _check_replaceable(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise ArtefactError(f"{folder} is a file.", "Give a folder to save in.")
    held = {path.name for path in folder.iterdir()} if folder.exists() else set()
    if others := sorted(held - set(FILES)):
        raise ArtefactError(
            f"{folder} has other files ({', '.join(others[:3])}{', …' if others[3:] else ''}).",
            "Saving replaces the whole folder: choose an empty or a new one.",
        )
