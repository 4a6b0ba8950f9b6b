"""`fusemix export`: a fused model or an index for other runtimes, libraries and tools."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fusemix_core.cli import options as o
from fusemix_core.cli.console import print_json
from fusemix_core.cli.groups import DataOptions, FactOptions, grouped
from fusemix_core.cli.search_index import is_index
from fusemix_core.config import parse_part
from fusemix_core.errors import ConfigError
from fusemix_core.registry import registry

Source = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A run's or model's folder, an index, PLUGIN:NAME of a plugin's model, or a hub id.",
    ),
]
To = Annotated[
    str,
    typer.Option(
        "--to",
        metavar="TARGET",
        help='The form: onnx, openvino, parquet, …, or with options "parquet dims=64". '
        "`fusemix recipes components --kind exporter` lists all.",
    ),
]
Out = Annotated[Path, typer.Option("--out", "-o", help="A new folder.")]


@grouped
def export(
    model: Source,
    data: DataOptions,
    facts: FactOptions,
    to: To,
    out: Out,
    encoder: o.ModelEncoders = None,
    seed: o.Seed = None,
    json: o.Json = False,
) -> None:
    """Write a fused model, its embeddings of data, or an index for a tool that is not fusemix.

    Examples:

        fusemix export runs/1 --to onnx --out for-onnx

        fusemix export runs/1 --to parquet --data pairs.csv --out vectors

        fusemix export runs/1 --to embedding-atlas --data pairs.csv --out atlas

        fusemix export photos.index --to parquet --out vectors
    """
    part = parse_part(to)
    spec = registry.check("exporter", part)
    table = data.table() | facts.table()
    config = None
    if "source" in table:
        from fusemix_core.config import DataConfig, from_dict

        config = from_dict(DataConfig, table)
    elif table:
        raise ConfigError("There are options for data, and no data.", "Add --data pairs.csv")

    from fusemix_core.cli.progress import ConsoleReporter
    from fusemix_core.jobs.export import export as write
    from fusemix_core.runs.models import load_model

    source = load_model(model, "cpu", o.key_values(encoder, "--encoder"))
    if is_index(model):
        from fusemix_core.search import Collection

        source = Collection.open(model, source)
    with ConsoleReporter() as reporter:
        lines = write(source, part, out, data=config, seed=seed or 0, reporter=reporter)
    if json:
        files = sorted(str(p.relative_to(out)) for p in out.rglob("*") if p.is_file())
        print_json({"to": spec.name, "out": str(out), "files": files, "use": list(lines)})
        return
    typer.echo("\n".join(lines))
