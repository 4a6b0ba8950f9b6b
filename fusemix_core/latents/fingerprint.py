"""The fingerprint of an encoder: one hex string for all that decides its latents. No torch."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from fusemix_core.digests import file_sha256, path_sha256
from fusemix_core.errors import PluginError
from fusemix_core.registry import registry
from fusemix_core.specs import EncoderSpec
from fusemix_core.userfile import PREFIX

if TYPE_CHECKING:
    from fusemix_core.data.hashes import Stamp

_BRANCHES = {"", "main", "master"}
"""Revisions of a hub that move, so that they pin nothing."""


@overload
def fingerprint(
    spec: EncoderSpec, dtype: str, digest: str, *, decoding: int | None = None
) -> str: ...
@overload
def fingerprint(
    spec: EncoderSpec, dtype: str, digest: str | None = None, *, decoding: int | None = None
) -> str | None: ...
def fingerprint(
    spec: EncoderSpec, dtype: str, digest: str | None = None, *, decoding: int | None = None
) -> str | None:
    """32 hex characters over target, weights, preprocessing, options, compute dtype and version.

    Names and descriptions have no part in it, so that an alias finds the same latents. Weights are
    known by `spec.sha256`, by the content of a local path, or by hub id and pinned revision; an
    encoder of 0 `parameters` has none. Otherwise they are known by `digest` (the encoder's
    `weights_digest`). None without that either: then the encoder must be loaded first.
    `decoding` is that of the medium (`Medium.decoding`), or an earlier one.
    """
    weights = _weights(spec) or (f"digest:{digest}" if digest else None)
    if weights is None:
        return None
    takes = registry.settled(spec).takes
    if decoding is None:
        from fusemix_core.data.media import medium  # imports numpy, which a listing must not

        decoding = medium(takes).decoding
    facts = {
        "target": _target(spec),
        "weights": weights,
        "takes": takes,
        "image_size": spec.image_size,
        "sample_rate": spec.sample_rate,
        "max_tokens": spec.max_tokens,
        "prompt": spec.prompt,
        "normalised": spec.normalised,
        "options": plain(spec.options),
        "dtype": dtype,
        "version": spec.version,
    }
    if decoding > 1:
        facts["decoding"] = decoding
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def plain(value: Any) -> Any:
    """`value` as JSON has it: dataclasses and mappings as dicts, tuples as lists, paths as text.

    Raises `PluginError` for anything that has no such form.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, set | frozenset):
        return sorted(plain(v) for v in value)
    if isinstance(value, Path):
        return str(value)
    raise PluginError(
        f"An encoder's options hold {value!r}, which is not plain data.",
        "Options are strings, numbers, booleans, None, and lists and tables of these.",
    )


def _target(spec: EncoderSpec) -> str:
    """The target; for a class in a user's file its name and the file's content, not its place."""
    module, _, attribute = spec.target.partition(":")
    if module.startswith(PREFIX):
        file = getattr(sys.modules.get(module), "__file__", None)
        if file:
            return f"{file_sha256(file)}:{attribute}"
    return spec.target


def _weights(spec: EncoderSpec) -> str | None:
    if spec.parameters == 0:
        return "none"
    if spec.sha256:
        return f"sha256:{spec.sha256.lower()[:32]}"
    if "://" in spec.weights:  # a model behind an endpoint is known by its address alone
        return f"served:{spec.weights}"
    path = Path(spec.weights).expanduser()
    if spec.weights and (spec.local or path.is_absolute()) and path.exists():
        return f"sha256:{remembered_sha256(path)}"
    if spec.weights and spec.revision not in _BRANCHES:
        return f"hub:{spec.weights}@{spec.revision}"
    return None


def remembered_sha256(path: Path) -> str:
    """The first 32 hex characters of `path_sha256`, remembered until a file in it changes.

    A change shows in the names, sizes, times and inodes of the files, as for media.
    """
    from fusemix_core.data.hashes import HashMemory
    from fusemix_core.home import home

    path = path.resolve()
    memory = HashMemory(home() / "hashes.sqlite")
    name, stamp = f"weights {path}", _stamp(path)
    if found := memory.recall({name: stamp}).get(name):
        return found.hex()
    digest = path_sha256(path)[:32]
    memory.remember([(name, stamp, bytes.fromhex(digest))])
    return digest


def _stamp(path: Path) -> Stamp:
    """The stamp of a file; of a folder (63-bit hash of its listing, newest mtime and ctime, 0)."""
    from fusemix_core.data.hashes import stamp_of

    if path.is_file():
        return stamp_of(path.stat())
    files = sorted(p for p in path.rglob("*") if p.is_file())
    stamps = [(p.relative_to(path).as_posix(), stamp_of(p.stat())) for p in files]
    digest = hashlib.blake2b(json.dumps(stamps).encode(), digest_size=8).digest()
    newest = [max((stamp[i] for _, stamp in stamps), default=0) for i in (1, 2)]
    return int.from_bytes(digest) >> 1, newest[0], newest[1], 0
