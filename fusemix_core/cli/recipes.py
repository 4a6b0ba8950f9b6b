"""`fusemix recipes`: the named methods and their settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from fusemix_core.cli import options as o
from fusemix_core.cli.console import Notes, out, print_json, print_table
from fusemix_core.config import to_dict
from fusemix_core.errors import ConfigError, UnknownNameError
from fusemix_core.project import how_to_install
from fusemix_core.registry import registry
from fusemix_core.specs import KINDS

if TYPE_CHECKING:
    from fusemix_core.benchmark.advice import Advice, Measured

app = typer.Typer(no_args_is_help=False, invoke_without_command=True, help="Named recipes.")

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.callback()
def _default(ctx: typer.Context) -> None:
    """List the recipes, show one, list what they are made of, or advise on one.

    Examples:

        fusemix recipes list

        fusemix recipes show auto

        fusemix recipes advise --pairs 12000
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


@app.command("advise")
def advise_recipe(
    pairs: Annotated[
        int | None,
        typer.Option(metavar="N", help="How many pairs there are, without those to test on."),
    ] = None,
    modalities: Annotated[
        str | None, typer.Option(metavar="NAME,NAME", help="Modalities of the pairs: image,text.")
    ] = None,
    data: o.Data = None,
    column: o.Columns = None,
    json: Json = False,
) -> None:
    """Which recipe to take for a number of pairs, from measurements at the nearest sizes.

    With --data the pairs are counted and the modalities found. Shows the sets that the advice is
    taken from, how far their sizes are from yours, and the best and the fastest method on each.

    Examples:

        fusemix recipes advise --pairs 12000

        fusemix recipes advise --pairs 500 --modalities molecule,text

        fusemix recipes advise --data pairs.csv --json
    """
    from fusemix_core.benchmark.advice import advise, read_places

    names = [n.strip() for n in (modalities or "").split(",") if n.strip()]
    if data:
        counted, found = _looked_over(data, column, names)
        pairs, names = pairs or counted, names or found
    if pairs is None:
        raise ConfigError("How many pairs?", "Give --pairs N, or --data PATH to count them.")
    advice = advise(read_places(), pairs, names)
    install = {m.recipe: list(m.packages) for m in advice.named() if not _is_installed(m.recipe)}
    if json:
        print_json({**advice.as_dict(), "install": install})
        return
    _show_advice(advice, install)


def _looked_over(
    data: list[str], column: list[str] | None, modalities: list[str]
) -> tuple[int, list[str]]:
    """How many pairs of the data are to fit and choose on, and their modalities."""
    from fusemix_core.config import DataConfig, from_dict
    from fusemix_core.jobs.check_data import check_data

    table = {"source": list(data), "columns": o.column_values(column)}
    found = check_data(from_dict(DataConfig, table, "data"), modalities=modalities, sample=0)
    notes = Notes()
    notes(found.notices.summary(data))
    for warning in found.notices.warnings:
        notes(warning)
    return found.pairs["train"] + found.pairs["validation"], list(found.items)


def _is_installed(recipe: str) -> bool:
    return any(spec.name == recipe for _, spec in registry.all_components("recipe"))


def _show_advice(advice: Advice, install: dict[str, list[str]]) -> None:
    take = advice.take
    changes = "".join(f" --set {text}" for text in take.overrides)
    out.print(f"Take {take.method}: --recipe {take.recipe}{changes}", soft_wrap=True)
    out.print(_plain(advice.reason) + "\n", soft_wrap=True)
    heads = ["set", "of", "pairs measured", "that is", f"{take.method} R@1"]
    print_table(
        [*heads, "best other", "fastest within noise"],
        [
            [
                place.set,
                " ↔ ".join(place.encoders),
                f"{place.pairs:,}",
                place.distance(advice.pairs),
                *(_recall(m) for m in (place.method(take.method), place.best_other(take.method))),
                _recall(place.fastest),
            ]
            for place in advice.nearest
        ],
        right=[False, False, True, True, False, False, False],
    )
    out.print("R@1 on test in percent, with its 95% interval; seconds of a fit.", soft_wrap=True)
    for note in advice.notes:
        out.print(f"- {_plain(note)}", soft_wrap=True)
    for recipe, packages in install.items():
        where = how_to_install(*packages) if packages else "not part of this version"
        out.print(f"- {recipe} is not installed: {where}", soft_wrap=True)


def _recall(found: Measured | None) -> str | None:
    """`csa 49.2 ± 3.3 (0.1 s)`."""
    from fusemix_core.benchmark.advice import seconds_text

    if found is None:
        return None
    half = "" if found.half is None else f" ± {found.half:.1f}"
    return f"{found.method} {found.r1:.1f}{half} ({seconds_text(found.seconds)})"


def _plain(text: str) -> str:
    return text.replace("`", "")


@app.command("components")
def list_components(
    kind: Annotated[str | None, typer.Option(help="Only adapters: --kind adapter.")] = None,
    json: Json = False,
) -> None:
    """The parts of recipes, with options and defaults, as for --set.

    Example:

        fusemix recipes components --kind objective
    """
    if kind is not None and kind not in KINDS:
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

    from fusemix_core.overrides import in_order
    from fusemix_core.runs.config import PARTS, find_recipe

    values = to_dict(find_recipe(name, in_order(set_)))
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
        for setting, tried in registry.component("recipe", name).search.items():
            out.file.write(f"# fusemix bench --search tries {setting} = {list(tried)}\n")


def _without_none(table: dict) -> dict:
    return {
        k: _without_none(v) if isinstance(v, dict) else v for k, v in table.items() if v is not None
    }
