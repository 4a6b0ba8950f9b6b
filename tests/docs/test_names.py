"""README and docs name only what exists, and all that exists."""

import importlib.util
import re
from pathlib import Path

import pytest
from typer.main import get_command

from fusemix_core.cli.app import app
from fusemix_core.cli.plugins_app import add_plugin_commands
from fusemix_core.registry import Registry
from fusemix_core.specs import KINDS

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted(ROOT.glob("plugins/*/README.md")),
    *sorted(ROOT.glob("examples/*/README.md")),
]
OTHER_TOOLS = re.compile(
    r"\b(pip|hf|git|uv|v?llm|torchrun|ct2-transformers-converter) "
    r"|python (-m (benchmarks|fusemix_\w+|http\.server)|train\.py)|^#SBATCH "
)


def options(command):
    for parameter in command.params:
        yield from (*parameter.opts, *parameter.secondary_opts)
    for child in getattr(command, "commands", {}).values():
        yield from options(child)


@pytest.fixture(scope="module")
def registry():
    found = Registry()
    add_plugin_commands(app, found)
    return found


def test_pages_name_only_options_that_exist(registry):
    known = set(options(get_command(app))) | {"--help"}
    for page in PAGES:
        for line in page.read_text().splitlines():
            if OTHER_TOOLS.search(line):
                continue
            for option in re.findall(r"(?<![\w-])--[a-z][a-z-]+", line):
                assert option in known, (page, line)
            assert not re.search(r"--[ab] \w+=", line), (page, line)


def test_every_recipe_is_documented(registry):
    text = (DOCS / "recipes.md").read_text()
    names = [spec.name for _, spec in registry.all_components("recipe")]
    assert names
    for name in names:
        assert f"## `{name}`" in text


def test_every_kind_of_component_is_documented():
    text = (DOCS / "how-to/components.md").read_text().lower()
    for kind in KINDS:
        assert kind in text, kind


def test_generated_pages_are_current(registry, monkeypatch):
    """Run `python docs/generate.py` if this fails."""
    monkeypatch.syspath_prepend(str(DOCS))
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    for file, text in generate.pages(Registry()).items():
        assert (DOCS / "reference" / file).read_text() == text.rstrip("\n") + "\n", file
