"""`fusemix search`: query a folder, a manifest or an index with a text, a picture, a sound."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fusemix_core.cli import options as o
from fusemix_core.cli.groups import DataOptions, grouped
from fusemix_core.cli.hits import AskedOptions, Line, SheetOptions, anew_of, near, print_hits
from fusemix_core.cli.search_index import is_index, search_index
from fusemix_core.errors import ConfigError

if TYPE_CHECKING:
    from fusemix_core.fused import FusedModel
    from fusemix_core.reranked import RerankModel


@grouped
def search(
    model: o.Model,
    query: Annotated[str, typer.Argument(help="A text, or the path of a file of a modality.")],
    data: DataOptions,
    sheet: SheetOptions,
    asked: AskedOptions,
    rerank: o.Rerank = None,
    encoder: o.ModelEncoders = None,
    device: o.Device = None,
    json: o.Json = False,
) -> None:
    """Search items of one modality by a query of another: those of an index, or of any data.

    Without --data, the data of the model's own run are searched. Items are encoded once and kept in
    the latent store. An index, which `fusemix index` builds, answers at once.

    Examples:

        fusemix search runs/1 "a dog on the beach"

        fusemix search runs/1 --data photos/ "a dog on the beach" --open

        fusemix search runs/1 --data shop.csv "red shoes" --show sku \\
            --show title

        fusemix search runs/1 --data pairs.csv photo.jpg --to text -k 5

        fusemix search photos.index "a dog on the beach" --where "year > 2020"

        fusemix search runs/1 "a dog on the beach" --rerank runs/1-rerank
    """
    if is_index(model):
        if data.table():
            raise ConfigError(
                "An index has its data already.", "Leave out --data and the options for it."
            )
        search_index(Path(model), query, asked, sheet, encoder, device, json, rerank)
        return
    if asked.where is not None:
        raise ConfigError(
            "--where needs an index.", f"Build one: fusemix index {model} --data D --out I"
        )
    from fusemix_core.runs.models import load_model

    given = o.key_values(encoder, "--encoder")
    loaded = load_model(model, device or "auto", given)
    reranker = None
    if rerank is not None:
        from fusemix_core.runs.candidates import load_reranker

        reranker = load_reranker(rerank, loaded, given)
    _search_data(model, loaded, query, asked, data, sheet, json, reranker)


def _search_data(
    model: str,
    fused: FusedModel,
    query: str,
    asked: AskedOptions,
    data: DataOptions,
    sheet: SheetOptions,
    json: bool,
    reranker: RerankModel | None,
) -> None:
    """Search data, and show what is found."""
    from fusemix_core.jobs.search import Gallery, query_modality
    from fusemix_core.jobs.searched_data import searched_data

    source = query_modality(fused, query, asked.from_)
    target = asked.to or next(m for m in fused.modalities if m != source)
    if target not in fused.modalities:
        raise ConfigError(
            f"The model has no modality '{target}'.", f"It has {', '.join(fused.modalities)}."
        )
    what = searched_data(model, fused, target, data.table(), asked.show)

    from fusemix_core.cli.console import print_json
    from fusemix_core.cli.progress import ConsoleReporter
    from fusemix_core.data.media import medium
    from fusemix_core.reports.sheet import SheetHit

    with ConsoleReporter() as reporter:
        gallery = Gallery(fused, target, what.config, reporter, what.columns, reranker)
        found = gallery.search(query, source, asked.count)
    if json:
        print_json([hit.as_dict() for hit in found])
    else:
        lines = [Line(h.rank, h.score, h.item, h.columns.values()) for h in found]
        inline = gallery.items.medium.inline
        anew = anew_of(reranker, source, target)
        print_hits(lines, inline, gallery.config.source, len(gallery.ids), anew)
    if sheet.wanted:
        own = medium(fused.encoders[source].takes)
        sources, items = gallery.config.source, gallery.items
        hits = [
            SheetHit(h.rank, h.score, near(h.item, sources), items.show(h.number), h.columns)
            for h in found
        ]
        sheet.write(own.show(query, lambda: own.decode(query)), hits, len(gallery.ids))
