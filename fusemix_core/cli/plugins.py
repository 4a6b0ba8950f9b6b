"""`fusemix plugins`: which plugins are installed and which are broken."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer

from fusemix_core.cli.console import out, print_json, print_table
from fusemix_core.registry import registry


def plugins(json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Installed plugins, what each brings, and why a broken one failed to load.

    FUSEMIX_PLUGINS=a,b in the environment restricts which plugins load.

    Examples:

        fusemix plugins

        FUSEMIX_PLUGINS=fusemix-starter fusemix plugins --json
    """
    registry.load()
    if json:
        print_json([dataclasses.asdict(p) for p in registry.plugins])
        return
    rows = [
        [
            *(p.name, p.dist, p.version),
            *(len(p.encoders), len(p.generators), len(p.components)),
            p.error or "loaded",
        ]
        for p in registry.plugins
    ]
    counts = ["encoders", "generators", "components"]
    print_table(["plugin", "distribution", "version", *counts, "state"], rows)
    if models := registry.all_models():
        out.print()
        print_table(
            ["model", "what it is for", "licence"],
            [[name, m.summary, m.licence] for name, m in models.items()],
        )
