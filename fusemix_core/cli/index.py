"""`fusemix index`: build, update and look after the index of a collection."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from fusemix_core.cli import options as o
from fusemix_core.cli.groups import DataOptions, grouped

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fusemix_core.runs.candidates import Reranking
    from fusemix_core.search import Collection

BUILD = "build"
MANY = 500_000
"""Items from which on an approximate index is worth a hint."""


class IndexGroup(TyperGroup):
    """`fusemix index RUN` is `fusemix index build RUN`."""

    # Typer has no public name for the class of `ctx`.
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ("-h", "--help"):
            args = [BUILD, *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=IndexGroup,
    no_args_is_help=True,
    help="The index of a collection: built once, searched often, updated quickly. "
    "`fusemix index RUN …` builds one.",
)

Folder = Annotated[Path, typer.Argument(help="The folder of the index.")]


@app.command(BUILD)
@grouped
def build(
    model: o.Model,
    data: DataOptions,
    output: Annotated[Path, typer.Option("--out", help="The folder of the index: a new one.")],
    to: Annotated[
        list[str] | None,
        typer.Option("--to", metavar="MODALITY", help="Modality to search in. [all in the data]"),
    ] = None,
    kind: Annotated[
        str,
        typer.Option(
            "--kind",
            metavar="NAME",
            help="Kind of index: flat (exact), faiss (from 500,000 items on), or with options "
            '"faiss probes=200".',
        ),
    ] = "flat",
    rerank: o.Rerank = None,
    encoder: o.ModelEncoders = None,
    device: o.Device = None,
    json: o.Json = False,
) -> None:
    """Build the index of a collection with a fused model.

    Without --data, the data of the model's own run are indexed. If it is interrupted, run it again:
    it goes on. The columns of the data are kept for `fusemix search --where`. With --rerank, the
    tokens of all items are put into the latent store, so that no search with it waits for them.

    Examples:

        fusemix index runs/1 --data photos/ --out photos.index

        fusemix search photos.index "a dog on the beach"

        fusemix index runs/1 --data shop.csv --to image --out shop.index
    """
    from fusemix_core.config import DataConfig, from_dict, parse_part
    from fusemix_core.jobs.measured_data import data_table, run_of
    from fusemix_core.runs.models import load_model

    fused = load_model(model, device or "auto", o.key_values(encoder, "--encoder"))
    table, _ = data_table(model, run_of(model), data.table())
    config = from_dict(DataConfig, table, "data.")

    from fusemix_core.cli.progress import ConsoleReporter
    from fusemix_core.search import Collection

    with ConsoleReporter() as reporter:
        made = Collection.create(
            output, fused, config, to or (), backend=parse_part(kind), reporter=reporter
        )
        if rerank is not None:
            made.store_tokens(reranking_of(made, rerank, encoder), reporter)
    _show(made, json)
    if not json:
        _hint(made, parse_part(kind).name)


@app.command("update")
def update(
    folder: Folder,
    watch: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            min=0.1,
            help="Go on: update again when files have changed and then rested this long.",
        ),
    ] = None,
    rerank: o.Rerank = None,
    encoder: o.ModelEncoders = None,
    device: o.Device = None,
    json: o.Json = False,
) -> None:
    """Read the data again: encode new items, remove lost ones, repair damage.

    Files that were moved or renamed are not encoded again.

    Example:

        fusemix index update photos.index

        fusemix index update photos.index --watch 10
    """
    opened = open_collection(folder, encoder, device)
    reranking = None if rerank is None else reranking_of(opened, rerank, encoder)
    _update(opened, json, reranking)
    if watch is None:
        return
    from fusemix_core.cli.console import print_error
    from fusemix_core.errors import FusemixError
    from fusemix_core.search.watching import changes

    for _ in changes(opened.sources, watch):
        try:
            _update(opened, json, reranking)
        except FusemixError as error:  # of a file that is only half there, perhaps
            print_error(error.message, error.hint)


def _update(opened: Collection, json: bool, reranking: Reranking | None = None) -> None:
    """Update an index and print what changed."""
    from fusemix_core.cli.console import out, print_json
    from fusemix_core.cli.progress import ConsoleReporter

    with ConsoleReporter() as reporter:
        counts = opened.update(reporter)
        if reranking is not None:
            opened.store_tokens(reranking, reporter)
    if json:
        print_json(counts)
        return
    added, removed, items = counts["added"], counts["removed"], counts["items"]
    out.print(f"{added:,} added, {removed:,} removed, {items:,} items")


@app.command("info")
def info(folder: Folder, json: o.Json = False) -> None:
    """Show the contents of an index.

    Example:

        fusemix index info photos.index --json
    """
    from fusemix_core.search import Collection

    _show(Collection.open(folder), json)


@app.command("check")
def check(folder: Folder, json: o.Json = False) -> None:
    """Read every file whole and compare checksums. Exit 1 if one is damaged.

    Example:

        fusemix index check photos.index
    """
    from fusemix_core.cli.console import out, print_json
    from fusemix_core.search import Collection

    faults = Collection.open(folder).check()
    if json:
        print_json(faults)
    else:
        for fault in faults:
            out.print(fault, soft_wrap=True)
        out.print(f"Mend it: fusemix index update {folder}" if faults else "Nothing is damaged.")
    if faults:
        raise typer.Exit(1)


@app.command("compact")
def compact(folder: Folder) -> None:
    """Write the vectors anew in few files, without removed ones. `update` does so when it pays.

    Example:

        fusemix index compact photos.index
    """
    from fusemix_core.search import Collection

    Collection.open(folder).compact()


def _hint(made: Collection, kind: str) -> None:
    """Say what is faster for as many items, if anything."""
    from fusemix_core.cli.console import err
    from fusemix_core.project import how_to_install

    if kind == "flat" and max(made.state.counts.values(), default=0) >= MANY:
        err.print(
            "Hint: with so many items, --kind faiss answers several times faster, and misses about "
            "one in thirty of the best items. Nothing would be encoded again. It needs the extra: "
            f"{how_to_install('fusemix[faiss]')}",
            soft_wrap=True,
        )


def open_collection(folder: Path, encoder: list[str] | None, device: str | None) -> Collection:
    """The index in a folder, with its model loaded already if an encoder or a device is named."""
    from fusemix_core.search import Collection

    opened = Collection.open(folder)
    if encoder or device:
        from fusemix_core.runs.models import load_model

        given = o.key_values(encoder, "--encoder")
        return Collection.open(folder, load_model(opened.model_folder, device or "auto", given))
    return opened


def reranking_of(opened: Collection, path: str, encoder: list[str] | None) -> Reranking:
    """A re-ranker at work on an index, to whose model it must belong."""
    from fusemix_core.runs.candidates import Reranking, load_reranker

    given = o.key_values(encoder, "--encoder")
    return Reranking(load_reranker(path, opened.model, given))


def _show(opened: Collection, json: bool) -> None:
    from fusemix_core.cli.console import out, print_json, size

    facts = opened.info()
    if json:
        print_json(facts)
        return
    counts = ", ".join(f"{n:,} {m}" for m, n in facts["items"].items())
    lines = {
        "index": f"{facts['folder']}  ({size(facts['bytes'])}, {facts['index']})",
        "items": counts or "none",
        "queries": ", ".join(facts["queries"]),
        "quick": _quick(facts),
        "columns": ", ".join(facts["columns"]) or "none",
        "scorer": f"{facts['scorer']}, {facts['dim']} dimensions",
        "data": ", ".join(facts["data"]),
        "updated": facts["updated"],
    }
    for name, value in lines.items():
        out.print(f"{name + ':':9}{value}", soft_wrap=True, markup=False, highlight=False)


def _quick(facts: Mapping[str, Any]) -> str:
    """Which queries load no encoder, and how the others would not."""
    from fusemix_core.latents.runtime import EXTRA, absent
    from fusemix_core.project import how_to_install
    from fusemix_core.search.network import MAKING

    slow = {modality: why for modality, why in facts["quick"].items() if why}
    lines = [", ".join(m for m in facts["quick"] if m not in slow) or "none"]
    lines += [f"{modality} loads its encoder: {why}" for modality, why in slow.items()]
    if slow and absent(*MAKING):
        lines.append(f"{how_to_install(EXTRA)} && fusemix index update {facts['folder']}")
    return f"\n{'':9}".join(lines)
