"""Commands that are refused before torch is imported: all in one process that starts without it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

_CODE = """
import json, sys
from typer.testing import CliRunner
from fusemix_core.cli.app import app
heavy, commands = json.loads(sys.argv[1])
for words in commands:
    done = CliRunner().invoke(app, words)
    found = sorted(set(heavy) & set(sys.modules))
    print(json.dumps([done.exit_code, done.output, found]), file=sys.__stdout__)
"""


@dataclass(frozen=True)
class Refused:
    """What became of a command; `imported` are the heavy modules that it or one before it took."""

    code: int
    output: str
    imported: list[str]

    def check(self, said: str) -> None:
        """It was refused with these words before torch was imported."""
        assert self.code == 2, self
        assert said in " ".join(self.output.split())
        assert not self.imported


def refused(
    command: Sequence[object], options: Sequence[Sequence[str]]
) -> dict[tuple[str, ...], Refused]:
    """The command with each of the options, in one process."""
    words = [str(word) for word in command]
    asked = json.dumps([["torch"], [[*words, *more] for more in options]])
    done = subprocess.run([sys.executable, "-c", _CODE, asked], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = [Refused(*json.loads(line)) for line in done.stdout.splitlines()]
    return dict(zip(map(tuple, options), found, strict=True))
