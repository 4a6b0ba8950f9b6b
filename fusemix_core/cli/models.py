"""Lists, facts and checks of models, for the commands on encoders and on generators."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fusemix_core.cli.console import out, print_json, print_table, shorten, size
from fusemix_core.registry import registry
from fusemix_core.specs import FamilySpec, ModelledSpec

if TYPE_CHECKING:
    from fusemix_core.testing.report import Report

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Name = Annotated[str, typer.Argument(help="A name, family:NAME, NAME@PATH or file.py:Class.")]
Pattern = Annotated[
    str, typer.Argument(help="Only names with this in them, or that match it: '*dino*'.")
]
Here = Annotated[bool, typer.Option("--here", help="Only those whose weights are on this disk.")]
Tiny = Annotated[
    bool, typer.Option("--tiny", help="Check its random miniature, which needs no weights.")
]
Device = Annotated[str, typer.Option(help="Where to load it.")]


def matches(pattern: str, spec: ModelledSpec | FamilySpec) -> bool:
    """Whether a name or alias of a model, or the prefix of a family, fits a pattern with `*` and
    `?`, or has a text without these in it. Case is ignored."""
    names = (f"{spec.prefix}:NAME",) if isinstance(spec, FamilySpec) else (spec.name, *spec.aliases)
    pattern = pattern.lower()
    if not set("*?[") & set(pattern):
        return any(pattern in name.lower() for name in names)
    return any(fnmatchcase(name.lower(), pattern) for name in names)


def row_of(
    dist: str,
    spec: ModelledSpec | FamilySpec,
    facts: Mapping[str, Any],
    families: Mapping[str, Any],
) -> dict[str, Any]:
    """A model or a family as `--json` lists it; `bytes`: what is to be fetched.

    Args:
        facts: The columns of this kind of model, of a model.
        families: Their values for a family.
    """
    from fusemix_core.hub import weights_of

    if isinstance(spec, FamilySpec):
        name, rest, weights, fetched = f"{spec.prefix}:NAME", families, "", None
    else:
        name, rest = spec.name, facts
        weights, fetched = weights_of(spec)
    return {
        "name": name,
        **rest,
        "weights": weights,
        "bytes": fetched,
        "plugin": dist,
        "summary": spec.summary,
    }


def print_models(
    rows: Sequence[Mapping[str, Any]], heads: Sequence[str], *, long: bool, json: bool, empty: str
) -> None:
    """The list of models, and a line on plugins that failed to load.

    Args:
        heads: The columns.
        long: Whether cells are shown whole.
        empty: What to print if there are none.
    """
    if json:
        print_json(rows)
        return
    print_table(heads, [[_cell(row, head, long) for head in heads] for row in rows], empty=empty)
    if broken := [p for p in registry.plugins if p.error]:
        out.print(f"{len(broken)} plugin(s) failed to load; see: fusemix plugins", style="yellow")


def _cell(row: Mapping[str, Any], head: str, long: bool) -> str | int | None:
    """A cell of the list; in the short one, licences are cut so that a row fits 80 columns."""
    if head == "weights" and row["bytes"]:
        return f"hub, {size(row['bytes'], digits=0)}"
    if head == "licence" and not long:
        return shorten(row[head], 13)
    value = row[head]
    return ", ".join(value) if isinstance(value, list) else value


def show_spec(spec: ModelledSpec, json: bool) -> None:
    """All that is known of a model, without loading it."""
    facts = {f.name: getattr(spec, f.name) for f in dataclasses.fields(spec)}
    facts = {k: list(v) if isinstance(v, tuple) else v for k, v in facts.items()}
    facts |= {"requires": dict(spec.requires), "options": dict(spec.options)}
    if json:
        print_json(facts)
        return
    rows = [[k, ", ".join(map(str, v)) if isinstance(v, list) else v] for k, v in facts.items()]
    print_table(["field", "value"], [r for r in rows if r[1] not in ("", None, {}, False)])


def show_checks(name: str, report: Report, json: bool) -> None:
    """Show the report of the conformance kit. Exits with 1 if the model broke its contract."""
    if json:
        print_json(report.as_dict())
    else:
        print_table(
            ["check", "result", "what it contains, or what went wrong"],
            [[r.name, "passed" if r.ok else "FAILED", r.detail or r.holds] for r in report],
        )
        out.print(f"{name}: {report.summary()}")
        if report.held < report.least:
            out.print(f"Only {report.held} checks passed, of {report.least} at least.")
    if not report.ok:
        raise typer.Exit(1)
