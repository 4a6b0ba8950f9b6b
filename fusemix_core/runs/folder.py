"""The folder of a run: config, environment, metrics, checkpoints, model, report."""

from __future__ import annotations

import json
import math
import os
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from itertools import chain, count
from pathlib import Path
from typing import Any

import tomli_w

from fusemix_core.config import DataConfig, FuseConfig, RunConfig, from_dict, read_toml, to_dict
from fusemix_core.disk import TEMPORARY, Advice, explained, flush
from fusemix_core.errors import ArtefactError, ConfigError, RunExistsError
from fusemix_core.interfaces import Callback
from fusemix_core.rerank_config import RerankConfig
from fusemix_core.runs.config import COMPLETE, recorded_recipe

_GO_ON = "then go on with the run by --resume: what was saved is kept."
ADVICE = Advice(
    f"Free some space, {_GO_ON}",
    "Choose an --out that you may write to.",
    f"Check the disk, {_GO_ON}",
)
"""Where a run can't be written."""
_ELSEWHERE = "Choose an --out that you may write to."
BEFORE = Advice("Free some space, or choose another --out.", _ELSEWHERE, _ELSEWHERE)
"""The same before it has begun."""


def default_out() -> Path:
    """A folder under `runs/` that is not there yet, named for the time."""
    now = time.strftime("%Y-%m-%d-%H%M%S")
    names = chain([now], (f"{now}-{number}" for number in count(2)))
    return next(path for name in names if not (path := Path("runs") / name).exists())


class RunFolder:
    """`<path>/` with config.toml, data.json, metrics.jsonl, checkpoints/, model/, …"""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config = self.path / "config.toml"
        self.environment = self.path / "environment.json"
        self.metrics = self.path / "metrics.jsonl"
        self.rejected = self.path / "rejected.jsonl"
        self.chosen = self.path / "chosen.jsonl"
        self.failed_batch = self.path / "failed_batch.json"
        self.data = self.path / "data.json"
        self.results = self.path / "results.json"
        self.checkpoints = self.path / "checkpoints"
        self.model = self.path / "model"
        self.report = self.path / "report.html"

    def start(self, config: RunConfig | FuseConfig | RerankConfig, resume: bool) -> None:
        """Make the folder, or with `resume` take up the run that is in it.

        Raises:
            RunExistsError: The folder is in use.
            ConfigError: The run there had another config, or one that this version can't read.
            ArtefactError: The folder can't be written.
        """
        self.check(resume)
        if self.config.exists():
            self._check_same(config)
        with explained(f"The run {self.path}", BEFORE):
            self.path.mkdir(parents=True, exist_ok=True)
        data = replace(config.data, base=config.data.base or os.getcwd())
        config = replace(config, data=data)
        table = _without_none(to_dict(config))
        if "recipe" in table:
            table["recipe"][COMPLETE] = True
        write_text(self.config, tomli_w.dumps(table))

    def check(self, resume: bool) -> None:
        """Raise `RunExistsError` or `ArtefactError` if no run can be put here, or with `resume`
        taken up; nothing stays written."""
        above = next((p for p in (self.path, *self.path.parents) if os.path.lexists(p)), Path())
        with explained(f"The run {self.path}", BEFORE):
            if not above.is_dir():
                raise ArtefactError(f"{above} is a file.", "Choose another --out: a folder.")
            if self.config.exists():
                if not resume:
                    raise RunExistsError(
                        f"{self.path} already contains a run.",
                        "Go on with it by --resume, or choose another --out.",
                    )
            elif above == self.path and any(p.suffix != TEMPORARY for p in self.path.iterdir()):
                raise RunExistsError(f"{self.path} is not empty.", "Choose another --out.")
            # Only a try shows it: root may write to folders that take nothing, such as /proc.
            os.rmdir(tempfile.mkdtemp(TEMPORARY, ".", dir=above))

    def _check_same(self, config: RunConfig | FuseConfig | RerankConfig) -> None:
        old, new = comparable(self._begun_with(type(config))), comparable(to_dict(config))
        for key in sorted(old.keys() | new.keys()):
            if old.get(key) != new.get(key):
                raise ConfigError(
                    f"The run in {self.path} had {key} = {old.get(key)!r}, not {new.get(key)!r}.",
                    f"Resume it as it was (--config {self.config} --resume), or choose another "
                    "--out.",
                )

    def _begun_with(self, kind: type[RunConfig | FuseConfig | RerankConfig]) -> dict[str, Any]:
        """The config of the run that is there. Settings that the version which began it did not
        have yet have their defaults."""
        table = read_toml(self.config)
        if isinstance(table.get("recipe"), Mapping):
            table["recipe"] = recorded_recipe(table["recipe"])
        try:
            return to_dict(from_dict(kind, table))
        except ConfigError as error:
            raise ConfigError(
                f"{self.config} can't be resumed by this version of fusemix: {error.message}",
                "Resume it with the version that began it, or choose another --out.",
            ) from error

    def write_json(self, path: Path, value: Any) -> None:
        write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def undefined_as_none(value: Any) -> Any:
    """Plain values with None for NaN and infinity, which JSON does not have."""
    if isinstance(value, Mapping):
        return {k: undefined_as_none(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [undefined_as_none(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _without_none(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _without_none(v) for k, v in value.items() if v is not None}
    return [_without_none(v) for v in value] if isinstance(value, list | tuple) else value


def comparable(config: Mapping[str, Any]) -> dict[str, Any]:
    """A run's config as one table, without what decides nothing: a recipe's summary and paper, and
    from where the data's paths are named. `dtype` was float32 by default before it was auto; if
    latents differ for it, the checkpoint is refused."""
    config = dict(_without_none(config))
    if config.get("dtype") == "auto":
        config["dtype"] = "float32"
    if isinstance(config.get("data"), Mapping):
        config["data"] = _resolved(config["data"])
    if isinstance(recipe := config.get("recipe"), Mapping):
        config["recipe"] = {k: v for k, v in recipe.items() if k not in ("summary", "paper")}
    return {key: value for key, value in flatten(config).items() if value not in ([], "")}


def _resolved(data: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a `DataConfig` with absolute paths."""
    found = from_dict(DataConfig, data, "data.").located()
    paths = {
        "source": [os.path.realpath(one) for one in found.source],
        "validation": found.validation and os.path.realpath(found.validation),
        "test": found.test and os.path.realpath(found.test),
    }
    return _without_none({**to_dict(found), **paths})


def flatten(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested tables as one table with dotted keys."""
    out: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, Mapping):
            out.update(flatten(value, f"{prefix}{key}."))
        else:
            out[prefix + key] = value
    return out


def write_text(path: Path, text: str) -> None:
    """Replace a file whole or not at all; `ArtefactError` if it can't be written."""
    temporary = path.with_name(f".{path.name}{TEMPORARY}")
    with explained(f"{path}", ADVICE):
        temporary.write_text(text, encoding="utf-8")
        flush(temporary)
        temporary.replace(path)


class MetricsLog(Callback):
    """Appends what a fit reports to metrics.jsonl; a resumed fit rewrites the steps it repeats."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._opened = False
        self._waiting: list[tuple[int, Mapping[str, float]]] = []

    def on_step(self, step: int, metrics: Mapping[str, float]) -> None:
        self._waiting.append((step, metrics))
        if getattr(metrics, "known", True):  # else they would have to be awaited from a GPU
            self._write_waiting()

    def on_evaluation(self, step: int, metrics: Mapping[str, float]) -> None:
        self._write_waiting()
        self._write("validation", step, metrics)

    def on_end(self) -> None:
        self._write_waiting()

    def _write_waiting(self) -> None:
        """The steps that are not written yet, up to one that has diverged."""
        waiting, self._waiting = self._waiting, []
        for step, metrics in waiting:
            if not math.isfinite(metrics.get("loss", 0.0)):
                return
            self._write("train", step, metrics)

    def _write(self, kind: str, step: int, metrics: Mapping[str, float]) -> None:
        if not self._opened:
            kept = [r for r in read_metrics(self.path) if r["step"] < step]
            write_text(self.path, "".join(json.dumps(r) + "\n" for r in kept))
            self._opened = True
        line = json.dumps({"kind": kind, "step": step, **metrics}) + "\n"
        with explained(f"{self.path}", ADVICE), open(self.path, "a", encoding="utf-8") as file:
            file.write(line)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl; a last line cut short by a crash is left out, as is what follows
    a damaged one."""
    rows = []
    if path.exists():
        for line in path.read_bytes().splitlines():
            try:
                row = json.loads(line.decode())
            except (ValueError, RecursionError):
                break
            if not _is_metrics(row):
                break
            rows.append(row)
    return rows


def _is_metrics(row: Any) -> bool:
    """Whether a line contains a kind, a step, and numbers."""
    if not isinstance(row, dict) or type(row.get("step")) is not int:
        return False
    numbers = (value for key, value in row.items() if key != "kind")
    return isinstance(row.get("kind"), str) and all(type(n) in (int, float) for n in numbers)
