"""Scoring the pairs of a table with a fused model, row by row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fusemix_core.adapters.rows import embed_rows
from fusemix_core.config import DataConfig, from_dict
from fusemix_core.data.dataset import PairedDataset
from fusemix_core.data.original import (
    TableWriter,
    check_new_columns,
    original_columns,
    original_rows,
)
from fusemix_core.data.reading import NO_TRUST
from fusemix_core.disk import Advice, explained
from fusemix_core.errors import FusemixError
from fusemix_core.evaluation.pairing import (
    UNPAIRED,
    Others,
    Partners,
    among,
    paired_scores,
    percentiles,
    unpaired,
)
from fusemix_core.fused import FusedModel
from fusemix_core.jobs.measured_data import data_table, measured_data, run_of
from fusemix_core.runs.encode import Encoded
from fusemix_core.runs.models import encode_for
from fusemix_core.runs.notices import Notices
from fusemix_core.runs.reading import read_usable
from fusemix_core.runs.reporter import Reporter
from fusemix_core.runs.seen import TrainedOn

_AT_ONCE = 4_096
"""Rows that are scored and written at a time."""
_FEWEST = 10
"""Validation pairs that a distribution of unpaired scores can be made of."""
_ADVICE = Advice(
    "Free some space, or choose another --out.",
    "Choose an --out that you may write to.",
    "Check the disk.",
)
_KINDS = {"score": float, "cosine": float, "percentile": float}

Line = dict[str, Any]


@dataclass
class Scored:
    """The outcome of scoring a table.

    Attributes:
        rows: how many were read.
        scored: how many of them have a score.
        bad: how many could not be used.
        percentile_of: what the percentiles are of.
        among: modality → how many items ranks are among.
        lines: the rows, unless they were written.
        worst: the lowest scores, at most ten.
        notices: what became of the rows, and warnings.
    """

    rows: int = 0
    scored: int = 0
    bad: int = 0
    percentile_of: str = ""
    among: dict[str, int] = field(default_factory=dict)
    lines: list[Line] = field(default_factory=list)
    worst: list[tuple[float, str, int, str]] = field(default_factory=list)
    notices: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """As plain data, for `--json`."""
        counts = {"seen": self.rows, "scored": self.scored, "bad": self.bad}
        more = {"pairs": self.lines} if self.lines else {}
        about = {"percentile_of": self.percentile_of, "ranks_among": self.among}
        return {**counts, **about, **more, **self.notices}


class _PairScorer:
    """Scores pairs of two modalities of a dataset, any of its rows at a time."""

    def __init__(self, model: FusedModel, encoded: Encoded, pair: tuple[str, str]) -> None:
        self.model, self.pair, self.tables = model, pair, encoded.tables
        dataset = encoded.dataset
        self.links = dataset.links[:, [dataset.modalities.index(m) for m in pair]]
        whole = self.links[(self.links >= 0).all(axis=1)]
        first, second = pair
        self.others = (
            Others.sample(whole[:, 0], lambda ids: self.embed(first, ids)),
            Others.sample(whole[:, 1], lambda ids: self.embed(second, ids)),
        )
        self.partners = {
            (q, t): Partners(whole[:, q], whole[:, t], self.others[t]) for q, t in ((0, 1), (1, 0))
        }
        self.ways = {
            (q, t): model.scorer.prepare(self.others[t].rows, pair[q], pair[t])
            for q, t in self.partners
        }
        self.chance = torch.zeros(0)

    def embed(self, modality: str, ids: Tensor) -> Tensor:
        """Unit-norm embeddings of items."""
        adapter = self.model.adapters[modality].to(self.model.device).eval()
        return embed_rows(adapter, self.tables[modality], ids, self.model.device, out="cpu").float()

    def unpaired_scores(self, rows: np.ndarray) -> Tensor:
        """Scores of items of different rows among these, drawn by a fixed seed."""
        links = self.links[rows]
        drawn = unpaired(links[(links >= 0).all(axis=1)], UNPAIRED)
        if not len(drawn):
            return torch.zeros(0)
        first, second = (self._rows(k, drawn[:, k]) for k in (0, 1))
        return paired_scores(self.model.scorer.score, first, second, self.pair)

    def _rows(self, side: int, items: np.ndarray) -> Tensor:
        """The embedding of each item of a side; one that occurs again is embedded once."""
        ids, at = np.unique(items, return_inverse=True)
        return self.embed(self.pair[side], torch.from_numpy(ids))[torch.from_numpy(at)]

    def __call__(self, rows: np.ndarray) -> list[Line]:
        """Column → value of each row; nothing of one that lacks an item."""
        links = self.links[rows]
        both = (links >= 0).all(axis=1)
        found: list[Line] = [{} for _ in rows]
        if not both.any():
            return found
        links = links[both]
        first, second = sides = self._rows(0, links[:, 0]), self._rows(1, links[:, 1])
        own = paired_scores(self.model.scorer.score, first, second, self.pair)
        columns = {
            "score": own,
            "cosine": (first * second).sum(dim=1),
            "percentile": percentiles(own, self.chance),
        }
        for (q, t), partners in self.partners.items():
            of = among(sides[q], links[:, q], own, self.others[t], partners, self.ways[q, t])
            columns[f"rank_{self.pair[t]}"] = of.rank
        values = {name: _plain(column) for name, column in columns.items()}
        for number, row in enumerate(np.flatnonzero(both).tolist()):
            found[row] = {name: column[number] for name, column in values.items()}
        return found


def score(
    model: FusedModel,
    config: DataConfig,
    out: str | Path | None = None,
    *,
    validation: tuple[DataConfig, int] | None = None,
    keep: bool = True,
    reporter: Reporter | None = None,
) -> Scored:
    """Score every pair of a table, and write them with the table's own columns.

    Rows are embedded, scored and written a few thousand at a time. Ranks are among the items of
    the table, 20,000 of them at most; an item's other partners don't count.

    Args:
        model: the fused model.
        config: the data.
        out: a table to write (`.csv`, `.tsv`, `.jsonl`, `.parquet`), with a line for each row, in
            their order. A row that can't be scored has no score.
        validation: the data of the model's run, and the seed that splits them. Percentiles are
            among the unpaired items of its validation split; without, among those of the table.
        keep: whether the result has the lines, if they aren't written.
        reporter: gets the progress.

    Raises:
        FusemixError: the data, or an encoder, can't be used.

    Example:
        score(load("runs/1/model"), DataConfig(("pairs.csv",)), "scored.csv").scored
    """
    reporter = reporter or Reporter()
    encoded = _encoded(model, config, reporter)
    dataset = encoded.dataset
    pairs = list(combinations(dataset.modalities, 2))
    scorers = [_PairScorer(model, encoded, pair) for pair in pairs]
    told = _set_chance(model, scorers, validation, np.arange(len(dataset)), reporter)
    seen = TrainedOn.count(model, dataset, slice(None))
    warnings = [*encoded.warnings, *(seen.warnings() if seen else [])]
    for warning in seen.warnings() if seen else []:
        reporter.note(warning)
    result = Scored(percentile_of=told, notices=Notices.of(dataset, warnings).as_dict())
    result.among = {m: len(o.ids) for s in scorers for m, o in zip(s.pair, s.others, strict=True)}
    reporter.stage("Scoring")
    columns = original_columns(config)
    added = _added(pairs, dataset)
    names = check_new_columns(columns, list(added))
    kinds = {names[name]: kind for name, kind in added.items() if kind is not str}
    lines = _lines(config, dataset, scorers, names, result)
    if out is None:
        result.lines = [line for line in lines if keep]
        return result
    with (
        explained(f"{out}", _ADVICE),
        TableWriter(out, [*columns, *names.values()], kinds) as table,
    ):
        table.write_all(lines)
    return result


def scored_data(
    model: str | Path, given: Mapping[str, Any]
) -> tuple[DataConfig, tuple[DataConfig, int] | None]:
    """What to score, and the validation data of the model's run if it names any.

    Args:
        model: the folder of the model or of its run.
        given: fields of `DataConfig`. All others are as in the run, if these name its data.
    """
    config = from_dict(DataConfig, data_table(model, run := run_of(model), given)[0], "data.")
    if not run.get("data", {}).get("source"):
        return config, None
    own = measured_data(model, {}, "validation", None)
    return config, (own.config, own.seed)


def _encoded(model: FusedModel, config: DataConfig, reporter: Reporter) -> Encoded:
    """The latents of all rows: no splits, and equal rows count each for itself."""
    config = replace(
        config, facts={}, trust_column=NO_TRUST, validation_fraction=0.0, test_fraction=0.0
    )
    takes = {m: info.takes for m, info in model.encoders.items()}
    how: dict[str, Any] = {"repeats": True, "optional": takes}
    dataset = read_usable(config, takes, tell=reporter.note, **how)
    return encode_for(model, dataset, reporter, config.max_bad)


def _set_chance(
    model: FusedModel,
    scorers: Sequence[_PairScorer],
    validation: tuple[DataConfig, int] | None,
    rows: np.ndarray,
    reporter: Reporter,
) -> str:
    """Give the scorers the scores of unpaired items, and return their origin."""
    known: dict[tuple[str, str], Tensor] = {}
    if validation is not None:
        try:
            config, seed = validation
            takes = {m: info.takes for m, info in model.encoders.items()}
            dataset = read_usable(config, takes, seed, optional=takes)
            encoded = encode_for(model, dataset, reporter, config.max_bad)
            held = encoded.dataset.splits["validation"]
            if len(held) >= _FEWEST:
                for scorer in scorers:
                    own = _PairScorer(model, encoded, scorer.pair)
                    known[scorer.pair] = own.unpaired_scores(held)
        except (FusemixError, ValueError) as error:
            why = getattr(error, "message", error)
            reporter.note(f"The data of the model's run can't be used for percentiles: {why}")
    for scorer in scorers:
        scorer.chance = known.get(scorer.pair, torch.zeros(0))
        if not len(scorer.chance):
            scorer.chance = scorer.unpaired_scores(rows)
    if known:
        return "random pairs of the validation split of the model's run"
    return "random pairs of these data"


def _added(pairs: Sequence[tuple[str, str]], dataset: PairedDataset) -> dict[str, type]:
    """The columns that are added, and their types."""
    found: dict[str, type] = {}
    for pair in pairs:
        own = {**_KINDS, f"rank_{pair[1]}": int, f"rank_{pair[0]}": int}
        found |= {f"{_prefix(pair, pairs)}{name}": kind for name, kind in own.items()}
    if dataset.rejected:
        found["problem"] = str
    return found


def _prefix(pair: tuple[str, str], pairs: Sequence[tuple[str, str]]) -> str:
    return f"{pair[0]}_{pair[1]}_" if len(pairs) > 1 else ""


def _lines(
    config: DataConfig,
    dataset: PairedDataset,
    scorers: Sequence[_PairScorer],
    names: Mapping[str, str],
    result: Scored,
) -> Iterator[Line]:
    """The rows with their own columns and what is added; one of several pairs comes once each."""
    places: dict[tuple[str, int], list[int]] = {}
    for i in range(len(dataset)):
        places.setdefault(dataset.origin[i], []).append(i)
    problems = {
        (one.path, one.row): " ".join(f"{one.modality} {one.reason}".split())
        for one in dataset.rejected
    }
    unread = set(problems) - set(places)
    waiting: list[tuple[tuple[str, int], Mapping[str, Any], int]] = []
    for file, row, cells in original_rows(config):
        result.rows += 1
        unread.discard((file, row))
        for number in places.get((file, row), [-1]):
            waiting.append(((file, row), cells, number))
        if len(waiting) >= _AT_ONCE:
            yield from _scored(waiting, scorers, names, problems, result)
            waiting = []
    yield from _scored(waiting, scorers, names, problems, result)
    result.rows += len(unread)
    result.bad += len(unread)


def _scored(
    waiting: Sequence[tuple[tuple[str, int], Mapping[str, Any], int]],
    scorers: Sequence[_PairScorer],
    names: Mapping[str, str],
    problems: Mapping[tuple[str, int], str],
    result: Scored,
) -> Iterator[Line]:
    numbers = np.array([number for _, _, number in waiting], np.int64)
    usable = np.flatnonzero(numbers >= 0)
    added: list[Line] = [{} for _ in waiting]
    pairs = [scorer.pair for scorer in scorers]
    for scorer in scorers:
        prefix = _prefix(scorer.pair, pairs)
        for i, values in zip(usable.tolist(), scorer(numbers[usable]), strict=True):
            added[i] |= {names[f"{prefix}{name}"]: value for name, value in values.items()}
    for (place, cells, _), own in zip(waiting, added, strict=True):
        result.scored += bool(own)
        result.bad += not own
        if own:
            _note_worst(result, own, place, names, pairs)
        if place in problems:
            own[names["problem"]] = problems[place]
        yield {**cells, **own}


def _note_worst(
    result: Scored,
    own: Line,
    place: tuple[str, int],
    names: Mapping[str, str],
    pairs: Sequence[tuple[str, str]],
) -> None:
    """Keep the ten rows whose first pair has the lowest score."""
    prefix = _prefix(pairs[0], pairs)
    value = own.get(names[f"{prefix}score"])
    if value is not None:
        shown = own[names[f"{prefix}percentile"]]
        result.worst = sorted([*result.worst, (value, *place, f"{shown:.1f}")])[:10]


def _plain(column: Tensor) -> list[Any]:
    """The values, None for NaN."""
    if column.is_floating_point():
        return [None if value != value else round(value, 6) for value in column.tolist()]
    return column.tolist()
