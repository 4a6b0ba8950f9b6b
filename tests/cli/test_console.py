"""What data and plugins say is shown as it is: no markup in it, and nothing a terminal obeys."""

import io
import json

import pytest
from rich.text import Text

from fusemix_core.cli import console

HOSTILE = "[/red] [bold]a\x1b[2Jb\x9bc \ud800 :smile:"
SHOWN = "[/red] [bold]a\ufffd[2Jb\ufffdc \ufffd :smile:"


@pytest.fixture
def printed(monkeypatch):
    sink = io.StringIO()
    for one in (console.out, console.err):
        monkeypatch.setattr(one, "_file", sink)  # `file` is a property
    return sink.getvalue


def test_commands_in_a_row_print_a_note_once(printed):
    with console.notes_once():
        for _ in range(3):
            notes = console.Notes()
            notes("as before")
            assert notes.texts == ["as before"]
    assert printed().count("as before") == 1
    console.Notes()("as before")
    assert printed().count("as before") == 2


def test_texts_are_shown_not_obeyed(printed):
    console.print_error(HOSTILE, HOSTILE)
    console.out.print(HOSTILE, soft_wrap=True)
    console.out.print(Text(HOSTILE, style="bold"), soft_wrap=True)
    console.print_table(["[/x]"], [[HOSTILE]], title="[/title]")
    assert printed().count(SHOWN) == 5 and "[/x]" in printed() and "[/title]" in printed()
    assert not set("\x1b\x9b") & set(printed())


def test_json_can_be_written_whatever_it_holds(printed):
    console.print_json({"a": HOSTILE})
    assert json.loads(printed().encode()) == {"a": HOSTILE}
