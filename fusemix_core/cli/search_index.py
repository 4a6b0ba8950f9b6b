"""`fusemix search` on an index."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fusemix_core.cli.hits import AskedOptions, Line, SheetOptions, anew_of, near, print_hits
from fusemix_core.cli.index import open_collection, reranking_of


def is_index(path: str) -> bool:
    """Whether a path is the folder of an index."""
    return (Path(path) / "index.json").is_file()


def search_index(
    folder: Path,
    query: str,
    asked: AskedOptions,
    sheet: SheetOptions,
    encoder: list[str] | None,
    device: str | None,
    json: bool,
    rerank: str | None = None,
) -> None:
    """Search an index and show what is found."""
    from fusemix_core.cli.console import print_json
    from fusemix_core.data.asked import modality_of
    from fusemix_core.data.media import medium
    from fusemix_core.search.found import caption_column

    opened = open_collection(folder, encoder, device)
    source = modality_of(query, opened.state.asks, asked.from_)
    reranking = None if rerank is None else reranking_of(opened, rerank, encoder)
    filters: dict[str, Any] = {"where": asked.where, "target": asked.to}
    found = opened.ask(source, query, asked.count, reranking=reranking, **filters)
    if unknown := [name for name in asked.show or () if name not in opened.columns]:
        opened.facets(unknown[0])  # says which columns there are
    if json:
        print_json([{"rank": rank, **one.as_dict()} for rank, one in enumerate(found, 1)])
        return
    target = asked.to or (found[0].modality if found else opened.modalities[0])
    how = medium(opened.state.takes[target])
    columns_shown, sources = asked.show, opened.sources
    if columns_shown is None:
        caption = None if how.inline else caption_column(opened.columns)
        columns_shown = [caption] if caption else []
    shown = [{name: one.columns[name] for name in columns_shown} for one in found]
    lines = [
        Line(rank, one.score or 0.0, one.item, columns.values())
        for rank, (one, columns) in enumerate(zip(found, shown, strict=True), 1)
    ]
    anew = anew_of(reranking.reranker if reranking else None, source, target)
    print_hits(lines, how.inline, sources, opened.state.counts.get(target, 0), anew)
    if sheet.wanted:
        from fusemix_core.reports.sheet import SheetHit

        own = medium(opened.state.asks[source])
        hits = []
        for line, one, columns in zip(lines, found, shown, strict=True):
            text = {name: "" if value is None else str(value) for name, value in columns.items()}
            place = one.item if how.inline else near(one.item, sources)
            content = opened.media(one.key)
            seen = how.show(one.item, lambda content=content: how.decode(content))
            hits.append(SheetHit(line.rank, line.score, place, seen, text))
        sheet.write(own.show(query, lambda: own.decode(query)), hits, len(opened))
