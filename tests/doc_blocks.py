"""The code blocks of a page of the docs, and a shell that runs fusemix in this process."""

from __future__ import annotations

import csv
import os
import re
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import fusemix_starter
from typer.testing import CliRunner

from fusemix_core.cli.app import app
from fusemix_core.cli.plugins_app import add_plugin_commands
from fusemix_core.registry import registry

ROOT = Path(__file__).parents[1]
_BLOCK = re.compile(
    r"^(?:<!-- (?P<mark>[^\n]*) -->\n)?```(?P<language>\w*)\n(?P<code>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)
NOT_RUN = "not run: "
_EPOCHS = re.compile(r"training\.epochs=\d+")
_CHECK = re.compile(r"(encoders check \w+)$", re.MULTILINE)
_THE_SAME = [["fusemix", "encoders"], ["fusemix", "plugins"]]
_shown: set[tuple[str, ...]] = set()


@dataclass(frozen=True)
class Block:
    """A fenced block. `reason`: why it is not run, as the comment above it says; or ""."""

    language: str
    code: str
    line: int
    reason: str = ""


def blocks(page: Path) -> list[Block]:
    """All fenced blocks of a page, in order."""
    text = page.read_text()
    found = []
    for match in _BLOCK.finditer(text):
        mark = match["mark"] or ""
        reason = mark.removeprefix(NOT_RUN) if mark.startswith(NOT_RUN) else ""
        line = text.count("\n", 0, match.start("language")) + 1
        found.append(Block(match["language"], match["code"], line, reason))
    return found


def run_shell(code: str) -> None:
    """Each line of a shell block; `fusemix` in this process, as importing torch takes seconds.

    Fits take two epochs, and a check an encoder's miniature: real weights are checked by
    tests/kit. What shows or checks the same on every page is run for the first."""
    code = _CHECK.sub(r"\1 --tiny", _EPOCHS.sub("training.epochs=2", code))
    for line in code.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if not words or tuple(words) in _shown:
            continue
        if words[:2] in _THE_SAME and "/" not in line:
            _shown.add(tuple(words))
        if words[0] == "fusemix":
            result = CliRunner().invoke(app, words[1:])
            assert result.exit_code == 0, f"{line}\n{result.output}\n{result.exception!r}"
        else:
            done = subprocess.run(
                ["bash", "-e", "-c", line], capture_output=True, text=True, env=os.environ
            )
            assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        if words[:2] == ["fusemix", "sample"]:
            trim(Path("sample/pairs.csv"))


def trim(manifest: Path, most: tuple[int, int, int] = (72, 10, 10)) -> list[dict[str, str]]:
    """Keep so many train, validation and test rows of the sample, from all its books, those that
    pages name, and their images: the tests' time is short."""
    with open(manifest, newline="") as file:
        rows = list(csv.DictReader(file))
    kept = []
    for split, count in zip(("train", "validation", "test"), most, strict=True):
        own = [row for row in rows if row["split"] == split]
        some = own[:: max(len(own) // count, 1)][:count]
        kept += [row for row in own if row in some or row["image"] in named()]
    for name in {row["image"] for row in rows} - {row["image"] for row in kept}:
        (manifest.parent / name).unlink(missing_ok=True)
    write_csv(manifest, kept)
    return kept


@cache
def named() -> set[str]:
    """The images of the sample that pages name."""
    pages = [ROOT / "README.md", *ROOT.glob("docs/**/*.md")]
    return {
        name for page in pages for name in re.findall(r"images/[\w/-]+\.webp", page.read_text())
    }


def write_csv(path: Path, rows: list[dict[str, str]]) -> None:
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def write_user_folder(folder: Path) -> None:
    """What a user has after `fusemix sample`; pages name no other files."""
    shutil.copytree(fusemix_starter.sample_path().parent, folder / "sample")
    trim(folder / "sample/pairs.csv")


add_plugin_commands(app, registry)
