"""The plan of `fusemix fuse`, found from names and data before anything is encoded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from fusemix_core.config import FuseConfig, Part, from_dict
from fusemix_core.data.cells import FactColumn
from fusemix_core.errors import ConfigError
from fusemix_core.fusion import boosting
from fusemix_core.prediction import Task
from fusemix_core.registry import Registry, registry
from fusemix_core.runs.config import own_items, resolve_encoders, resolve_views
from fusemix_core.runs.cost import long_texts
from fusemix_core.runs.facts import facts_table
from fusemix_core.runs.fitting import fit_encoders, learnt
from fusemix_core.runs.matching import MATCH, PRODUCTS, check_match
from fusemix_core.runs.notices import Notices, Tell
from fusemix_core.runs.plan import EncoderPlan, plan_encoders
from fusemix_core.runs.reading import read_usable
from fusemix_core.runs.targets import GROUP, Targeted, suspects, targeted
from fusemix_core.specs import EncoderSpec

AUTO = "auto"
FEWEST_FOLDS = 2


@dataclass
class FusePlan:
    """A run of `fusemix fuse`, resolved and ready. `targets` are the rows to predict."""

    config: FuseConfig
    targets: Targeted
    encoders: dict[str, EncoderPlan]
    warnings: list[str] = field(default_factory=list)

    @property
    def dataset(self):  # noqa: ANN201  a PairedDataset
        """The data, whose splits contain only rows with a target."""
        return self.targets.dataset

    @property
    def specs(self) -> dict[str, EncoderSpec]:
        return {m: e.spec for m, e in self.encoders.items()}

    @property
    def views(self) -> dict[str, str]:
        return {m: e.view for m, e in self.encoders.items()}

    def as_dict(self) -> dict[str, Any]:
        """The plan as plain data, for `--json`."""
        return {
            "encoders": [e.as_dict() for e in self.encoders.values()],
            "task": {"name": self.targets.part.name, "reason": self.targets.reason},
            "fuser": self.config.fuser.name,
            "folds": self.config.folds,
            "splits": {name: len(rows) for name, rows in self.dataset.splits.items()},
            "facts": facts_table(self.dataset.facts, self.config.data),
            "learnt": {m: list(learnt(spec)) for m, spec in self.specs.items() if spec.fitted},
            "rejected": len(self.dataset.rejected),
            "device": self.config.device,
            **Notices.of(self.dataset, self.warnings).as_dict(),
        }


def target_facts(
    targets: tuple[str, ...],
    time: str | None = None,
    event: str | None = None,
    task: str | None = None,
) -> tuple[dict[str, str], tuple[str, ...]]:
    """The columns of targets as facts of the data, and the names of these facts.

    Args:
        targets: columns, each `COLUMN` or `COLUMN:KIND`.
        time, event: the columns of a survival target.
        task: its name; `match` has no target, and others may have usual columns.

    Raises:
        ConfigError: none is given, or both a target and a time are.
    """
    if time or event:
        if targets or not (time and event):
            raise ConfigError(
                "Survival has a time and an event, and no other target.",
                "Example: --time months --event died",
            )
        return {"time": time, "event": event}, ("time", "event")
    if not targets and task == MATCH:
        return {}, ()
    kind = _kind_of(task)
    if not targets and kind is not None and kind.usual:
        return dict(kind.usual), tuple(kind.usual)
    if not targets:
        raise ConfigError(
            "What is to be predicted?",
            "Name its column: --target outcome (several for labels), or --time months --event died",
        )
    if len(targets) == 1:
        named = FactColumn.parse(targets[0])
        read = kind.kind if kind is not None and named.kind is None else ""
        return {"target": f"{targets[0]}:{read}" if read else targets[0]}, ("target",)
    columns = {FactColumn.parse(one).column: one for one in targets}
    return columns, tuple(columns)


def build_fuse_config(
    values: Mapping[str, Any], registry: Registry = registry
) -> tuple[FuseConfig, dict[str, EncoderSpec]]:
    """A checked config and its encoders, from the tables of a TOML file or of options."""
    encoders = values.get("encoders")
    if not isinstance(encoders, Mapping) or not encoders:
        raise ConfigError(
            "No encoder is given.",
            "Example: fusemix fuse -e image=efficientnet-lite0 -e table=columns --target price "
            "--data houses.csv",
        )
    config = from_dict(FuseConfig, dict(values))
    if config.folds == 1 or config.folds < 0:
        raise ConfigError(f"folds is {config.folds}.", f"It is 0, or {FEWEST_FOLDS} or more.")
    if config.task.name == MATCH:
        check_match(len(config.encoders), config.targets, config.folds)
        if config.fuser.name == AUTO:
            config = replace(config, fuser=Part(PRODUCTS, config.fuser.options))
    elif config.task.name != AUTO:
        registry.check("task", config.task)
        suits = task_class(config.task, registry).fuser
        if config.fuser.name == AUTO and suits:
            config = replace(config, fuser=Part(suits, config.fuser.options))
    if config.fuser.name != AUTO:
        registry.check("fuser", config.fuser)
    elif config.fuser.options:
        raise ConfigError("The fuser 'auto' has no options.", "Name one: --fuser block")
    if not config.data.source:
        specs = {m: registry.encoder(name, m) for m, name in config.encoders.items()}
        config = replace(config, data=replace(config.data, **own_items(specs)))
    if missing := [file for file in config.plugins if file not in registry.files]:
        raise ConfigError(
            f"The config needs the plugin {missing[0]}.", f"Load it: --plugin {missing[0]}"
        )
    config = replace(config, plugins=tuple(registry.files))
    if config.data.reader is not None:
        registry.check("reader", config.data.reader)
    specs = resolve_encoders(config.encoders, registry)
    kind = _kind_of(config.task.name, registry)
    suit = () if kind is None else kind.views
    liked = {m: next((v for v in suit if v in spec.views), "") for m, spec in specs.items()}
    return replace(config, views=resolve_views(specs, config.views, liked)), specs


def make_fuse_plan(
    config: FuseConfig, specs: Mapping[str, EncoderSpec], tell: Tell | None = None
) -> FusePlan:
    """Read the data, learn what the task is, and look into the latent store.

    Raises:
        DataError, ConfigError: the data, or the targets, can't be used.
    """
    facts = dict(config.data.facts)
    if config.data.group_by:
        facts[GROUP] = f"{config.data.group_by}:class"
    # A row that lacks a modality is predicted from the others.
    data = replace(config.data, facts=facts, missing="ok")
    takes = {m: spec.takes for m, spec in specs.items()}
    how: dict[str, Any] = {"least": 1, "repeats": True, "options": _options(config)}
    dataset = read_usable(data, takes, config.seed, tell=tell, **how)
    found = targeted(config, dataset)
    if config.fuser.name == AUTO and (suits := task_class(found.part).fuser):
        config = replace(config, fuser=Part(suits))
    specs = fit_encoders(specs, found.dataset)
    encoders = plan_encoders(found.dataset, specs, config, config.device)
    more = [*found.notes, *suspects(config, found), *long_texts(specs, dataset.items)]
    if found.part.name in ("classify", "regress") and not boosting.installed():
        more.append(boosting.MISSING)
    if tell is not None:
        for note in more:
            tell(note)
    return FusePlan(config, found, encoders, [*dataset.warnings, *more])


def _options(config: FuseConfig) -> dict[str, str]:
    """Target → the option that names its column."""
    kind = _kind_of(config.task.name)
    if kind is not None and tuple(kind.usual) == config.targets:
        return {}
    survival = set(config.targets) == {"time", "event"}
    return {name: f"--{name} " if survival else "--target " for name in config.targets}


def fusers_of(part: Part, task: Part, registry: Registry = registry) -> dict[str, Part]:
    """The fusers to fit beside `stack`, by name, the simplest first: those that `auto` chooses
    from and baselines, and the one that the user names."""
    known = {spec.name for _, spec in registry.all_components("fuser")}
    beside = task_class(task, registry).beside
    found = {name: Part(name) for name in beside if name in known}
    return found if part.name == AUTO else {**found, part.name: part}


def task_class(part: Part, registry: Registry = registry) -> type[Task]:
    """The class of a task."""
    return registry.target_of(registry.check("task", part))


def _kind_of(task: str | None, registry: Registry = registry) -> type[Task] | None:
    """The class of the task that the user names; None if it is to be seen from the target."""
    return None if task is None or task in (AUTO, MATCH) else task_class(Part(task), registry)
