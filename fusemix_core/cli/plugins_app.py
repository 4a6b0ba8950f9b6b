"""The commands that plugins add to the command line."""

from __future__ import annotations

from collections import Counter
from typing import Any
from weakref import WeakKeyDictionary

from fusemix_core.discovery import summary
from fusemix_core.errors import PluginError
from fusemix_core.registry import Registry

_ADDED: WeakKeyDictionary[Any, set[str]] = WeakKeyDictionary()
"""App → the plugins whose commands it has already."""


def add_plugin_commands(app: Any, registry: Registry) -> None:
    """Let every plugin add its commands to the typer app, once; one that fails is noted as
    broken."""
    registry.load()
    added = _ADDED.setdefault(app, set())
    for plugin in registry.plugins:
        if plugin.error or plugin.name in added:
            continue
        commands, groups = len(app.registered_commands), len(app.registered_groups)
        try:
            if hook := getattr(registry.module_of(plugin), "fusemix_commands", None):
                hook(app)
            if taken := [n for n, k in Counter(_command_names(app)).items() if k > 1]:
                raise PluginError(f"There is a command '{taken[0]}' already.")
        except (Exception, SystemExit) as error:
            plugin.error = summary(error)
            del app.registered_commands[commands:], app.registered_groups[groups:]
        else:
            added.add(plugin.name)


def _command_names(app: Any) -> list[str]:
    """Names of a typer app's commands and groups."""
    commands = [c.name or c.callback.__name__.replace("_", "-") for c in app.registered_commands]
    return commands + [group.name for group in app.registered_groups]
