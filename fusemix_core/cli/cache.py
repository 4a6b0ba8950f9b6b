"""`fusemix cache`: what the latent store contains."""

from __future__ import annotations

from typing import Annotated

import typer

from fusemix_core.cli import options as o
from fusemix_core.cli.console import out, print_json, print_table, size

app = typer.Typer(no_args_is_help=True, help="The store of latents, on disk or in an object store.")

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("list")
def list_views(store: o.Store = None, json: Json = False) -> None:
    """Cached views, one row per encoder and view.

    Example:

        fusemix cache list --json
    """
    from datetime import datetime

    from fusemix_core.latents.remote import store_at

    opened = store_at(store)
    rows = [vars(v) | {} for v in opened.views()]
    if json:
        print_json(rows)
        return
    print_table(
        ["encoder", "view", "items", "size", "dtype", "fingerprint", "written"],
        [
            [
                r["encoder"],
                r["view"],
                r["items"],
                size(r["bytes"]),
                r["dtype"],
                r["fingerprint"][:12],
                f"{datetime.fromtimestamp(r['modified']):%Y-%m-%d %H:%M}",
            ]
            for r in rows
        ],
        empty=f"Nothing is cached in {opened.place}.",
    )


@app.command("verify")
def verify(store: o.Store = None, json: Json = False) -> None:
    """Read every shard and index segment and compare checksums. Exit 1 if one is damaged.

    Example:

        fusemix cache verify
    """
    from fusemix_core.latents.remote import store_at

    bad = store_at(store).verify()
    if json:
        print_json([{"path": str(b.path), "reason": b.reason} for b in bad])
    else:
        print_table(
            ["shard", "reason"], [[b.path, b.reason] for b in bad], empty="Every shard is sound."
        )
    if bad:
        raise typer.Exit(1)


@app.command("prune")
def prune(
    fingerprint: Annotated[
        str | None, typer.Option(help="Shards of this encoder fingerprint (or its beginning).")
    ] = None,
    older_than: Annotated[
        float | None, typer.Option(metavar="DAYS", help="Shards written longer ago than this.")
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="Everything.")] = False,
    store: o.Store = None,
    json: Json = False,
) -> None:
    """Delete shards. Without options: damaged shards and what killed runs left.

    Examples:

        fusemix cache prune

        fusemix cache prune --older-than 30
    """
    from fusemix_core.latents.remote import store_at

    done = store_at(store).prune(fingerprint=fingerprint, older_than=older_than, all=all_)
    if json:
        print_json(vars(done))
    else:
        out.print(f"{done.files:,} files deleted, {size(done.bytes)} freed")
