"""Exporting a fused model: for another runtime, another library, another tool."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fusemix_core.config import DataConfig, Part
from fusemix_core.disk import Advice, explained
from fusemix_core.errors import ConfigError, ContractError
from fusemix_core.exports.base import Exporter, ExportSource, check_source
from fusemix_core.fused import FusedModel
from fusemix_core.registry import registry
from fusemix_core.runs.reporter import Reporter

if TYPE_CHECKING:
    from fusemix_core.search import Collection

ADVICE = Advice(
    "Free some space, or choose a folder on a larger disk.",
    "Choose a folder that you may write to.",
    "Check the disk.",
)
"""Where an export can't be written."""


def export(
    model: FusedModel | Collection,
    to: str | Part,
    out: str | Path,
    *,
    data: DataConfig | None = None,
    seed: int = 0,
    reporter: Reporter | None = None,
) -> Sequence[str]:
    """Write a model, its embeddings of data, or an index for another tool.

    Args:
        model: the fused model, on the CPU, or an index with its model.
        to: the exporter, by its registered name, or with options.
        out: a new or an empty folder. It is there whole or not at all.
        data: the items, if embeddings of items are written and `model` is not an index.
        seed: of whatever is drawn.
        reporter: gets the progress.

    Returns:
        Lines that say how to use what was written.

    Raises:
        UnknownNameError: there is no such exporter or option.
        ConfigError: the model can't be written so, with the part that is in the way.
        ArtefactError: the folder can't be written.

    Example:
        export(FusedModel.from_pretrained("runs/first", device="cpu"), "onnx", "for-onnx")
    """
    part = to if isinstance(to, Part) else Part(to)
    exporter = registry.build("exporter", part)
    if not isinstance(exporter, Exporter):
        raise ContractError(f"The exporter '{part.name}'", "an Exporter", type(exporter).__name__)
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out} is not empty.", "Give --out a new folder.")
    source = _source(model, data, seed, reporter or Reporter())
    check_source(exporter, part.name, source)
    beside = out.absolute().parent / f".{out.name}.{uuid.uuid4().hex[:8]}"
    try:
        with explained(f"{out}", ADVICE):
            beside.mkdir(parents=True)
        lines = exporter.write(source, beside)
        with explained(f"{out}", ADVICE):
            if out.exists():
                out.rmdir()
            os.replace(beside, out)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return [line.replace("{out}", os.fspath(out)) for line in lines]


def _source(
    model: FusedModel | Collection, data: DataConfig | None, seed: int, reporter: Reporter
) -> ExportSource:
    if isinstance(model, FusedModel):
        return ExportSource(model, data, None, seed, reporter)
    return ExportSource(model.model, data, model, seed, reporter)
