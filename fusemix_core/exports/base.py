"""`Exporter`: a fused model, or its embeddings of data, written for a tool that isn't fusemix."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from fusemix_core.config import DataConfig
from fusemix_core.errors import ConfigError
from fusemix_core.fused import FusedModel
from fusemix_core.runs.reporter import Reporter

if TYPE_CHECKING:
    from fusemix_core.search import Collection


@dataclass(frozen=True)
class ExportSource:
    """The model to export, and how.

    Attributes:
        model: the fused model, on the CPU.
        data: the items to embed, for an exporter that uses data.
        collection: the index that is exported, in place of a run and data; `model` is its model.
        seed: of whatever is drawn.
        reporter: gets the progress.
    """

    model: FusedModel
    data: DataConfig | None = None
    collection: Collection | None = None
    seed: int = 0
    reporter: Reporter = field(default_factory=Reporter)


class Exporter(ABC):
    """Writes a fused model for another tool; constructed as `Exporter(**options)`.

    What it writes must work where fusemix is not installed.

    Example:
        class Names(Exporter):
            def write(self, source, folder):
                (folder / "names.txt").write_text("\\n".join(source.model.modalities))
                return ["Read names.txt with any editor."]

        registry.add_component("exporter", "names", Names)
    """

    uses: tuple[str, ...] = ()
    """`("data",)` if it writes embeddings of items: of data, or of an index, one of which the user
    then has to give. The `ComponentSpec` says the same."""

    def check(self, source: ExportSource) -> None:  # noqa: B027  most can write any model
        """Raise `ConfigError` for a model that can't be written, before an encoder is loaded.

        The message says which part is in the way, and the hint how to fit a model without it.
        """

    @abstractmethod
    def write(self, source: ExportSource, folder: Path) -> Sequence[str]:
        """Write the files to an empty folder.

        Args:
            source: what to export.
            folder: where; it gets its final name when all is written.

        Returns:
            Lines for the user: how to use the files, with `{out}` for the folder.
        """


def check_source(exporter: Exporter, name: str, source: ExportSource) -> None:
    """Raise `ConfigError` unless an exporter has what it uses and can write the model."""
    if source.data is not None and source.collection is not None:
        raise ConfigError("An index has its own items; it takes no data.", "Leave out --data.")
    if "data" in exporter.uses and source.data is None and source.collection is None:
        raise ConfigError(
            f"The export '{name}' contains embeddings of items, and no data were given.",
            f"fusemix export RUN --to {name} --data pairs.csv --out FOLDER\n"
            f"or of an index: fusemix export INDEX --to {name} --out FOLDER",
        )
    if "data" not in exporter.uses and source.data is not None:
        raise ConfigError(
            f"The export '{name}' contains the model only; it takes no data.",
            "Leave out --data, or export embeddings: --to parquet",
        )
    exporter.check(source)
