"""A command is not always a program on a UTF-8 terminal of a user with a home."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import started
from pairs import write_world

TOYS = str(Path(__file__).parents[1] / "toys.py")

SHOW = """
import sys
from fusemix_core.cli import main
from fusemix_core.cli import console
from fusemix_core.cli.app import app
from fusemix_core.errors import DataError

@app.command()
def show(json: bool = False, fail: bool = False):
    if fail:
        raise DataError("中文 é 🙂 — …", "Hint: 中文")
    if json:
        console.print_json({"中文": "é 🙂 \\ud800 \\\\ud800 \\n"})
    else:
        console.print_table(["中文"], [["é 🙂 …"], [None]])

for words in (["--json"], [], ["--fail"]):
    sys.argv = ["fusemix", "show", *words]
    try:
        main()
    except SystemExit as end:
        print("=====", end.code or 0, flush=True)
"""
VALUE = {"中文": "é 🙂 \ud800 \\ud800 \n"}
LIKE_OTHERS = [pytest.param(e, marks=pytest.mark.long) for e in ("latin-1", "cp932", "utf-8")]
ENCODINGS = ["cp1252", "ascii", "utf-16", *LIKE_OTHERS]


def run(code, *arguments, **environment):
    environment = {**os.environ, **environment}
    environment = {k: v for k, v in environment.items() if v is not None}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, env=environment, check=False
    )


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_json_parses_and_texts_are_shown_whatever_the_streams_encoding(encoding):
    done = run(SHOW, PYTHONIOENCODING=encoding)
    printed, told = (stream.decode(encoding) for stream in (done.stdout, done.stderr))
    as_json, table, failed, rest = re.split(r"===== \d\r?\n", printed)
    assert re.findall(r"===== (\d)", printed) == ["0", "0", "2"] and not failed + rest, told
    assert json.loads(as_json) == VALUE
    assert "中文" in table or "\\u4e2d\\u6587" in table
    assert "Error: " in told and "Hint: " in told
    assert "é" in told or "\\xe9" in told


def test_commands_run_without_a_stdout():
    code = (
        "import sys, os\nos.close(1)\nsys.stdout = None\nfrom fusemix_core.cli import main\nmain()"
    )
    done = run(code, "plugins")
    assert b"Traceback" not in done.stderr, done.stderr


NO_HOME = """
import os, pwd

def nobody(uid):
    raise KeyError(f"getpwuid(): uid not found: {uid}")

pwd.getpwuid = nobody
os.environ.pop("HOME", None)
os.environ.pop("FUSEMIX_HOME", None)
from fusemix_core.cli import main
main()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="users have no number there")
@pytest.mark.parametrize(
    "command",
    [
        "encode -e text=TOYS:ToyText --data pairs.csv --dry-run",
        "align --a TOYS:ToyImage --b TOYS:ToyText --data pairs.csv --dry-run",
        "rank --a TOYS:ToyImage --b TOYS:ToyText --data pairs.csv",
        "select --a TOYS:ToyImage --b TOYS:ToyText --data pairs.csv --pairs 5 --out some.csv",
        "cache list",
    ],
)
def test_without_a_home_the_error_names_the_variable(command, tmp_path, monkeypatch):
    write_world(tmp_path, count=20)
    monkeypatch.chdir(tmp_path)
    done = started.run("-c", NO_HOME, *command.replace("TOYS", TOYS).split())
    assert done.returncode == 2, done.stderr
    assert "Set FUSEMIX_HOME" in done.stderr and "fault" not in done.stderr


IN_IMPORTS = """
import builtins, sys
real = builtins.__import__

def interrupted(name, *args, **kwargs):
    if name == sys.argv[1]:
        raise KeyboardInterrupt
    return real(name, *args, **kwargs)

from fusemix_core.cli import main
module = sys.argv[1]
builtins.__import__ = interrupted
main()
"""


@pytest.mark.parametrize(
    "module",
    [
        *("fusemix_core.cli.console", "typer"),
        pytest.param("fusemix_core.cli.app", marks=pytest.mark.long),
        pytest.param("fusemix_core.registry", marks=pytest.mark.long),
    ],
)
def test_ctrl_c_while_modules_are_loaded_is_130_without_a_traceback(module):
    done = run(IN_IMPORTS, module)
    assert done.returncode == 130 and b"Traceback" not in done.stderr, done.stderr


def test_ctrl_c_at_any_moment_of_a_start_is_130_without_a_traceback():
    for wait in (0.15, 0.3, 0.6):
        process = subprocess.Popen(
            [sys.executable, "-c", "from fusemix_core.cli import main\nprint(flush=True)\nmain()"]
            + ["encoders", "list"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        process.stdout.readline()
        time.sleep(wait)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        # At its very end Python has put the default handler back: the signal kills, and a shell
        # says 130 of that too.
        assert process.returncode in (0, 130, -signal.SIGINT) and b"Traceback" not in err, err
