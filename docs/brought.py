"""Which plugin of this repository brings which name, for the hint where it isn't installed."""

from __future__ import annotations

import json
import re
import tomllib
from collections import defaultdict
from pathlib import Path

from typer.main import get_command

from fusemix_core.cli.app import app
from fusemix_core.cli.plugins_app import add_plugin_commands
from fusemix_core.registry import Registry
from fusemix_core.specs import FamilySpec

PLUGINS = Path(__file__).parents[1] / "plugins"


def brought(registry: Registry) -> str:
    """fusemix_core/brought.json: what names each plugin brings, by kind, and which plugins of this
    repository it requires. A name that two plugins bring is of the first."""
    ours = {folder.name for folder in PLUGINS.iterdir() if (folder / "pyproject.toml").exists()}
    names: dict[str, dict[str, str]] = defaultdict(dict)
    for dist, kind, name in [*specs(registry), *commands(registry)]:
        if dist in ours:
            names[kind].setdefault(name.lower(), dist)
    found = {
        "names": {kind: dict(sorted(of_kind.items())) for kind, of_kind in sorted(names.items())},
        "requires": {dist: needed for dist in sorted(ours) if (needed := requires(dist, ours))},
    }
    return json.dumps(found, indent=1)


def specs(registry: Registry) -> list[tuple[str, str, str]]:
    """(distribution, kind, name) of everything that plugins declare, other names included."""
    rows = [
        (dist, kind, spec)
        for kind, of_kind in (
            ("encoder", registry.all_encoders()),
            ("generator", registry.all_generators()),
        )
        for dist, spec in of_kind
    ]
    found = []
    for dist, kind, spec in rows:
        if isinstance(spec, FamilySpec):
            found.append((dist, f"{kind} family", f"{spec.prefix}:"))
        else:
            found += [(dist, kind, name) for name in (spec.name, *getattr(spec, "aliases", ()))]
    for dist, part in registry.all_components():
        found += [(dist, part.kind, name) for name in (part.name, *part.aliases)]
    return sorted(found)


def commands(registry: Registry) -> list[tuple[str, str, str]]:
    """(distribution, `command`, name) of the commands and groups that plugins add."""
    add_plugin_commands(app, registry)
    dists = {plugin.module.split(".")[0].split(":")[0]: plugin.dist for plugin in registry.plugins}
    found = []
    for name, command in get_command(app).commands.items():
        while hasattr(command, "commands"):
            command = next(iter(command.commands.values()))
        found.append((dists[command.callback.__module__.split(".")[0]], "command", name))
    return found


def requires(dist: str, ours: set[str]) -> list[str]:
    """The plugins of this repository that one needs."""
    project = tomllib.loads((PLUGINS / dist / "pyproject.toml").read_text())["project"]
    return [r for r in project["dependencies"] if re.split(r"[\[<>=~! ;]", r)[0] in ours]
