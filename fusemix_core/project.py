"""Where fusemix is to be had: the one place that says so, for hints, cards and pages. Standard
library only.

The address of the repository is `Repository` below `[project.urls]` in pyproject.toml. Until
`PUBLISHED` is true, nothing tells a user to install `fusemix…` by name: whoever owned that name on
PyPI would run code on the reader's machine.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, metadata, requires
from pathlib import Path
from typing import Any

PUBLISHED = False
"""Whether the names of fusemix and of its plugins are on PyPI, and ours."""

_RELEASED = Path(__file__).with_name("released.txt")
"""The plugins of this repository, one a line; others' packages may begin with `fusemix-` too."""

_BROUGHT = Path(__file__).with_name("brought.json")
"""What names the plugins of this repository bring, and which of these they need; made by
docs/generate.py."""

_NAME = re.compile(
    r"(?P<dist>(?:llm-)?fusemix(?:-[a-z0-9-]+)?)(?:\[(?P<extras>[a-z0-9,-]+)\])?(?P<rest>.*)"
)
_EXTRA = re.compile(r"extra\s*==\s*['\"]([\w-]+)['\"]")


@cache
def repository() -> str:
    """The address of the source, or "" if pyproject.toml names none."""
    try:
        urls = metadata("fusemix").get_all("Project-URL") or []
    except PackageNotFoundError:
        return ""
    named = dict(url.split(", ", 1) for url in urls)
    return named.get("Repository", "")


def install(*requirements: str) -> str:
    """The command that installs these requirements.

    Args:
        requirements: as pip takes them; `fusemix`, its extras and its plugins among them. One that
            begins with `--no-deps` has requirements of its own that pip can't or need not meet.

    Returns:
        A line for a shell. Our own packages come from the repository while they are not on PyPI:
        from its address if that is known, otherwise from the folder of a clone. An extra of
        fusemix is replaced by the packages that it stands for.

    Example:

        >>> install("timm>=1.0.20")
        "pip install 'timm>=1.0.20'"
    """
    wanted = list(requirements) if PUBLISHED else _with_plugins(requirements)
    found = list(dict.fromkeys(part for one in wanted for part in _parts(one)))
    return f"pip install {' '.join(_quoted(part) for part in found)}"


def how_to_install(*requirements: str) -> str:
    """`install`, and where to run it if that matters."""
    line = install(*requirements)
    return f"{line} (in a clone of fusemix)" if re.search(r" '?\.[/\['\s]| \.$", line) else line


def plugin_of(kind: str, name: str) -> str:
    """The plugin of this repository that brings a name and isn't installed.

    Args:
        kind: `encoder`, `encoder family`, a kind of component, `command`, ….
        name: what was not found; of a family with its colon.

    Returns:
        The name of the distribution, "" if there is none or if it is installed.
    """
    dist = _brought()["names"].get(kind, {}).get(name.lower(), "")
    return "" if _is_installed(dist) else dist


def upgrade() -> str:
    """The command that brings the newest fusemix."""
    if PUBLISHED or repository():
        return install("fusemix").replace("install", "install --upgrade", 1)
    return "git pull && pip install . (in a clone of fusemix)"


def _own(requirement: str) -> re.Match[str] | None:
    """The parts of a requirement of fusemix or of a plugin of its repository; None of any other."""
    named = _NAME.fullmatch(requirement)
    return named if named and named["dist"] in {"fusemix", *_plugins()} else None


@cache
def _plugins() -> frozenset[str]:
    return frozenset(_RELEASED.read_text(encoding="utf-8").split())


@cache
def _brought() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(_BROUGHT.read_text(encoding="utf-8"))
    return found


def _is_installed(dist: str) -> bool:
    try:
        return bool(metadata(dist))
    except (PackageNotFoundError, ValueError):  # the latter for ""
        return False


def _with_plugins(requirements: Sequence[str]) -> list[str]:
    """The requirements, and the plugins of ours that installed ones among them need: pip would
    look for these on PyPI."""
    found = dict.fromkeys(requirements)
    queue = list(requirements)
    while queue:
        named = _own(queue.pop())
        if not named or named["dist"] == "fusemix":
            continue
        for line in _requires_of(named["dist"]):
            other = _own(line.split(";")[0].strip())
            if other and "extra" not in line and other["dist"] not in {"fusemix", *found}:
                found[other["dist"]] = None
                queue.append(other["dist"])
    return list(found)


def _parts(requirement: str) -> list[str]:
    """What pip is given for one requirement."""
    named = _own(requirement)
    if PUBLISHED or not named:
        return [requirement]
    dist, extras = named["dist"], named["extras"]
    if dist == "fusemix" and extras:
        wanted = set(extras.split(","))
        found = [
            line.split(";")[0].strip()
            for line in _requires_of(dist)
            if (extra := _EXTRA.search(line)) and extra[1] in wanted
        ]
        if found:
            return found
    folder = "" if dist == "fusemix" else f"plugins/{dist}"
    brackets = f"[{extras}]" if extras else ""
    if not repository():
        return [f"./{folder}{brackets}" if folder else f".{brackets}"]
    inner = f"#subdirectory={folder}" if folder else ""
    return [f"{dist}{brackets} @ git+{repository()}{inner}"]


def _requires_of(dist: str) -> list[str]:
    try:
        return requires(dist) or []
    except PackageNotFoundError:
        return list(_brought()["requires"].get(dist, ()))


def _quoted(part: str) -> str:
    if part.startswith("--no-deps "):
        return f"--no-deps {_quoted(part.removeprefix('--no-deps '))}"
    return part if re.fullmatch(r"[\w./-]+", part) else f"'{part}'"
