"""`GlanceModel`: the saved model of both passes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from fusemix_core.errors import ArtefactError, ConfigError, DataError
from fusemix_core.fuser import Fuser
from fusemix_core.fusion.cascade import confidence
from fusemix_core.interfaces import Padded, Task
from fusemix_core.prediction import Columns
from fusemix_core.saved.card import CardText, model_card, saved_by
from fusemix_core.saved.components import Built
from fusemix_core.saved.model import SavedModel
from fusemix_core.saved.schema import EncoderInfo, SavedConfig
from fusemix_glance.films import Film, read_film
from fusemix_glance.fitting import FIRST, LOOK, SOUND
from fusemix_glance.fuser import GlanceFuser
from fusemix_glance.senses import Senses

LOOKS = 4
"""Looks per film unless the user says."""


@dataclass(frozen=True)
class Watched:
    """A film, after a model has looked at it.

    Attributes:
        scores: float32 `[C]` of the task.
        times: seconds from the start of the moments that were looked at, in this order.
        regions: the window of each, numbered row by row.
        saliency: float `[M]` of all moments.
        seconds: modality → seconds that its encoder took.
    """

    scores: Tensor
    times: list[float]
    regions: list[int]
    saliency: Tensor
    seconds: dict[str, float]


class GlanceModel(SavedModel):
    """Predicts a class from a few windows of a film's frames, which a cheap encoder of all windows
    and one of sounds choose.

    Args:
        encoders: `image:first`, `image:look` and, if films are heard, `audio` → the encoder.
        first: the cheap pass.
        look: predicts from a few windows.
        task: gives classes.
        side: windows a side of a frame.
        more: as in `SavedModel`. `metrics["looks"]` and `metrics["cascade"]` are those of
            `GlanceFit`.

    Example:
        model = fusemix_core.load("runs/glance")
        model.predict(["new.mp4"], looks=4)
    """

    kind = "glance"
    made_by = "`fusemix glance fit`"

    def __init__(
        self,
        encoders: Mapping[str, EncoderInfo],
        first: GlanceFuser,
        look: Fuser,
        task: Task,
        *,
        side: int,
        **more: Any,
    ) -> None:
        self.first, self.look, self.task, self.side = first, look, task, side
        parts = {
            "fuser.first": Built(first, (first.inputs, first.outputs)),
            "fuser.look": Built(look, (look.inputs, look.outputs)),
            "task": Built(task, ()),
        }
        more["recipe"] = {"name": "glance", **more.get("recipe", {}), "side": side}
        super().__init__(encoders, parts, **more)

    @classmethod
    def from_parts(
        cls, encoders: Mapping[str, EncoderInfo], parts: Mapping[str, Built], **more: Any
    ) -> Self:
        """The model of loaded parts: two fusers and a task."""
        side = (more.get("recipe") or {}).get("side")
        wanted = {"fuser.first", "fuser.look", "task"}
        if set(parts) != wanted or not isinstance(side, int) or not {FIRST, LOOK} <= set(encoders):
            raise ArtefactError(
                "This is not a complete model of the kind 'glance'.", "Fit it again."
            )
        made = [parts[name].component for name in ("fuser.first", "fuser.look", "task")]
        return cls(encoders, *made, side=side, **more)

    def predict(
        self,
        films: Iterable[str | os.PathLike[str] | Film],
        *,
        looks: int = LOOKS,
        threshold: float | None = None,
    ) -> list[Any]:
        """The class of each film; arguments as of `watch`."""
        found = [self.watch(film, looks=looks, threshold=threshold) for film in films]
        return list(self.columns(found)["prediction"])

    def watch(
        self,
        film: str | os.PathLike[str] | Film,
        *,
        looks: int = LOOKS,
        threshold: float | None = None,
    ) -> Watched:
        """Look at a film.

        Args:
            film: a video file, or its moments.
            looks: windows that go through the expensive encoder; 0 predicts from the cheap pass.
            threshold: a probability: no further look once the predicted class is as probable.
                `looks` are the most then.

        Raises:
            DataError: the film can't be decoded.
            ConfigError: `looks` or `threshold` is out of range.
        """
        check_looks(looks, threshold)
        if not isinstance(film, Film):
            film = self.read(film)
        senses = Senses(self.latents, self.side)
        latents, present = self.glance_at(film, senses)
        with torch.no_grad():
            found = self.first.glance(latents, present)
            scores = self.first(latents, present)
        best = found.best(looks) if looks else (torch.zeros(1, 0, dtype=torch.long),) * 2
        moments, regions = (one[0].tolist() for one in best)
        heard = latents[SOUND].values if SOUND in latents and present.all() else None
        seen: list[Tensor] = []
        spent = 0
        step = 1 if threshold is not None else max(1, looks)
        while spent < len(moments):
            if threshold is not None and float(confidence(self.task, scores)) >= threshold:
                break
            new = senses.look(film, moments[spent : spent + step], regions[spent : spent + step])
            seen.append(new)
            spent += len(new)
            scores = self._scores(torch.cat(seen), heard, moments[:spent])
        return Watched(
            scores[0].float().cpu(),
            [film.times[t] for t in moments[:spent]],
            regions[:spent],
            found.saliency[0].cpu(),
            dict(senses.seconds),
        )

    def columns(self, found: Iterable[Watched]) -> Columns:
        """The columns of a table of predictions: those of `Task.decode`, how many windows were
        looked at, and when: seconds, with the number of the window behind a dash."""
        found = list(found)
        scores = torch.stack([one.scores for one in found])
        columns = self.task.decode(scores)
        columns["looks"] = [len(one.times) for one in found]
        columns["looked_at"] = [
            " ".join(f"{t:.1f}-{r}" for t, r in zip(one.times, one.regions, strict=True))
            for one in found
        ]
        return columns

    def read(self, path: str | os.PathLike[str]) -> Film:
        """The moments of a video file."""
        rate = self.encoder(SOUND).spec.sample_rate if SOUND in self.encoders else None
        return read_film(Path(path), self.first.moments, rate)

    def glance_at(self, film: Film, senses: Senses) -> tuple[dict[str, Padded], Tensor]:
        """The latents of all moments of a film by modality, and bool `[1, K]` which there are."""
        found, present = {}, []
        for modality, width in self.first.inputs.items():
            rows = senses.frames(film) if modality == FIRST else senses.sounds(film)
            present.append(rows is not None)
            rows = torch.zeros(0, width) if rows is None else rows
            found[modality] = Padded.of([rows.to(self.device)])
        if not any(present):
            raise DataError("A film has neither frames nor sound.")
        return found, torch.tensor([present], device=self.device)

    def card(self, config: SavedConfig, name: str) -> str:
        """The model card."""
        summary = (
            "Predicts the class of a film: a cheap pass over its frames and sound chooses the "
            f"windows that the expensive encoder sees; {saved_by(config)}."
        )
        limitations = ["It is measured on films like those it was fitted to."]
        text = CardText(
            summary, "GlanceModel", ['model.predict(["film.mp4"])'], limitations=limitations
        )
        return model_card(config, name, text)

    def _scores(self, seen: Tensor, heard: Tensor | None, moments: list[int]) -> Tensor:
        """The scores `[1, C]` after these looks."""
        latents = {LOOK: seen.mean(dim=0, keepdim=True).to(self.device)}
        there = [True]
        if SOUND in self.look.inputs:
            there.append(heard is not None)
            own = torch.zeros(1, self.look.inputs[SOUND], device=self.device)
            latents[SOUND] = own if heard is None else heard[:, moments].mean(dim=1)
        with torch.no_grad():
            return self.look(latents, torch.tensor([there], device=self.device))


def check_looks(looks: int, threshold: float | None) -> None:
    """Raise `ConfigError` if either is out of range."""
    if looks < 0:
        raise ConfigError(f"looks is {looks}.", "It is 0 or more.")
    if threshold is not None and not 0 < threshold <= 1:
        raise ConfigError(f"threshold is {threshold:g}.", "It is a probability, such as 0.9.")
