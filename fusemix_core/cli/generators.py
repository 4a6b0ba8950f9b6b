"""`fusemix generators`: what is installed, and whether it keeps its contract."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from fusemix_core.cli import models as m
from fusemix_core.project import how_to_install
from fusemix_core.registry import registry
from fusemix_core.specs import FamilySpec, GeneratorSpec

app = typer.Typer(no_args_is_help=False, invoke_without_command=True, help="Installed generators.")


@app.callback()
def _default(ctx: typer.Context) -> None:
    """List generators, show one, or check one.

    Examples:

        fusemix generators list

        fusemix generators show emoji

        fusemix generators check ./my_generator.py:MyGenerator
    """
    if ctx.invoked_subcommand is None:
        list_generators()


@app.command("list")
def list_generators(
    pattern: m.Pattern = "",
    here: m.Here = False,
    long: Annotated[bool, typer.Option("--long", help="Plugin and summary too.")] = False,
    json: m.Json = False,
) -> None:
    """All generators and families of the installed plugins: what each makes, and the encoder whose
    latents it draws from.

    Examples:

        fusemix generators list --here

        fusemix generators list --long
    """
    rows = [
        _row(dist, spec) for dist, spec in registry.all_generators() if m.matches(pattern, spec)
    ]
    if here:
        rows = [row for row in rows if row["weights"] == "here"]
    heads = ["name", "makes", "space", "condition", "size", "licence", "weights"]
    heads += ["plugin", "summary"] * long
    none = (
        "No generator is like that. All of them: fusemix generators list"
        if registry.all_generators()
        else f"No generators. Install a plugin: {how_to_install('fusemix-emoji')}"
    )
    m.print_models(rows, heads, long=long, json=json, empty=none)


def _row(dist: str, spec: GeneratorSpec | FamilySpec) -> dict[str, Any]:
    """A generator or a family as `--json` has it."""
    of_family = {"makes": "", "space": "", "condition": "", "dim": None, "size": None}
    of_family |= {"licence": ""}
    facts = {name: getattr(spec, name, None) for name in of_family}
    return m.row_of(dist, spec, facts, of_family)


@app.command("show")
def show_generator(name: m.Name, json: m.Json = False) -> None:
    """All that is known of a generator, without loading it.

    Examples:

        fusemix generators show emoji

        fusemix generators show ./my_generator.py:MyGenerator --json
    """
    m.show_spec(registry.generator(name), json)


@app.command("check")
def check_generator(
    name: m.Name, tiny: m.Tiny = False, device: m.Device = "cpu", json: m.Json = False
) -> None:
    """Load a generator and check that it keeps the contract. Exit 1 if it does not.

    Examples:

        fusemix generators check emoji

        fusemix generators check ./my_generator.py:MyGenerator --json
    """
    spec = registry.generator(name)
    from fusemix_core.testing import generators

    m.show_checks(spec.name, generators.check_generator(spec, tiny=tiny, device=device), json)
