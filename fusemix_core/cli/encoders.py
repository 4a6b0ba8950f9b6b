"""`fusemix encoders`: what is installed, and whether it keeps its contract."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from fusemix_core.cli import models as m
from fusemix_core.project import how_to_install
from fusemix_core.registry import registry
from fusemix_core.specs import EncoderSpec, FamilySpec

app = typer.Typer(no_args_is_help=False, invoke_without_command=True, help="Installed encoders.")

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


@app.command("list")
def list_encoders(
    pattern: m.Pattern = "",
    modality: Annotated[str | None, typer.Option(help="Only this modality.")] = None,
    here: m.Here = False,
    long: Annotated[bool, typer.Option("--long", help="Views, plugin and summary too.")] = False,
    json: m.Json = False,
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
        if m.matches(pattern, spec) and modality in (None, getattr(spec, "modality", None))
    ]
    if here:
        rows = [row for row in rows if row["weights"] == "here"]
    heads = ["name", "modality", "dim", "licence", "weights"]
    heads += ["views", "plugin", "summary"] * long
    none = (
        "No encoder is like that. All of them: fusemix encoders list"
        if registry.all_encoders()
        else f"No encoders. Install a plugin: {how_to_install('fusemix-starter')}"
    )
    m.print_models(rows, heads, long=long, json=json, empty=none)


def _row(dist: str, spec: EncoderSpec | FamilySpec) -> dict[str, Any]:
    """An encoder or a family as `--json` has it."""
    of_family = {"modality": "any", "dim": None, "licence": "", "views": []}
    facts = {name: getattr(spec, name, None) for name in of_family}
    return m.row_of(dist, spec, facts | {"views": [*(facts["views"] or ())]}, of_family)


@app.command("show")
def show_encoder(
    name: m.Name,
    modality: Modality = None,
    json: m.Json = False,
) -> None:
    """All that is known of an encoder, without loading it.

    Examples:

        fusemix encoders show efficientnet-lite0

        fusemix encoders show hf:google/vit-base-patch16-224 --modality image
    """
    m.show_spec(registry.encoder(name, modality), json)


@app.command("check")
def check_encoder(
    name: m.Name,
    tiny: m.Tiny = False,
    modality: Modality = None,
    device: m.Device = "auto",
    json: m.Json = False,
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

    m.show_checks(spec.name, encoders.check_encoder(spec, tiny=tiny, device=device), json)
