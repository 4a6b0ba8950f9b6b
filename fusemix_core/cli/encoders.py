"""`fusemix encoders`: what is installed, and whether it keeps its contract."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer

from fusemix_core.cli.console import out, print_json, print_table
from fusemix_core.registry import registry
from fusemix_core.specs import EncoderSpec

app = typer.Typer(no_args_is_help=False, invoke_without_command=True, help="Installed encoders.")

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


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


@app.command("list")
def list_encoders(
    modality: Annotated[str | None, typer.Option(help="Only this modality.")] = None,
    json: Json = False,
) -> None:
    """All encoders and families of the installed plugins.

    Example:

        fusemix encoders list --modality text --json
    """
    rows = []
    for dist, spec in registry.all_encoders():
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
        ["name", "modality", "dim", "licence", "plugin", "summary"],
        [
            [r["name"], r["modality"], r["dim"], r["licence"], r["plugin"], r["summary"]]
            for r in rows
        ],
        empty="No encoders. Install a plugin, for example: pip install fusemix-starter",
    )
    if broken:
        out.print(f"{len(broken)} plugin(s) failed to load; see: fusemix plugins", style="yellow")


@app.command("show")
def show_encoder(
    name: Annotated[str, typer.Argument(help="A name, family:NAME, NAME@PATH or file.py:Class.")],
    json: Json = False,
) -> None:
    """All that is known of an encoder, without loading it.

    Example:

        fusemix encoders show efficientnet-lite0
    """
    spec = registry.encoder(name)
    facts = {f.name: getattr(spec, f.name) for f in dataclasses.fields(spec)}
    facts |= {
        "requires": dict(spec.requires),
        "options": dict(spec.options),
        "aliases": list(spec.aliases),
        "views": list(spec.views),
    }
    if json:
        print_json(facts)
        return
    rows = [[k, ", ".join(map(str, v)) if isinstance(v, list) else v] for k, v in facts.items()]
    print_table(["field", "value"], [r for r in rows if r[1] not in ("", None, {}, False)])


@app.command("check")
def check_encoder(
    name: Annotated[str, typer.Argument(help="The encoder to load and check.")],
    device: Annotated[str, typer.Option(help="Where to load it.")] = "auto",
    json: Json = False,
) -> None:
    """Load an encoder and check that it keeps the contract. Exit 1 if it does not.

    Example:

        fusemix encoders check minilm
    """
    from fusemix_core.testing.encoders import check_encoder as run_checks

    results = run_checks(registry.encoder(name), device=device)
    if json:
        print_json([dataclasses.asdict(r) for r in results])
    else:
        print_table(
            ["check", "result", "detail"],
            [[r.name, "passed" if r.passed else "FAILED", r.detail] for r in results],
        )
        failed = sum(not r.passed for r in results)
        out.print(f"{len(results)} checks, {failed} failed")
    if any(not r.passed for r in results):
        raise typer.Exit(1)
