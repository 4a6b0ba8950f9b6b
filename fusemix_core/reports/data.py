"""What a report shows, as plain data: whoever runs a fit fills this in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fusemix_core.data.media import Shown
from fusemix_core.sections import Section


@dataclass(frozen=True)
class ShownHit:
    """A retrieved item, its score, and whether it is a true partner of the query."""

    item: Shown
    score: float
    partner: bool


@dataclass(frozen=True)
class Example:
    """A query and what came first. `rank` is that of its best partner, from 1.

    `partners` are the true ones (one is shown if it is not among the hits). `note`: where the
    query was read.
    """

    query: str
    target: str
    rank: int
    item: Shown
    hits: Sequence[ShownHit]
    partners: Sequence[Shown] = ()
    note: str = ""


@dataclass
class ReportData:
    """All that `write_report` needs. Only `title` is required; sections without data are left out.

    title, summary: a line, and a sentence or two.
    facts: label → value, shown beside the data: recipe, device, seconds, …
    modalities: modality → {column: value} for the table of encoders, such as encoder, items, width.
    splits: split → number of rows of the link table. rows_read: rows of the source.
    rejected: rows set aside, each {"path", "row", "modality", "reason"}.
    notes: sentences the reader should know, such as texts that were cut.
    sections: what evaluators show; those with numbers for the top come first.
    split: the split all figures are from; with an empty test split give "validation".
    history: panel → series → [(step, value)], such as {"Loss": {"train": …}}; none for closed form.
    best_step: the step that was kept.
    examples: as drawn by `evaluation.examples`.
    sure: wrong answers with the highest scores.
    load: the lines of Python that load the model. config: the run's TOML.
    environment: result of `runs.environment`.
    """

    title: str
    summary: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    modalities: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    splits: Mapping[str, int] = field(default_factory=dict)
    rows_read: int | None = None
    rejected: Sequence[Mapping[str, Any]] = ()
    notes: Sequence[str] = ()
    sections: Sequence[Section] = ()
    split: str = "test"
    history: Mapping[str, Mapping[str, Sequence[tuple[float, float]]]] = field(default_factory=dict)
    best_step: int | None = None
    examples: Sequence[Example] = ()
    sure: Sequence[Example] = ()
    load: str = ""
    config: str = ""
    environment: Mapping[str, Any] = field(default_factory=dict)
