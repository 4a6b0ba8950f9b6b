"""Imports Python files that the user names: `./file.py:Name` and `--plugin ./file.py`."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

from fusemix_core.errors import ConfigError, PluginError, short

PREFIX = "fusemix_user_"
"""How the names of modules begin that `import_file` makes of files."""


def in_file(name: str) -> bool:
    """Whether a name is of the form `./file.py:Name`."""
    return name.partition(":")[0].endswith(".py")


def named_in_file(name: str, example: str) -> tuple[ModuleType, str]:
    """(module, attribute) of `./file.py:attribute`."""
    file, _, attribute = name.rpartition(":")
    if not file or "/" in attribute:
        raise ConfigError(f"'{name}' names nothing in a file.", f"Example: {example}")
    return import_file(Path(file)), attribute


def import_file(path: Path) -> ModuleType:
    """The module in a Python file that the user named, imported once."""
    if not os.path.isfile(path):
        raise ConfigError(f"{short(path)} does not exist.", "Example: ./my_encoder.py:MyEncoder")
    path = path.resolve()
    name = f"{PREFIX}{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise PluginError(f"{path} can't be imported: {type(error).__name__}: {error}") from error
    return module


def imported_files() -> list[Path]:
    """The files that `import_file` has imported here, in that order."""
    return [Path(str(m.__file__)) for name, m in [*sys.modules.items()] if name.startswith(PREFIX)]
