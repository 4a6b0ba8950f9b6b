"""`fusemix encoders`: what is installed, and whether it keeps its contract."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Annotated, Any

import typer

from fusemix_core.cli.console import out, print_json, print_table, shorten, size
from fusemix_core.project import how_to_install
from fusemix_core.registry import registry
from fusemix_core.specs import EncoderSpec, FamilySpec

app = typer.Typer(no_args_is_help=False, invoke_without_command=True, help="Installed encoders.")

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Name = Annotated[str, typer.Argument(help="A name, family:NAME, NAME@PATH or file.py:Class.")]
Modality = Annotated[
    str | None, typer.Option(help="Modality of a family's model, if its files don't say.")
]


@app.callback()
def _default(ctx: typer.Context) -> None:
    """List encoders, show one, or check one.

    Examples:

        fusemix encoders list --modality image

        fusemix encoders show minilm

        fusemix encoders check ./my_encoder.py:MyEncoder
    """
    if ctx.invoked_subcommand is None:
        list_encoders()


def matches(pattern: str, spec: EncoderSpec | FamilySpec) -> bool:
    """Whether a name or alias of an encoder, or the prefix of a family, fits a pattern with `*` and
    `?`, or has a text without these in it. Case is ignored."""
    is_encoder = isinstance(spec, EncoderSpec)
    names = (spec.name, *spec.aliases) if is_encoder else (f"{spec.prefix}:NAME",)
    pattern = pattern.lower()
    if not set("*?[") & set(pattern):
        return any(pattern in name.lower() for name in names)
    return any(fnmatchcase(name.lower(), pattern) for name in names)


@app.command("list")
def list_encoders(
    pattern: Annotated[
        str, typer.Argument(help="Only names with this in them, or that match it: '*dino*'.")
    ] = "",
    modality: Annotated[str | None, typer.Option(help="Only this modality.")] = None,
    here: Annotated[
        bool, typer.Option("--here", help="Only those whose weights are on this disk.")
    ] = False,
    long: Annotated[bool, typer.Option("--long", help="Views, plugin and summary too.")] = False,
    json: Json = False,
) -> None:
    """All encoders and families of the installed plugins, and where their weights are.

    Examples:

        fusemix encoders list --here

        fusemix encoders list --modality text --long

        fusemix encoders list dino
    """
    rows = [
        _row(dist, spec)
        for dist, spec in registry.all_encoders()
        if matches(pattern, spec) and modality in (None, getattr(spec, "modality", None))
    ]
    if here:
        rows = [row for row in rows if row["weights"] == "here"]
    if json:
        print_json(rows)
        return
    heads = ["name", "modality", "dim", "licence", "weights"]
    heads += ["views", "plugin", "summary"] * long
    print_table(
        heads,
        [[_shown(row, head, long) for head in heads] for row in rows],
        empty="No encoder is like that. All of them: fusemix encoders list"
        if registry.all_encoders()
        else f"No encoders. Install a plugin: {how_to_install('fusemix-starter')}",
    )
    if broken := [p for p in registry.plugins if p.error]:
        out.print(f"{len(broken)} plugin(s) failed to load; see: fusemix plugins", style="yellow")


def _row(dist: str, spec: EncoderSpec | FamilySpec) -> dict[str, Any]:
    """An encoder or a family as `--json` has it; `bytes`: what is to be fetched."""
    from fusemix_core.hub import weights_of

    if not isinstance(spec, EncoderSpec):
        name, rest = f"{spec.prefix}:NAME", {"modality": "any", "dim": None, "licence": ""}
        weights, fetched, views = "", None, []
    else:
        name, views = spec.name, list(spec.views)
        rest = {"modality": spec.modality, "dim": spec.dim, "licence": spec.licence}
        weights, fetched = weights_of(spec)
    rest |= {"weights": weights, "bytes": fetched, "views": views, "plugin": dist}
    return {"name": name, **rest, "summary": spec.summary}


def _shown(row: Mapping[str, Any], head: str, long: bool) -> str | int | None:
    """A cell of the list; in the short one, licences are cut so that a row fits 80 columns."""
    if head == "weights" and row["bytes"]:
        return f"hub, {size(row['bytes'], digits=0)}"
    if head == "licence" and not long:
        return shorten(row[head], 13)
    return ", ".join(row[head]) if head == "views" else row[head]


@app.command("show")
def show_encoder(
    name: Name,
    modality: Modality = None,
    json: Json = False,
) -> None:
    """All that is known of an encoder, without loading it.

    Examples:

        fusemix encoders show efficientnet-lite0

        fusemix encoders show hf:google/vit-base-patch16-224 --modality image
    """
    spec = registry.encoder(name, modality)
    facts = {f.name: getattr(spec, f.name) for f in dataclasses.fields(spec)}
    facts = {k: list(v) if isinstance(v, tuple) else v for k, v in facts.items()}
    facts |= {"requires": dict(spec.requires), "options": dict(spec.options)}
    if json:
        print_json(facts)
        return
    rows = [[k, ", ".join(map(str, v)) if isinstance(v, list) else v] for k, v in facts.items()]
    print_table(["field", "value"], [r for r in rows if r[1] not in ("", None, {}, False)])


@app.command("check")
def check_encoder(
    name: Name,
    tiny: Annotated[
        bool, typer.Option("--tiny", help="Check its random miniature, which needs no weights.")
    ] = False,
    modality: Modality = None,
    device: Annotated[str, typer.Option(help="Where to load it.")] = "auto",
    json: Json = False,
) -> None:
    """Load an encoder and check that it keeps the contract. Exit 1 if it does not.

    Examples:

        fusemix encoders check minilm

        fusemix encoders check timm:vit_small_patch16_224 --tiny

        fusemix encoders check ./my_encoder.py:MyEncoder --json
    """
    spec = registry.encoder(name, modality)
    spec.check_requirements()
    from fusemix_core.testing import encoders

    report = encoders.check_encoder(spec, tiny=tiny, device=device)
    if json:
        print_json(report.as_dict())
    else:
        print_table(
            ["check", "result", "what it contains, or what went wrong"],
            [[r.name, "passed" if r.ok else "FAILED", r.detail or r.holds] for r in report],
        )
        out.print(f"{spec.name}: {report.summary()}")
        if report.held < report.least:
            out.print(f"Only {report.held} checks passed, of {report.least} at least.")
    if not report.ok:
        raise typer.Exit(1)
