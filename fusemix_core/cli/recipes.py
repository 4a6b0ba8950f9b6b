"""`fusemix recipes`: the named methods and their settings."""

from __future__ import annotations

from typing import Annotated

import typer

from fusemix_core.cli.console import out, print_json, print_table
from fusemix_core.config import to_dict
from fusemix_core.errors import UnknownNameError
from fusemix_core.registry import registry
from fusemix_core.specs import KINDS

app = typer.Typer(no_args_is_help=False, invoke_without_command=True, help="Named recipes.")

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.callback()
def _default(ctx: typer.Context) -> None:
    """List the recipes, show one, or list what they are made of.

    Examples:

        fusemix recipes list

        fusemix recipes show auto
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


@app.command("components")
def list_components(
    kind: Annotated[str | None, typer.Option(help="Only adapters: --kind adapter.")] = None,
    json: Json = False,
) -> None:
    """What recipes are made of, with options and defaults, as for --set.

    Example:

        fusemix recipes components --kind objective
    """
    if kind not in (None, *KINDS):
        raise UnknownNameError.of("kind of component", kind, KINDS)
    rows = [
        {"kind": s.kind, "name": s.name, "options": dict(s.options), "summary": s.summary,
         "plugin": d}
        for d, s in registry.all_components(kind)
    ]  # fmt: skip
    if json:
        print_json(rows)
        return
    print_table(
        ["kind", "name", "options", "summary", "plugin"],
        [
            [
                r["kind"],
                r["name"],
                " ".join(f"{k}={v!r}" for k, v in r["options"].items()),
                r["summary"],
                r["plugin"],
            ]
            for r in rows
        ],
    )


@app.command("show")
def show_recipe(
    name: Annotated[str, typer.Argument(help="A recipe's name.")],
    set_: Annotated[list[str], typer.Option("--set", help="Override KEY=VALUE.")] = [],  # noqa: B006
    json: Json = False,
) -> None:
    """A recipe's complete config, as TOML, with every option of its parts.

    Example:

        fusemix recipes show fusemix --set training.epochs=20
    """
    import tomli_w

    from fusemix_core.runs.config import PARTS, find_recipe

    values = to_dict(find_recipe(name, set_))
    for kind in (*PARTS, "start"):
        if part := values.get(kind):
            spec = registry.component("aligner" if kind == "start" else kind, part["name"])
            part["options"] = {**spec.options, **part["options"]}
    for part in values.get("adapters", {}).values():
        part["options"] = {**registry.component("adapter", part["name"]).options, **part["options"]}
    if json:
        print_json(values)
    else:
        out.file.write(tomli_w.dumps(_without_none(values)))


def _without_none(table: dict) -> dict:
    return {
        k: _without_none(v) if isinstance(v, dict) else v for k, v in table.items() if v is not None
    }
