"""What a process may use of its machine: cores, memory, disk."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


def cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cpu_quota(groups: Path = Path("/sys/fs/cgroup")) -> float | None:
    """Cores that the process's control groups (version 1 and 2) allow at once, None for any."""
    allowed = []
    for folder in _own_groups(groups):
        with contextlib.suppress(OSError, ValueError):  # "max" is not a number
            quota, period = (folder / "cpu.max").read_text().split()
            allowed.append(int(quota) / int(period))
        with contextlib.suppress(OSError, ValueError):
            quota = int((folder / "cpu.cfs_quota_us").read_text())
            period = int((folder / "cpu.cfs_period_us").read_text())
            allowed += [quota / period] if quota > 0 else []
    return min(allowed, default=None)


def _own_groups(groups: Path) -> Iterator[Path]:
    """The folders of this process's groups that may limit its cores."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, own = line.split(":", 2)
            if not controllers or "cpu" in controllers.split(","):
                root = groups / controllers
                yield root / own.lstrip("/")
                yield root  # inside a container its own group is the root


def memory_total() -> int | None:
    """Bytes of main memory, if the system says."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None


@dataclass(frozen=True)
class Usage:
    """The size of a folder. Not `whole`: counting took too long, and there is more."""

    files: int
    bytes: int
    whole: bool


def usage(folder: Path, seconds: float = 0.5) -> Usage:
    """How many files are below a folder and what they take, counted for so long at most."""
    files = size = 0
    end = time.monotonic() + seconds
    waiting = [folder]
    while waiting:
        with contextlib.suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(Path(entry.path))
                    else:
                        files, size = files + 1, size + entry.stat().st_size
                if time.monotonic() > end:
                    return Usage(files, size, whole=False)
    return Usage(files, size, whole=True)


def there(path: Path) -> Path:
    """The path, or the nearest folder above it that exists."""
    return next(p for p in (path, *path.parents) if p.exists())


def disk_free(path: Path) -> int:
    """Bytes that are free where a path is or would be."""
    return shutil.disk_usage(there(path)).free
