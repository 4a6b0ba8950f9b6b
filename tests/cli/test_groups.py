"""Groups of options: what users and commands see of them."""

from dataclasses import dataclass
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from fusemix_core.cli import options as o
from fusemix_core.cli.groups import (
    DataOptions,
    EncoderOptions,
    OutputOptions,
    SplitOptions,
    grouped,
)
from fusemix_core.errors import ConfigError


@dataclass(frozen=True)
class Birds:
    """Which birds."""

    count: Annotated[int, typer.Option(help="How many birds.")] = 3
    names: Annotated[list[str] | None, typer.Option("--name", help="Which birds.")] = None


def called(*arguments):
    """What a command with two groups got, or what typer printed."""
    app, got = typer.Typer(), []

    @app.command()
    @grouped
    def command(
        place: Annotated[str, typer.Argument()],
        birds: Birds,
        output: OutputOptions,
        seed: o.Seed = None,
    ) -> None:
        """Count birds."""
        got.append((place, birds, output, seed))

    result = CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": "200"})
    return got[0] if got else result.output


def test_a_command_gets_its_groups_and_its_own_parameters():
    place, birds, output, seed = called("here", "--name", "wren", "--name", "robin", "--json")
    assert (place, birds, output, seed) == (
        "here",
        Birds(3, ["wren", "robin"]),
        OutputOptions(json=True),
        None,
    )
    assert called("here", "--count", 5, "--seed", 1)[1::2] == (Birds(5), 1)


def test_users_see_one_option_per_field_with_its_help():
    shown = called("--help")
    for wanted in ("--count", "How many birds.", "--name", "--dry-run", "--seed", "Count birds."):
        assert wanted in shown
    assert "--birds" not in shown and "--output" not in shown


def test_an_option_given_by_two_groups_is_refused():
    with pytest.raises(TypeError, match="'json' twice"):

        @grouped
        def command(output: OutputOptions, json: o.Json = False) -> None: ...


def test_tables_have_only_what_was_given():
    assert DataOptions().table() == {}
    data = DataOptions(data=["a", "b"], column=["text=alt"], allow_outside=True)
    assert data.table() == {
        "source": ["a", "b"],
        "columns": {"text": "alt"},
        "allow_outside": True,
    }
    assert SplitOptions(test="t.csv", test_fraction=0.0).table() == {
        "test": "t.csv",
        "test_fraction": 0.0,
    }


def test_the_view_of_one_encoder_needs_no_modality():
    assert EncoderOptions(encoder=["text=minilm"], view=["tokens"]).views() == {"text": "tokens"}
    with pytest.raises(ConfigError, match="MODALITY=VALUE"):
        EncoderOptions(encoder=["text=minilm", "image=x"], view=["tokens"]).views()
