"""`fusemix encoders`: what is installed, and whether it keeps its contract."""

from __future__ import annotations

import dataclasses
from fnmatch import fnmatchcase
from typing import Annotated

import typer

from fusemix_core.cli.console import out, print_json, print_table
from fusemix_core.project import how_to_install
from fusemix_core.registry import registry
from fusemix_core.specs import EncoderSpec, FamilySpec

app = typer.Typer(no_args_is_help=False, invoke_without_command=True, help="Installed encoders.")

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Name = Annotated[str, typer.Argument(help="A name, family:NAME, NAME@PATH or file.py:Class.")]
Modality = Annotated[
    str | None, typer.Option(help="What a family's model is to read, if it can't tell.")
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
    json: Json = False,
) -> None:
    """All encoders and families of the installed plugins.

    Examples:

        fusemix encoders list --modality text --json

        fusemix encoders list '*dino*'
    """
    rows = []
    for dist, spec in registry.all_encoders():
        if not matches(pattern, spec):
            continue
        if not isinstance(spec, EncoderSpec):
            if modality is None:
                rows.append(
                    {
                        "name": f"{spec.prefix}:NAME",
                        "modality": "any",
                        "dim": None,
                        "views": [],
                        "licence": "",
                        "plugin": dist,
                        "summary": spec.summary,
                    }
                )
        elif modality in (None, spec.modality):
            rows.append(
                {
                    "name": spec.name,
                    "modality": spec.modality,
                    "dim": spec.dim,
                    "views": list(spec.views),
                    "licence": spec.licence,
                    "plugin": dist,
                    "summary": spec.summary,
                }
            )
    broken = [p for p in registry.plugins if p.error]
    if json:
        print_json(rows)
        return
    print_table(
        ["name", "modality", "dim", "views", "licence", "plugin", "summary"],
        [[", ".join(v) if isinstance(v, list) else v for v in r.values()] for r in rows],
        empty="No encoders. Install a plugin, for example: " + how_to_install("fusemix-starter"),
    )
    if broken:
        out.print(f"{len(broken)} plugin(s) failed to load; see: fusemix plugins", style="yellow")


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
