"""Fusers side by side: every way to predict a target, on the same latents, rows and choice."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fusemix_core.benchmark.latents import rows_digest
from fusemix_core.benchmark.lines import add_line, key_of, read_lines, results_in, seed_list
from fusemix_core.config import Part, parse_part, to_dict
from fusemix_core.context import FitContext
from fusemix_core.devices import resolve_device
from fusemix_core.errors import ConfigError, FusemixError
from fusemix_core.fusion.folds import folds_of
from fusemix_core.fusion.study import Study, study, table
from fusemix_core.interfaces import Encoder
from fusemix_core.registry import registry
from fusemix_core.runs.encode import Encoded
from fusemix_core.runs.encode_plan import encode_plan
from fusemix_core.runs.environment import environment
from fusemix_core.runs.fuse_rows import fold_rows, fold_task
from fusemix_core.runs.fusing import FusePlan, build_fuse_config, make_fuse_plan, target_facts
from fusemix_core.runs.inputs import DataInput, EncoderInput, encoder_names, table_of
from fusemix_core.runs.reporter import Reporter

REPORT = "report.md"


@dataclass(frozen=True)
class Row:
    """One way to predict, over the seeds.

    Attributes:
        name: of the fuser, the modality or the baseline.
        kind: `baseline`, `single` or `fuser`.
        mean: of the task's metric on test; None if it is undefined.
        half: half the width of its 95% interval; None if there is none.
        ahead: by how much it is better than the best modality by itself, the mean over seeds.
        ahead_half: half the width of that difference's interval.
        seconds: of a fit, the median.
        seeds: on how many it was fitted.
    """

    name: str
    kind: str
    mean: float | None
    half: float | None
    ahead: float | None
    ahead_half: float | None
    seconds: float
    seeds: int

    @property
    def verdict(self) -> str:
        """Whether it is better than the best modality by itself."""
        if self.kind != "fuser" or self.ahead is None or self.ahead_half is None:
            return ""
        if abs(self.ahead) <= self.ahead_half:
            return "no difference"
        return "better" if self.ahead > 0 else "worse"


def bench_fusers(
    encoders: Mapping[str, EncoderInput],
    data: DataInput | None = None,
    *,
    target: str | Sequence[str] | None = None,
    time: str | None = None,
    event: str | None = None,
    task: str | Mapping[str, Any] = "auto",
    methods: Sequence[str | Mapping[str, Any]] = (),
    seeds: int | Sequence[int] = 3,
    out: str | Path = "bench",
    reporter: Reporter | None = None,
    **settings: Any,
) -> list[dict[str, Any]]:
    """Fit every fuser to the same latents and rows, seed by seed: `fusemix bench --target`.

    Args:
        encoders, data, target, time, event, task, **settings: as `fuse` takes them.
        methods: fusers, each a name, a name with options (`"mlp width=64"`) or a table of both. All
            that are registered, if none is given.
        seeds: how many, or which. Each draws its own splits, unless the data say theirs.
        out: gets `results.jsonl`, to which finished seeds are added, and `report.md`.
        reporter: gets the progress.

    Returns:
        One line a seed: `candidates` has metrics, interval and seconds of every way to predict,
        `errors` the fusers that can't be fitted, and why.

    Raises:
        FusemixError: for anything that the caller can mend.

    Example:
        encoders = {"image": "efficientnet-lite0", "text": "minilm"}
        bench_fusers(encoders, "shop.csv", target="category", methods=["stack", "mlp"])
    """
    names, objects = encoder_names(encoders)
    targets = (target,) if isinstance(target, str) else tuple(target or ())
    values = {"encoders": names, "task": task, **settings}
    values["data"] = own = dict(table_of(data, objects, len(names)))
    kind = task if isinstance(task, str) else task.get("name")
    facts, values["targets"] = target_facts(targets, time, event, kind)
    own["facts"] = {**own.get("facts", {}), **facts}
    return run_fusers(values, methods, seeds, out, reporter=reporter, objects=objects)


def run_fusers(
    values: Mapping[str, Any],
    methods: Sequence[str | Mapping[str, Any]],
    seeds: int | Sequence[int],
    out: str | Path,
    *,
    reporter: Reporter | None = None,
    objects: Mapping[str, Encoder] | None = None,
) -> list[dict[str, Any]]:
    """`bench_fusers` from the tables of a `FuseConfig`."""
    reporter, numbers = reporter or Reporter(), seed_list(seeds)
    fusers = fusers_named(methods)
    config, specs = build_fuse_config(dict(values))
    path = results_in(out)
    done = {one["key"]: one for one in read_lines(path)}
    lines = []
    for number, seed in enumerate(numbers, 1):
        plan = make_fuse_plan(replace(config, seed=seed), specs, tell=reporter.note)
        device = resolve_device(plan.config.device)
        encoded = encode_plan(
            plan, device, None, reporter, objects or {}, dtypes={}, ragged=list(plan.specs)
        )
        line = _described(plan, encoded, fusers, seed)
        if line["key"] not in done:
            reporter.stage(f"seed {number} of {len(numbers)}")
            line |= _measured(plan, encoded, fusers, reporter) | {"environment": environment()}
            add_line(path, line)
            done[line["key"]] = line
        lines.append(done[line["key"]])
    (path.parent / REPORT).write_text("\n".join(page(lines)) + "\n", encoding="utf-8")
    return lines


def fusers_named(methods: Sequence[str | Mapping[str, Any]]) -> dict[str, Part]:
    """Label → fuser; every registered one if none is named.

    Raises:
        ConfigError, UnknownNameError: one is not a fuser, or two have one label.
    """
    given = list(methods) or sorted(spec.name for _, spec in registry.all_components("fuser"))
    found: dict[str, Part] = {}
    for one in given:
        part = parse_part(one) if isinstance(one, str) else Part(**one)
        label = " ".join([part.name, *(f"{k}={v}" for k, v in part.options.items())])
        if label in found:
            raise ConfigError(f"The fuser {label!r} is named twice.")
        registry.check("fuser", part)
        found[label] = part
    return found


def _described(
    plan: FusePlan, encoded: Encoded, fusers: Mapping[str, Part], seed: int
) -> dict[str, Any]:
    """What a line is of, and its key."""
    facts = {
        "encoders": {m: spec.name for m, spec in plan.specs.items()},
        "views": plan.views,
        "seed": seed,
        "fusers": {label: to_dict(part) for label, part in fusers.items()},
        "latents": encoded.digest,
        "rows": rows_digest(encoded.dataset, {"groups": plan.targets.groups}),
        "task": to_dict(plan.targets.part),
        "targets": list(plan.config.targets),
        "folds": plan.config.folds,
        "versions": {p.dist: p.version for p in registry.plugins},
    }
    return {"key": key_of(facts), **facts}


def _measured(
    plan: FusePlan, encoded: Encoded, fusers: Mapping[str, Part], reporter: Reporter
) -> dict[str, Any]:
    """The candidates of one seed, measured."""
    targets = replace(plan.targets, dataset=encoded.dataset).after(plan.dataset)
    fits = folds_of(encoded.dataset.splits, targets.groups, plan.config.folds, plan.config.seed)
    rows = [fold_rows(targets, encoded, one, fold_task(targets, fits, one)) for one in fits]
    context = FitContext(device=resolve_device(plan.config.device), seed=plan.config.seed)
    errors: dict[str, str] = {}

    def failed(name: str, error: Exception) -> None:
        errors[name] = error.message if isinstance(error, FusemixError) else f"{error!r}"
        reporter.note(f"{name} failed: {errors[name]}")

    found: Study = study(
        rows, dict(fusers), "auto", [context] * len(rows), reporter.stage, failed=failed
    )
    return {
        "metric": found.folds[0].task.primary,
        "greater_is_better": found.folds[0].task.greater_is_better,
        "rows": {name: len(part) for name, part in encoded.dataset.splits.items()},
        "chosen": found.chosen,
        "single": found.single,
        "candidates": {
            name: one | {"over_single": found.test.difference(name, found.single).as_dict()}
            for name, one in table(found).items()
        },
        "errors": errors,
    }


def summarised(lines: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Every way to predict over the seeds: what uses nothing, single modalities, fusers.

    Intervals are the mean of those within each split, from rows drawn with replacement. Two or
    three seeds can't tell how far splits differ, and their test rows overlap."""
    metric, found = lines[0]["metric"], []
    for name in dict.fromkeys(name for line in lines for name in line["candidates"]):
        each = [line["candidates"][name] for line in lines if name in line["candidates"]]
        ahead = [one["over_single"] for one in each]
        found.append(
            Row(
                name,
                each[0]["kind"],
                _mean([one["metrics"][metric] for one in each]),
                _half([one["interval"] for one in each]),
                _mean([one["value"] for one in ahead]),
                _half([one["interval"] for one in ahead]),
                statistics.median(one["seconds"] for one in each),
                len(each),
            )
        )
    return found


def _half(intervals: Sequence[Sequence[float] | None]) -> float | None:
    return _mean([None if one is None else (one[1] - one[0]) / 2 for one in intervals])


def _mean(values: Sequence[float | None]) -> float | None:
    """Of those that are known; None if none is, such as recall if there is nothing to find."""
    known = [one for one in values if one is not None and not math.isnan(one)]
    return statistics.fmean(known) if known else None


HEADS = ("predicted by", "{metric}", "over the best modality", "", "s")
"""The columns of the table."""


def cells(lines: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """The heads and rows of the table, as a report and a terminal show it."""
    rows = []
    for one in summarised(lines):
        gain = _with(one.ahead, one.ahead_half, "+") if one.kind == "fuser" else "–"
        seconds = f"{one.seconds:.2f}" if one.kind == "fuser" else "–"
        rows.append([one.name, _with(one.mean, one.half), gain, one.verdict, seconds])
    return [head.format(metric=lines[0]["metric"]) for head in HEADS], rows


def protocol(lines: Sequence[Mapping[str, Any]]) -> str:
    """How the numbers were made, in a few sentences."""
    best = "the best modality by itself on validation"
    return (
        f"Task {lines[0]['task']['name']}; means over {len(lines)} seeds. ± is a 95% interval "
        "within a split: groups of test rows drawn with replacement, the mean over seeds. All have "
        "the same latents and rows; test rows are measured once. The gain is over "
        f"{best}. s are seconds of a fit."
    )


def page(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    """Lines of Markdown: how it was measured, the table, and what failed."""
    heads, rows = cells(lines)
    found = ["# Fusers compared", "", protocol(lines), ""]
    found += [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    found += [f"| {' | '.join(row)} |" for row in rows]
    return [*found, "", *failures(lines)]


def failures(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    """A sentence for each fuser that can't be fitted."""
    errors = {name: text for line in lines for name, text in line["errors"].items()}
    return [f"{name} failed: {text}" for name, text in errors.items()]


def _with(value: float | None, half: float | None, sign: str = "") -> str:
    if value is None:
        return "–"
    return f"{value:{sign}.3f}" + ("" if half is None else f" ± {half:.3f}")
