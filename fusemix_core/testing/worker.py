"""What the kit runs in processes of its own: `collate` in a spawned worker, and a plugin's listing.

Imported by the spawned worker, so nothing heavy is imported here.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import cache
from multiprocessing import get_context
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fusemix_core.interfaces import Encoder

HEAVY = frozenset(
    {"torch", "torchvision", "torchaudio", "numpy", "scipy", "pandas", "sklearn", "tensorflow"}
    | {"jax", "transformers", "timm", "sentence_transformers", "openvino", "ctranslate2"}
    | {"librosa", "soundfile", "cv2", "av", "rdkit"}
)
"""What listing must not import, beside what the encoder itself requires."""

_LISTING = """
import importlib, json, sys
asked = json.loads(sys.argv[1])
before = set(sys.modules)
plugin = importlib.import_module(asked["module"])
for hook in ("fusemix_encoders", "fusemix_generators", "fusemix_components"):
    list(getattr(plugin, hook, list)() or ())
if asked["family"]:
    from fusemix_core.errors import FusemixError
    from fusemix_core.registry import registry
    try:
        registry.encoder(asked["name"], asked["modality"])
    except FusemixError:
        pass
print(json.dumps(sorted({m.partition(".")[0] for m in set(sys.modules) - before})))
"""


def imported_by_listing(module: str, name: str, modality: str) -> set[str]:
    """Top-level modules that a fresh interpreter imports to list what a plugin brings.

    For a name of a family (`hf:NAME`) also those that finding its spec imports. Raises
    RuntimeError with the last line of what it printed if it fails.
    """
    family = ":" in name and ".py:" not in name
    asked = {"module": module, "name": name, "modality": modality, "family": family}
    done = subprocess.run(
        [sys.executable, "-c", _LISTING, json.dumps(asked)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        raise RuntimeError(f"listing {module} failed: {lines[-1] if lines else done.returncode}")
    return set(json.loads(done.stdout.splitlines()[-1]))


def collate_in_worker(encoder: Encoder, items: Sequence[Any]) -> Any:
    """`encoder.collate(items)` as a spawned process gives it; nothing of this one is there."""
    payload = pickle.dumps((encoder.collate, list(items)))
    module = sys.modules[type(encoder).__module__]
    origin = (module.__name__, getattr(module, "__file__", None))
    try:
        return pickle.loads(_worker().submit(_collate, origin, payload).result())  # noqa: S301
    except BrokenProcessPool as error:
        _worker.cache_clear()
        raise RuntimeError(
            "the worker process died. A script that checks an encoder needs the guard "
            "`if __name__ == '__main__':`, as all scripts that spawn processes do"
        ) from error


@cache
def _worker() -> ProcessPoolExecutor:
    """One spawned process, kept for the next check: it has imported what encoders import."""
    return ProcessPoolExecutor(1, mp_context=get_context("spawn"))


def _collate(origin: tuple[str, str | None], payload: bytes) -> bytes:
    """Runs in the worker."""
    _import(*origin)
    collate, items = pickle.loads(payload)  # noqa: S301  made by collate_in_worker
    return pickle.dumps(collate(items))


def _import(name: str, file: str | None) -> None:
    """Import the encoder's module; one that is known only as a file (the user's own) from there."""
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        if file is None:
            raise
        spec = importlib.util.spec_from_file_location(name, file)
        assert spec and spec.loader
        for end in (i for i, c in enumerate(name) if c == "."):
            sys.modules.setdefault(name[:end], ModuleType(name[:end]))
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)


def heavy(modules: Iterable[str], requires: Iterable[str]) -> list[str]:
    """Those of the modules that listing must not import: heavy ones, and what the spec requires
    (but for other plugins, which are light themselves)."""
    required = {r.partition(".")[0] for r in requires}
    required = {r for r in required if not r.startswith("fusemix")}
    return sorted(set(modules) & (HEAVY | required))
