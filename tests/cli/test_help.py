"""What `--help` shows on a terminal of 80 columns."""

import inspect
import json
import re

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from fusemix_core.cli import options
from fusemix_core.cli.app import app


def commands(command, name=()):
    children = getattr(command, "commands", {})
    for child, inside in children.items():
        if not inside.hidden:
            yield from commands(inside, (*name, child))
    if name and not children:
        yield name, command


COMMANDS = dict(commands(get_command(app)))


def shown(*command):
    done = CliRunner().invoke(app, [*command, "--help"], env={"COLUMNS": "80"})
    assert done.exit_code == 0
    return done.stdout


def examples(command):
    _, _, text = inspect.cleandoc(command.help).partition("Example")
    return [line.strip() for line in text.splitlines()[1:] if line.strip()]


@pytest.mark.parametrize("name", COMMANDS, ids=" ".join)
def test_examples_can_be_copied(name):
    printed = [line.strip() for line in shown(*name).splitlines()]
    lines = examples(COMMANDS[name])
    assert lines and not [line for line in lines if line not in printed]
    for line, after in zip(lines, [*lines[1:], "fusemix"], strict=True):
        begins = re.match(r"(\w+=\S+ )?fusemix ", f"{after} ")
        assert bool(begins) != line.endswith("\\"), line


def test_the_first_commands_and_what_they_need_come_first():
    text = shown()
    panels = re.findall(r"─ ([A-Z][a-z ]+) ─", text)
    assert panels == ["Options", "Start", "Look and compare", "Prepare and keep", "Extend"]
    assert text.index(" fusemix sample sample") < text.index("─ Options")
    assert examples(COMMANDS["align",])[0].startswith(
        "fusemix align --a efficientnet-lite0 --b minilm "
    )


def test_options_stand_in_panels_in_the_order_of_a_run():
    panels = re.findall(r"─ ([A-Z][a-z]+) ─", shown("align"))
    names = [options.ENCODERS, options.DATA, options.SPLITS, options.METHOD, options.OUTPUT]
    assert panels == ["Options", *names, options.MACHINE]
    own = shown("align").split("─ Encoders")[0]
    assert re.findall(r"│ +(--\w+)", own) == ["--help"]


def test_encoders_are_listed_on_one_line_each():
    done = CliRunner().invoke(app, ["encoders", "list"], env={"COLUMNS": "80"})
    rows = json.loads(CliRunner().invoke(app, ["encoders", "list", "--json"]).stdout)
    lines = done.stdout.splitlines()
    assert len(lines) == len(rows) + 1 and max(map(len, (x.rstrip() for x in lines))) <= 80
    assert [line.split()[0] for line in lines[1:]] == [row["name"] for row in rows]


def test_encoders_that_are_here_can_be_listed():
    done = CliRunner().invoke(app, ["encoders", "list", "text", "--here", "--json"])
    assert {row["weights"] for row in json.loads(done.stdout)} <= {"here"}
