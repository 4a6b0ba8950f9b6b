"""`fusemix export`: a fused model for other runtimes, libraries and tools."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fusemix_core.cli import options as o
from fusemix_core.cli.console import print_json
from fusemix_core.cli.groups import DataOptions, FactOptions, grouped
from fusemix_core.config import parse_part
from fusemix_core.errors import ConfigError
from fusemix_core.registry import registry

To = Annotated[
    str,
    typer.Option(
        "--to",
        metavar="TARGET",
        help='What for: onnx, openvino, parquet, …, or with options "parquet dims=64". '
        "`fusemix recipes components --kind exporter` lists all.",
    ),
]
Out = Annotated[Path, typer.Option("--out", "-o", help="A new folder.")]


@grouped
def export(
    model: o.Model,
    data: DataOptions,
    facts: FactOptions,
    to: To,
    out: Out,
    encoder: o.ModelEncoders = None,
    seed: o.Seed = None,
    json: o.Json = False,
) -> None:
    """Write a fused model, or its embeddings of data, for a tool that is not fusemix.

    Examples:

        fusemix export runs/1 --to onnx --out for-onnx

        fusemix export runs/1 --to parquet --data pairs.csv --out vectors

        fusemix export runs/1 --to embedding-atlas --data pairs.csv --out atlas
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

    fused = load_model(model, "cpu", o.key_values(encoder, "--encoder"))
    with ConsoleReporter() as reporter:
        lines = write(fused, part, out, data=config, seed=seed or 0, reporter=reporter)
    if json:
        files = sorted(str(p.relative_to(out)) for p in out.rglob("*") if p.is_file())
        print_json({"to": spec.name, "out": str(out), "files": files, "use": list(lines)})
        return
    typer.echo("\n".join(lines))
