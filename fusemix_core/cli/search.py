"""`fusemix search`: query a folder or manifest with a text, a picture, a sound."""

from __future__ import annotations

from typing import Annotated

import typer

from fusemix_core.cli import options as o
from fusemix_core.cli.groups import DataOptions, grouped
from fusemix_core.errors import ConfigError


@grouped
def search(
    model: o.Model,
    query: Annotated[str, typer.Argument(help="A text, or the path of a file of a modality.")],
    data: DataOptions,
    to: Annotated[str | None, typer.Option("--to", help="Modality to search in.")] = None,
    from_: Annotated[str | None, typer.Option("--from", help="Modality of the query.")] = None,
    count: Annotated[int, typer.Option("-k", "--count", min=1, help="How many to show.")] = 10,
    encoder: o.ModelEncoders = None,
    device: o.Device = None,
    json: o.Json = False,
) -> None:
    """Search items of one modality by a query of another.

    The items of --data are encoded once and kept in the latent store.

    Examples:

        fusemix search runs/1 --data photos/ "a dog on the beach"

        fusemix search runs/1 --data pairs.csv photo.jpg --to text -k 5

        fusemix search runs/1 --data sounds/ "rain on a roof" --json
    """
    from fusemix_core.config import DataConfig, from_dict

    if not data.data:
        raise ConfigError("No data to search in.", "Add --data PATH.")
    config = from_dict(DataConfig, data.table(), "data.")

    from fusemix_core.cli.console import out, print_json, print_table
    from fusemix_core.cli.progress import ConsoleReporter
    from fusemix_core.cli.show import shorten
    from fusemix_core.jobs.search import Gallery, query_modality
    from fusemix_core.runs.models import load_model

    fused = load_model(model, device or "auto", o.key_values(encoder, "--encoder"))
    source = query_modality(fused, query, from_)
    target = to or next(m for m in fused.modalities if m != source)
    if target not in fused.modalities:
        raise ConfigError(
            f"The model has no modality '{target}'.", f"It has {', '.join(fused.modalities)}."
        )
    with ConsoleReporter() as reporter:
        gallery = Gallery(fused, target, config, reporter)
    found = gallery.search(query, source, count)
    if json:
        print_json([vars(hit) for hit in found])
        return
    rows = [[h.rank, f"{h.score:.3f}", shorten(h.item)] for h in found]
    print_table(["", "score", target], rows)
    out.print(f"{len(gallery.ids):,} items searched", style="dim")
