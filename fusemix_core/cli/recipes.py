"""`fusemix recipes`: the named methods and their settings."""

from __future__ import annotations

from typing import Annotated

import typer

from fusemix_core.cli.console import out, print_json, print_table
from fusemix_core.config import to_dict
from fusemix_core.registry import registry

app = typer.Typer(no_args_is_help=False, invoke_without_command=True, help="Named recipes.")

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.callback()
def _default(ctx: typer.Context) -> None:
    """List the recipes, or show one.

    Examples:

        fusemix recipes list

        fusemix recipes show fusemix
    """
    if ctx.invoked_subcommand is None:
        list_recipes()


@app.command("list")
def list_recipes(json: Json = False) -> None:
    """All recipes of the installed plugins.

    Example:

        fusemix recipes list --json
    """
    specs = registry.all_components("recipe")
    if json:
        print_json(
            [
                {"name": s.name, "summary": s.summary, "paper": s.paper, "plugin": d}
                for d, s in specs
            ]
        )
        return
    print_table(
        ["name", "summary", "paper", "plugin"], [[s.name, s.summary, s.paper, d] for d, s in specs]
    )


@app.command("show")
def show_recipe(
    name: Annotated[str, typer.Argument(help="A recipe's name.")],
    set_: Annotated[list[str], typer.Option("--set", help="Override KEY=VALUE.")] = [],  # noqa: B006
    json: Json = False,
) -> None:
    """A recipe's complete config, as TOML, with every option of its parts.

    Example:

        fusemix recipes show fusemix-paper --set training.epochs=20
    """
    import tomli_w

    from fusemix_core.flow.settings import PARTS, find_recipe

    values = to_dict(find_recipe(name, set_))
    for kind in (*PARTS, "start"):
        if part := values.get(kind):
            spec = registry.component("aligner" if kind == "start" else kind, part["name"])
            part["options"] = {**spec.options, **part["options"]}
    if json:
        print_json(values)
    else:
        out.file.write(tomli_w.dumps(_without_none(values)))


def _without_none(table: dict) -> dict:
    return {
        k: _without_none(v) if isinstance(v, dict) else v for k, v in table.items() if v is not None
    }
