"""`fusemix dedup`: items that are the same, or nearly."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from fusemix_core.cli import options as o
from fusemix_core.cli.console import out, print_json, print_table, shorten
from fusemix_core.cli.groups import DataOptions, grouped
from fusemix_core.errors import ConfigError

if TYPE_CHECKING:
    from fusemix_core.fused import FusedModel
    from fusemix_core.jobs.dedup import Deduplicated
    from fusemix_core.search import Collection
    from fusemix_core.specs import EncoderSpec

_SHOWN = 10


@dataclass(frozen=True)
class LatentOptions:
    """Whose latents are compared, and from when on items are alike: `--encoder`, `--run`,
    `--modality`, `--threshold`, `--keep`."""

    encoder: Annotated[
        str | None,
        typer.Option(
            "--encoder", "-e", metavar="NAME", help="Compare by it: NAME, or MODALITY=NAME."
        ),
    ] = None
    run: Annotated[
        str | None, typer.Option(metavar="RUN", help="Compare by an encoder of this run.")
    ] = None
    modality: Annotated[
        str | None,
        typer.Option(help="Of a run or an index: the modality to look through. [its first]"),
    ] = None
    threshold: Annotated[
        float, typer.Option(min=0, max=1, help="Similarity of near-duplicates.")
    ] = 0.95
    keep: Annotated[
        str, typer.Option(help="Which to keep: the largest file or text, or the first.")
    ] = "largest"


@dataclass(frozen=True)
class GroupFiles:
    """The files to write: `--out`, `--kept`, `--html`."""

    to: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="Write the groups.", rich_help_panel=o.OUTPUT),
    ] = None
    kept: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write the rows that are kept.", rich_help_panel=o.OUTPUT
        ),
    ] = None
    html: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write a page of the groups.", rich_help_panel=o.OUTPUT),
    ] = None

    def check(self) -> None:
        """Raise `ConfigError` if a table has an unknown form."""
        from fusemix_core.data.original import SUFFIXES

        for one in (self.to, self.kept):
            if one is not None and one.suffix.lower() not in SUFFIXES:
                forms = ", ".join(SUFFIXES)
                raise ConfigError(f"{one} is not a table.", f"Its name ends in {forms}.")

    def write(self, found: Deduplicated) -> None:
        """Write those that are asked for."""
        if self.to is not None:
            found.write(self.to)
        if self.kept is not None:
            found.write_kept(self.kept)
        if self.html is not None:
            found.write_page(self.html)


@grouped
def dedup(
    data: DataOptions,
    latents: LatentOptions,
    files: GroupFiles,
    path: Annotated[
        list[str] | None,
        typer.Argument(metavar="PATH", help="The data, as --data takes them, or an index."),
    ] = None,
    device: o.Device = None,
    json: o.Json = False,
) -> None:
    """Find items that are the same, or nearly, and say which of each group to keep.

    All items of one modality are compared by the latents of its encoder. In a group each item is
    near to the one that is kept: the largest in bytes, or the first. No file is changed.

    Examples:

        fusemix dedup photos/ --encoder efficientnet-lite0 --html duplicates.html

        fusemix dedup pairs.csv --run runs/1 --out groups.csv --kept once.csv

        fusemix dedup photos.index --modality image

        fusemix dedup notes.csv --encoder text=minilm --threshold 0.9 --json
    """
    table: dict[str, Any] = data.table()
    table["source"] = [*(path or ()), *table.get("source", ())]
    if not table["source"]:
        raise ConfigError("No data given.", "Example: fusemix dedup photos/ -e efficientnet-lite0")
    index = _index(table["source"])
    if latents.encoder is None and latents.run is None and index is None:
        raise ConfigError(
            "Give --encoder or --run, or an index instead of the data.",
            "Example: --encoder efficientnet-lite0",
        )
    files.check()

    from fusemix_core.cli.progress import ConsoleReporter
    from fusemix_core.config import DataConfig, from_dict
    from fusemix_core.jobs import dedup as job

    if index is not None:
        table = {**index.state.data, **table, "source": index.state.data["source"]}
    config = from_dict(DataConfig, table, "data.")
    model = latents.run if index is None else str(index.folder / "model")
    by = _encoder(latents.encoder, model, latents.modality, device)
    how: dict[str, Any] = {"threshold": latents.threshold, "keep": latents.keep}
    with ConsoleReporter() as reporter:
        found = job.dedup(config, by, device=device or "auto", reporter=reporter, **how)
    files.write(found)
    if json:
        print_json(found.as_dict())
    else:
        _show(found, files)


def _encoder(
    encoder: str | None, model: str | None, modality: str | None, device: str | None
) -> EncoderSpec | tuple[FusedModel, str]:
    """The spec of an encoder, or a fused model and one of its modalities: the first, unless another
    is named. For a model the encoder is what to load in place of the saved name."""
    if model is None:
        return _spec(str(encoder), modality)
    from fusemix_core.runs.models import load_model

    sources = o.key_values([encoder] if encoder else None, "--encoder")
    loaded = load_model(model, device or "auto", sources)
    modality = modality or next(iter(sources), loaded.modalities[0])
    if modality not in loaded.modalities:
        known = ", ".join(loaded.modalities)
        raise ConfigError(f"The model has no modality '{modality}'.", f"It has {known}.")
    return loaded, modality


def _spec(encoder: str, modality: str | None) -> EncoderSpec:
    """The encoder that NAME or MODALITY=NAME is."""
    if modality is not None:
        raise ConfigError("--modality is for --run and for an index.", "Example: -e text=minilm")
    from fusemix_core.registry import registry
    from fusemix_core.runs.config import resolve_encoders

    name, _, rest = encoder.partition("=")
    named = rest and name.isidentifier()
    found = {name: rest} if named else {registry.encoder(encoder).modality: encoder}
    return next(iter(resolve_encoders(found).values()))


def _index(source: list[str]) -> Collection | None:
    """The index that the data are, if they are one."""
    from fusemix_core.search.state import NAME

    if len(source) != 1 or not (Path(source[0]) / NAME).is_file():
        return None
    from fusemix_core.search import Collection

    return Collection.open(source[0])


def _show(found: Deduplicated, files: GroupFiles) -> None:
    """The largest groups, the counts, and where all are."""
    rows = [
        [shorten(group[0].item, 60), len(group), f"{min(m.similarity for m in group):.3f}"]
        for group in found.groups[:_SHOWN]
    ]
    if rows:
        print_table(["kept", "rows", "least similar"], rows)
    out.print(
        f"{found.rows:,} rows, {len(found.groups):,} groups, "
        f"{len(found.dropped):,} rows not needed."
    )
    for name, file in (("groups", files.to), ("kept", files.kept), ("page", files.html)):
        if file is not None:
            out.print(Text(f"{name + ':':<8} {file}"), soft_wrap=True)
