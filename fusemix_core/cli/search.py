"""`fusemix search`: query a folder or manifest with a text, a picture, a sound."""

from __future__ import annotations

import os
import tempfile
import webbrowser
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fusemix_core.cli import options as o
from fusemix_core.cli.groups import DataOptions, grouped
from fusemix_core.errors import ConfigError

if TYPE_CHECKING:
    from fusemix_core.jobs.search import Gallery, Hit


@dataclass(frozen=True)
class SheetOptions:
    """A contact sheet of what is found: `--html`, `--open`."""

    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a contact sheet of the results.")
    ] = None
    open_: Annotated[bool, typer.Option("--open", help="Open the contact sheet.")] = False

    def write(self, query: str, source: str, found: list[Hit], gallery: Gallery) -> None:
        """Write the sheet if it is asked for, in a new temporary folder if no file is named."""
        from fusemix_core.cli.console import err
        from fusemix_core.data.media import medium
        from fusemix_core.reports.sheet import SheetHit, write_sheet

        if self.html is None and not self.open_:
            return
        file = self.html or Path(tempfile.mkdtemp(prefix="fusemix-")) / "search.html"
        hits = [
            SheetHit(
                h.rank, h.score, near(h.item, gallery), gallery.items.show(h.number), h.columns
            )
            for h in found
        ]
        own = medium(gallery.model.encoders[source].takes)
        asked = own.show(query, lambda: own.decode(query))
        write_sheet(file, asked, hits, len(gallery.ids))
        err.print(f"sheet:   {file}", soft_wrap=True)
        if self.open_:
            webbrowser.open(file.absolute().as_uri())


@grouped
def search(
    model: o.Model,
    query: Annotated[str, typer.Argument(help="A text, or the path of a file of a modality.")],
    data: DataOptions,
    sheet: SheetOptions,
    to: Annotated[str | None, typer.Option("--to", help="Modality to search in.")] = None,
    from_: Annotated[str | None, typer.Option("--from", help="Modality of the query.")] = None,
    count: Annotated[int, typer.Option("-k", "--count", min=1, help="How many to show.")] = 10,
    show: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COLUMN",
            help="Show this column of the data beside each item. [its text, in the run's own data]",
        ),
    ] = None,
    encoder: o.ModelEncoders = None,
    device: o.Device = None,
    json: o.Json = False,
) -> None:
    """Search items of one modality by a query of another.

    Without --data, the data of the model's own run are searched. Items are encoded once and kept in
    the latent store.

    Examples:

        fusemix search runs/1 "a dog on the beach"

        fusemix search runs/1 --data photos/ "a dog on the beach" --open

        fusemix search runs/1 --data shop.csv "red shoes" --show sku \\
            --show title

        fusemix search runs/1 --data pairs.csv photo.jpg --to text -k 5
    """
    from fusemix_core.jobs.search import Gallery, query_modality
    from fusemix_core.jobs.searched_data import searched_data
    from fusemix_core.runs.models import load_model

    fused = load_model(model, device or "auto", o.key_values(encoder, "--encoder"))
    source = query_modality(fused, query, from_)
    target = to or next(m for m in fused.modalities if m != source)
    if target not in fused.modalities:
        raise ConfigError(
            f"The model has no modality '{target}'.", f"It has {', '.join(fused.modalities)}."
        )
    what = searched_data(model, fused, target, data.table(), show)

    from fusemix_core.cli.console import print_json
    from fusemix_core.cli.progress import ConsoleReporter

    with ConsoleReporter() as reporter:
        gallery = Gallery(fused, target, what.config, reporter, what.columns)
    found = gallery.search(query, source, count)
    if json:
        print_json([hit.as_dict() for hit in found])
    else:
        _show(found, gallery)
    sheet.write(query, source, found, gallery)


def _show(found: list[Hit], gallery: Gallery) -> None:
    """A line each; paths whole, and links that a terminal can open."""
    from rich.text import Text

    from fusemix_core.cli.console import out, shorten

    inline = gallery.items.medium.inline
    for hit in found:
        line = Text(f"{hit.rank:3}  {hit.score:.3f}  ")
        if inline:
            line.append(shorten(hit.item))
        else:
            path = Path(hit.item)
            line.append(
                near(hit.item, gallery), f"link {path.absolute().as_uri()}" * path.is_file()
            )
        for value in filter(None, hit.columns.values()):
            line.append(f"  {shorten(value, 60)}", "dim")
        out.print(line, soft_wrap=True)
    out.print(f"{len(gallery.ids):,} items searched", style="dim")


def near(path: str, gallery: Gallery) -> str:
    """A path as it is written from the working folder, if it is in there, or from that of the data.
    Any other is whole."""
    sources = [os.path.abspath(one) for one in gallery.config.source]
    folders = [one if os.path.isdir(one) else os.path.dirname(one) for one in sources]
    for folder in (os.getcwd(), *folders) if os.path.isabs(path) else ():
        inside = os.path.relpath(path, folder)
        if not inside.startswith(os.pardir):
            return inside
    return path
