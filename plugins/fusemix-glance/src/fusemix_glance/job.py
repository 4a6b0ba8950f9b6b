"""`fusemix glance fit`: from labelled films to a model; and a table of films through it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fusemix_core.config import DataConfig
from fusemix_core.data.dataset import PairedDataset
from fusemix_core.data.facts import Fact
from fusemix_core.devices import resolve_device
from fusemix_core.errors import ConfigError, DataError
from fusemix_core.fuser import Labelled
from fusemix_core.interfaces import Encoder, FitContext, PairedLatents, Task
from fusemix_core.jobs.predict import Predictions
from fusemix_core.paired import ResidentLatents, ResidentTokens
from fusemix_core.runs.notices import Notices
from fusemix_core.runs.reading import read_usable
from fusemix_core.runs.reporter import Reporter
from fusemix_core.saved.model import SavedModel
from fusemix_core.tasks.classify import Classify
from fusemix_glance.films import read_film
from fusemix_glance.fitting import FIRST, LOOK, MOST, SOUND, fit_glance
from fusemix_glance.model import GlanceModel, Watched, check_looks
from fusemix_glance.senses import Senses, encoder_info

FEWEST = {"train": 10, "validation": 3}
"""Films with a target in each split."""


@dataclass(frozen=True)
class GlanceConfig:
    """How a glance model is fitted.

    Attributes:
        first: the cheap image encoder, which sees every window of every moment.
        look: the expensive one.
        sound: the encoder of sounds; empty for films that are only seen.
        moments: how many of a film.
        windows: a side of a frame; 1 looks at whole frames.
        most: windows per film that the expensive encoder sees in fitting.
        seed: of splits and fits.
        device: where encoders run.
    """

    first: str | Encoder = "efficientnet-lite0-64"
    look: str | Encoder = "efficientnet-lite2"
    sound: str | Encoder = "speech-embedding"
    moments: int = 30
    windows: int = 2
    most: int = MOST
    seed: int = 0
    device: str = "auto"

    def __post_init__(self) -> None:
        for name in ("moments", "windows", "most"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}.", "It is 1 or more.")
        if self.most > self.moments:
            raise ConfigError(
                f"Of {self.moments} moments, {self.most} can't be looked at.",
                f"Look at {self.moments} at most.",
            )


def fit_films(
    data: DataConfig,
    config: GlanceConfig | None = None,
    *,
    reporter: Reporter | None = None,
) -> GlanceModel:
    """Fit a model to a table of films with their classes.

    Args:
        data: has the modality `video` and the fact `target`.
        config: how.
        reporter: gets the progress.

    Returns:
        The model. `save_pretrained` writes it, `fusemix_core.load` reads it.

    Raises:
        DataError: too few films can be used.
        ConfigError: an encoder doesn't fit.
    """
    config, reporter = config or GlanceConfig(), reporter or Reporter()
    dataset = read_usable(
        data, {"video": "file"}, config.seed, tell=reporter.note, least=1, repeats=True
    )
    sources = {FIRST: config.first, **({SOUND: config.sound} if config.sound else {})}
    sources[LOOK] = config.look
    infos = {m: encoder_info(m, source) for m, source in sources.items()}
    model = SavedModel(infos, {}, sources=sources, device=config.device)
    films = _Films(dataset, model, config, reporter)
    rows, task = films.labelled()
    train, validation = (rows[name] for name in FEWEST)
    reporter.stage("Fitting")
    context = FitContext(resolve_device(config.device), config.seed, callbacks=[reporter])
    fit = fit_glance(
        train, validation, task, films.look, most=config.most, context=context,
        moments=config.moments,
    )  # fmt: skip
    return GlanceModel(
        infos, fit.first, fit.look, task, side=config.windows, sources=sources,
        recipe={"moments": config.moments, "most": config.most},
        data={"rows": {name: len(one) for name, one in rows.items()}},
        metrics={"looks": fit.looks, "cascade": fit.cascade}, device=config.device,
    )  # fmt: skip


def predict_films(
    model: GlanceModel,
    data: DataConfig,
    *,
    looks: int,
    threshold: float | None = None,
    reporter: Reporter | None = None,
) -> Predictions:
    """The predictions of a table of films.

    Returns:
        Their notices have `glance`: moments, windows that were looked at, and seconds by encoder.
    """
    check_looks(looks, threshold)
    reporter = reporter or Reporter()
    dataset = read_usable(data, {"video": "file"}, tell=reporter.note, least=1, repeats=True)
    found: list[Watched] = []
    reporter.stage("Looking")
    rows = sorted(range(len(dataset)), key=lambda i: dataset.origin[i])
    for i in rows:
        path = dataset.items["video"].load(int(dataset.links[i, 0]))
        found.append(model.watch(path, looks=looks, threshold=threshold))
    notices = Notices.of(dataset, []).as_dict()
    spent = [one.seconds for one in found]
    notices["glance"] = {
        "moments": model.first.moments * len(found),
        "looks": sum(len(one.times) for one in found),
        "seconds": {m: round(sum(s.get(m, 0.0) for s in spent), 2) for m in model.encoders},
    }
    origin = [dataset.origin[i] for i in rows]
    return Predictions(origin, model.columns(found), notices, dataset.rejected)


class _Films:
    """The films of a dataset as rows of latents, and as places to look at."""

    def __init__(
        self, dataset: PairedDataset, model: SavedModel, config: GlanceConfig, reporter: Reporter
    ) -> None:
        self.dataset, self.config, self.reporter = dataset, config, reporter
        self.senses = Senses(model.latents, config.windows)
        self.rate = model.encoder(SOUND).spec.sample_rate if config.sound else None

    def labelled(self) -> tuple[dict[str, Labelled], Task]:
        """The films of each split with their latents by the cheap encoders, and their task."""
        dataset, count = self.dataset, len(self.dataset)
        splits = {name: self._with_target(dataset.splits[name]) for name in dataset.splits}
        for name, least in FEWEST.items():
            if len(splits[name]) < least:
                raise DataError(
                    f"The {name} split has {len(splits[name])} films with a class; at least "
                    f"{least} are needed."
                )
        task = Classify.learn(self._facts(splits["train"]))
        items, sounds = [], []
        for i in range(len(dataset.items["video"])):
            film = self._read(i)
            items.append(self.senses.frames(film))
            heard = self.senses.sounds(film) if self.config.sound else None
            sounds.append(heard)
            self.reporter.encoding("films", i + 1, len(dataset.items["video"]))
        tables: dict[str, ResidentLatents] = {FIRST: ResidentLatents(torch.stack(items))}
        own = torch.from_numpy(dataset.links[:, 0])
        links = [own]
        if any(one is not None for one in sounds):
            lengths = torch.tensor([0 if one is None else len(one) for one in sounds])
            tables[SOUND] = ResidentTokens(
                torch.cat([one for one in sounds if one is not None]), lengths
            )
            links.append(torch.where(lengths[own] > 0, own, -1))
        pairs = PairedLatents(tables, torch.stack(links, dim=1)).with_tokens(tables)
        targets = task.targets(self._facts(np.arange(count)))
        # A film is known by the number of its item.
        whole = Labelled(pairs, targets, own)
        return {name: whole.select(torch.from_numpy(rows)) for name, rows in splits.items()}, task

    def look(self, films: Tensor, moments: Tensor, regions: Tensor) -> Tensor:
        """Windows of films by the expensive encoder, as `Looker` says."""
        found = []
        self.reporter.stage("Looking")
        for done, (i, when, where) in enumerate(zip(films, moments, regions, strict=True), 1):
            film = self._read(int(i))
            found.append(self.senses.look(film, when.tolist(), where.tolist()))
            self.reporter.encoding("looks", done, len(films))
        return torch.stack(found)

    def _read(self, i: int) -> Any:
        path: Path = self.dataset.items["video"].load(i)
        return read_film(path, self.config.moments, self.rate)

    def _with_target(self, rows: np.ndarray) -> np.ndarray:
        return rows[~self.dataset.facts["target"].missing[rows]]

    def _facts(self, rows: np.ndarray) -> dict[str, Fact]:
        return {"target": self.dataset.facts["target"].select(rows)}
