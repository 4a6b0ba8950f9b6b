"""The machine: its parts, what is missing or slow on it, and what to do: `fusemix doctor`."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch

from fusemix_core.data.media.extras import EXTRAS
from fusemix_core.devices import resolve_device
from fusemix_core.discovery import summary
from fusemix_core.errors import FusemixError
from fusemix_core.latents import exported
from fusemix_core.latents.remote import VARIABLE, store_at
from fusemix_core.latents.store import LatentStore
from fusemix_core.project import how_to_install
from fusemix_core.registry import registry
from fusemix_core.runs.encode import memory_free
from fusemix_core.runs.machine import cores, cpu_quota, disk_free, memory_total, there, usage
from fusemix_core.specs import EncoderSpec
from fusemix_core.versions import installed_version, version

State = Literal["ok", "note", "warning", "error"]

LITTLE_DISK = 5 * 10**9
"""Bytes: less free disk than this is a warning."""
LITTLE_MEMORY = 2 * 10**9
TURING, AMPERE = (7, 5), (8, 0)
"""Compute capabilities with fast float16, and with bfloat16 and TF32."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        topic: such as `device` or `store`.
        state: `ok`; `note`, something that may be of use; `warning`, something slow or soon in the
            way; `error`, something broken.
        text: the finding.
        advice: What to do, if anything.
        facts: The same as plain data.
    """

    topic: str
    text: str
    state: State = "ok"
    advice: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """All of it as JSON can hold it."""
        return asdict(self)


def examine() -> list[Finding]:
    """Look at the machine and the installation. Nothing is changed, loaded or downloaded.

    Returns:
        One finding or more per topic. A check that fails is a finding itself.

    Example:

        for finding in examine():
            print(finding.topic, finding.state, finding.text, finding.advice)
    """
    found = []
    for topic, check in CHECKS.items():
        try:
            found += check()
        except Exception as error:  # a doctor must not fall ill
            found.append(Finding(topic, f"This could not be examined: {summary(error)}", "error"))
    return found


# -- what is installed -----------------------------------------------------------------------------


def _versions() -> Iterator[Finding]:
    built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built for the CPU"
    facts = {
        "fusemix": version(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "system": platform.platform(),
    }
    text = f"fusemix {version()}, Python {facts['python']}, torch {torch.__version__} ({built})"
    yield Finding("versions", text, facts=facts)
    if os.environ.get("HF_HUB_OFFLINE") in ("1", "ON", "YES", "TRUE"):
        yield Finding(
            "versions",
            "HF_HUB_OFFLINE is set: models of a hub must have been downloaded before.",
            "note",
            "Unset HF_HUB_OFFLINE to download models.",
        )


def _plugins() -> Iterator[Finding]:
    registry.load()
    good = [p for p in registry.plugins if not p.error]
    names = sorted({p.dist for p in good})
    only = os.environ.get("FUSEMIX_PLUGINS", "")
    restricted = f"; FUSEMIX_PLUGINS lets in {only}" if only else ""
    text = f"{len(good)} loaded{restricted}"
    yield Finding("plugins", text, facts={"loaded": names, "restricted": only})
    for broken in registry.plugins:
        if broken.error:
            yield Finding(
                "plugins",
                f"{broken.dist} {broken.version} failed to load: {broken.error}",
                "error",
                f"Install it again, or remove it: pip uninstall {broken.dist}",
                {"plugin": broken.dist, "error": broken.error},
            )
    yield from _lacking()


def _lacking() -> Iterator[Finding]:
    """Encoders that need packages which are not installed, by package."""
    needed: dict[str, list[str]] = {}
    for _, spec in registry.all_encoders():
        if isinstance(spec, EncoderSpec):
            for module, requirement in spec.requires.items():
                if not _there(module):
                    needed.setdefault(requirement, []).append(spec.name)
    for requirement, names in sorted(needed.items()):
        shown = ", ".join(names[:4]) + (", …" if len(names) > 4 else "")
        yield Finding(
            "plugins",
            f"{requirement} is not installed, which {len(names)} encoders need: {shown}",
            "note",
            f"To use {names[0]}: {how_to_install(requirement)}",
            {"requirement": requirement, "encoders": names},
        )


def _there(module: str) -> bool:
    return find_spec(module.partition(".")[0]) is not None


# -- the machine -----------------------------------------------------------------------------------


def _device() -> Iterator[Finding]:
    device = resolve_device("auto")
    if device.type == "cuda":
        for number in range(torch.cuda.device_count()):
            yield _gpu(number)
        return
    text = "Apple GPU (mps)" if device.type == "mps" else f"{device.type.upper()} only"
    yield Finding("device", text, facts={"auto": device.type})
    if device.type == "cpu" and _has_driver():
        yield Finding(
            "device",
            "This machine has an NVIDIA driver, but torch finds no GPU.",
            "warning",
            _why_no_gpu(),
        )


def _gpu(number: int) -> Finding:
    properties = torch.cuda.get_device_properties(number)
    free, total = torch.cuda.mem_get_info(number)
    facts = {
        "index": number,
        "name": properties.name,
        "capability": [properties.major, properties.minor],
        "memory": total,
        "free": free,
    }
    text = f"cuda:{number}: {properties.name}, {_gb(free)} of {_gb(total)} free"
    if free < total / 2:
        advice = "See who uses it (nvidia-smi), or choose another: --device cuda:1"
        return Finding("device", f"{text}: another process uses it.", "warning", advice, facts)
    return Finding("device", text, facts=facts)


def _has_driver() -> bool:
    return Path("/proc/driver/nvidia/version").exists() or bool(shutil.which("nvidia-smi"))


def _why_no_gpu() -> str:
    if torch.version.cuda is None:
        return "This torch was built for the CPU. Install one for CUDA: pytorch.org/get-started"
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return f"CUDA_VISIBLE_DEVICES is '{visible}'; unset it to see all GPUs."
    return f"Update the driver to one for CUDA {torch.version.cuda}, or install an older torch."


def _precision() -> Iterator[Finding]:
    device = resolve_device("auto")
    if device.type != "cuda":
        yield Finding("precision", "float32", facts={"half": False})
        return
    capability = torch.cuda.get_device_capability()
    if capability >= AMPERE:
        text = "half precision and TF32 are fast on this GPU"
        yield Finding("precision", text, facts={"half": True, "tf32": True})
    elif capability >= TURING:
        text = "float16 is fast on this GPU; it has no bfloat16 and no TF32"
        yield Finding("precision", text, facts={"half": True, "tf32": False})
    else:
        text = "This GPU computes in float32; half precision is not faster on it."
        advice = "A GPU of compute capability 7.5 or more is several times faster."
        yield Finding("precision", text, "warning", advice, {"half": False, "tf32": False})


def _threads() -> Iterator[Finding]:
    found, quota, threads = cores(), cpu_quota(), torch.get_num_threads()
    capability = torch.backends.cpu.get_cpu_capability()
    facts = {"cores": found, "quota": quota, "torch": threads, "capability": capability}
    allowed = min(found, quota or found)
    count = "1 thread" if threads == 1 else f"{threads} threads"
    text = f"torch computes in {count}; {found} cores, {capability}"
    if threads > max(1, round(allowed)):
        yield Finding(
            "threads",
            f"{text}; this process may use {allowed:g} of the cores.",
            "warning",
            f"Threads that wait for each other cost time: OMP_NUM_THREADS={max(1, round(allowed))}",
            facts,
        )
    elif threads <= allowed // 2:
        set_to = os.environ.get("OMP_NUM_THREADS")
        yield Finding(
            "threads",
            f"{text}: half of the cores or more stay idle.",
            "warning",
            f"Unset OMP_NUM_THREADS (now {set_to})." if set_to else f"OMP_NUM_THREADS={found}",
            facts,
        )
    else:
        yield Finding("threads", text, facts=facts)
    if capability in ("DEFAULT", "NO AVX"):
        yield Finding(
            "threads",
            "torch uses no wide vector instructions on this processor: products are slow.",
            "warning",
            "Use a machine with AVX2 or newer, or a GPU.",
        )


def _memory() -> Iterator[Finding]:
    free, total = memory_free(), memory_total()
    of = f" of {_gb(total)}" if total else ""
    held = _gb(free // 4)
    text = f"{_gb(free)}{of} free; latents of up to {held} are held in memory, more are mapped"
    facts = {"free": free, "total": total}
    if free < LITTLE_MEMORY:
        advice = "Close other programs, or use smaller batches: --encode-batch 8"
        yield Finding("memory", text, "warning", advice, facts)
    else:
        yield Finding("memory", text, facts=facts)


def _store() -> Iterator[Finding]:
    folder = LatentStore().folder
    found, free = usage(folder), disk_free(folder)
    least = "" if found.whole else "at least "
    text = f"{folder}: {least}{_gb(found.bytes)} in {found.files:,} files; {_gb(free)} of disk free"
    facts = {"folder": str(folder), "free": free} | asdict(found)
    if not os.access(there(folder), os.W_OK):
        advice = "Set FUSEMIX_HOME to a folder that you may write."
        yield Finding("store", f"{text}; it can't be written.", "error", advice, facts)
    elif free < LITTLE_DISK:
        advice = "Delete what is not used (fusemix cache prune), or set FUSEMIX_HOME elsewhere."
        yield Finding("store", text, "warning", advice, facts)
    else:
        yield Finding("store", text, facts=facts)
    if os.environ.get(VARIABLE):
        yield _object_store()


def _object_store() -> Finding:
    """The object store of the environment; it is not asked anything."""
    try:
        store = store_at()
    except FusemixError as error:
        return Finding("store", f"{VARIABLE}: {error.message}", "error", error.hint)
    found = usage(store.folder)
    least = "" if found.whole else "at least "
    text = f"{store.place} ({VARIABLE}); {least}{_gb(found.bytes)} of it cached in {store.folder}"
    return Finding("store", text, facts={"url": store.place, "cached": found.bytes})


# -- what reads and runs ---------------------------------------------------------------------------


def _decoders() -> Iterator[Finding]:
    from PIL import features

    turbo = bool(features.check_feature("libjpeg_turbo"))
    read = {e.name: e.installed for e in EXTRAS}
    facts = {"pillow": installed_version("pillow"), "libjpeg_turbo": turbo, **read}
    more = ", ".join(name for name, there in read.items() if there) or "none"
    text = f"Pillow {facts['pillow']}, soundfile {installed_version('soundfile')}; extras: {more}"
    yield Finding("decoders", text, facts=facts)
    if not turbo:
        yield Finding(
            "decoders",
            "Pillow was built without libjpeg-turbo: JPEG files are decoded slowly.",
            "warning",
            "Install the wheel of Pillow: pip install --force-reinstall --only-binary :all: pillow",
        )
    for extra in EXTRAS:
        if not extra.installed:
            yield Finding(
                "decoders",
                f"Files that end in {', '.join(extra.suffixes)} can't be read.",
                "note",
                f"To read {extra.suffixes[0]}: {how_to_install(extra.requirement)}",
            )


def _runtimes() -> Iterator[Finding]:
    if resolve_device("auto").type == "cuda":
        triton = _there("triton")
        text = "Triton is installed" if triton else "Triton is not installed"
        yield Finding(
            "runtimes",
            text,
            "ok" if triton else "warning",
            "" if triton else "Training is not compiled without it: pip install triton",
            {"triton": triton},
        )
        return
    package = exported.missing()
    if package is None:
        text = f"OpenVINO {installed_version('openvino')} runs encoders if it is faster"
        yield Finding("runtimes", text, facts={"openvino": True})
        return
    yield Finding(
        "runtimes",
        f"Encoders are run by torch: {package} is not installed.",
        "warning",
        f"OpenVINO may be faster on this CPU: {how_to_install(exported.EXTRA)}",
        {"openvino": False},
    )


def _gb(count: int) -> str:
    return f"{count / 1e9:.3g} GB"


CHECKS: dict[str, Callable[[], Iterator[Finding]]] = {
    "versions": _versions,
    "device": _device,
    "precision": _precision,
    "threads": _threads,
    "memory": _memory,
    "store": _store,
    "decoders": _decoders,
    "plugins": _plugins,
    "runtimes": _runtimes,
}
