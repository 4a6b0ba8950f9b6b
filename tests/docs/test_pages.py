"""Every code block of README and the docs runs, in the order of its page."""

import json
import re
import shutil
import tomllib
from pathlib import Path

import pytest
from doc_blocks import blocks, run_shell
from loaded import share_encoders
from shortened import narrow

from fusemix_core.latents import exported
from fusemix_core.reports import figures

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SHOWN = {"text", "html"}
SOON = {"docs/tutorial.md", "docs/how-to/plugin.md"}
"""What a newcomer reads first. The others are among the slow tests."""


def name(page):
    return page.relative_to(ROOT).as_posix()


def to_run(page):
    return [b for b in blocks(page) if b.language not in SHOWN and not b.reason]


def marked(page):
    return pytest.param(page, marks=[pytest.mark.slow] * (name(page) not in SOON), id=name(page))


@pytest.mark.parametrize("page", [marked(page) for page in PAGES if to_run(page)])
def test_blocks_run(page, user_folder, tmp_path, monkeypatch):
    """README with the whole encoders and with figures; all other pages share latents of few layers.

    Each command is a process of its own to a user; here they share the encoders."""
    todo = to_run(page)
    share_encoders(monkeypatch, shallow=page.name != "README.md")
    if page.name == "README.md":
        monkeypatch.setenv("FUSEMIX_HOME", str(tmp_path / "home"))
    else:
        narrow(monkeypatch)
        monkeypatch.setattr(figures, "_svg", lambda *_, **__: "<svg></svg>")
    if not any("fusemix sample" in block.code for block in todo):
        shutil.copytree(user_folder, tmp_path, dirs_exist_ok=True)
    # The starter's tests export these encoders and run the graphs; one takes ten seconds to make.
    monkeypatch.setattr(exported, "exported", lambda *_: b"a graph")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    names = {"__name__": "page"}
    for block in todo:
        if block.language == "sh":
            run_shell(block.code)
        elif block.language == "python":
            if named := re.match(r"# (\w+\.py)\n", block.code):  # a file, as its first line says
                (tmp_path / named[1]).write_text(block.code)
            source = "\n" * block.line + block.code  # so that a traceback names the page's line
            exec(compile(source, name(page), "exec"), names)  # noqa: S102  our own pages
        elif block.language == "toml":
            tomllib.loads(block.code)
        elif block.language == "json":
            json.loads(block.code)
        else:
            raise AssertionError(f"{name(page)}:{block.line}: a block in '{block.language}'")


def test_what_is_not_run_says_why():
    for page in PAGES:
        for block in blocks(page):
            assert block.language, f"{name(page)}:{block.line}: a block without a language"
        assert "<!-- not run -->" not in page.read_text(), page
