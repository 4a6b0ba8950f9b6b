"""README and docs name only what exists."""

import re
from pathlib import Path

import pytest
from typer.main import get_command

from fusemix_core.cli.app import app
from fusemix_core.registry import Registry

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def options(command):
    for parameter in command.params:
        yield from parameter.opts
    for child in getattr(command, "commands", {}).values():
        yield from options(child)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_pages_name_only_options_that_exist(page):
    command = get_command(app)
    known = set(options(command)) | {"--help"}
    for line in page.read_text().splitlines():
        if "benchmarks/recipes.py" in line:
            continue
        for option in re.findall(r"(?<![\w-])--[a-z][a-z-]+", line):
            assert option in known, (page.name, option)


def test_every_recipe_is_documented():
    text = (ROOT / "docs/recipes.md").read_text()
    registry = Registry()
    core = [s.name for d, s in registry.all_components("recipe") if d == "fusemix"]
    assert core
    for name in core:
        assert f"## `{name}`" in text
