"""`survive`: when an event comes, learnt from rows that weren't all followed until it came."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fusemix_core.data.facts import Fact
from fusemix_core.errors import DataError, short
from fusemix_core.metrics import samples
from fusemix_core.metrics.cox import partial_likelihood
from fusemix_core.metrics.survival import (
    Steps,
    breslow,
    brier,
    censoring,
    concordance,
    integrated,
    nelson_aalen,
)
from fusemix_core.prediction import Calibration, Columns, Targets, Task, calibrated
from fusemix_core.tasks.coding import (
    as_text,
    defined,
    fact_of,
    known_rows,
    labels_of,
    numbers_of,
)
from fusemix_core.tasks.two_valued import counting_value, flags_of

CURVE = 100
"""Steps that are kept of a hazard, and times at which survival is predicted."""
CENSORED = 1000
"""Steps that are kept of the censoring of training rows."""
SHOWN = 5
"""Times whose survival is in a table of predictions."""


class Survive(Task):
    """The log risk of an event per row, by Cox's proportional hazards (Cox 1972).

    The loss is the negative log partial likelihood per event, ties as Breslow's. A baseline hazard
    turns risks into survival curves: Nelson and Aalen's of the training rows at first, and
    Breslow's once `settle` has seen scores.

    Args:
        event_is: the value of `event` for rows whose event came; `1`, `true` or `yes` by default.
        times: ascending; `learn` sets it, and what follows.
        hazard: the cumulative baseline hazard at `times`.
        censor_times: ascending.
        censor_left: the share of training rows that aren't censored yet at `censor_times`.

    Example:
        task = Survive.learn({"time": facts["months"], "event": facts["died"]})
    """

    facts = ("time", "event")
    gives = "survival"
    primary = "c"
    names = ("log_risk",)

    def __init__(
        self,
        *,
        event_is: str | float | None = None,
        times: Sequence[float] = (),
        hazard: Sequence[float] = (),
        censor_times: Sequence[float] = (),
        censor_left: Sequence[float] = (),
    ) -> None:
        self.event_is = as_text(event_is)
        self.hazard = Steps(np.array(times, float), np.array(hazard, float), 0.0)
        self.censored = Steps(np.array(censor_times, float), np.array(censor_left, float))

    @property
    def times(self) -> np.ndarray:
        """float64 `[B]`, at which `probabilities` gives the survival."""
        return self.hazard.times

    @property
    def columns(self) -> tuple[str, ...]:
        """The times, as texts."""
        return tuple(f"{t:.4g}" for t in self.times)

    @classmethod
    def learn(cls, facts: Mapping[str, Fact], **options: Any) -> Survive:
        fact_of(facts, "time")
        event = fact_of(facts, "event")
        given = as_text(options.get("event_is"))
        chosen = counting_value(event, given, "event", "survive event_is")
        settings: dict[str, Any] = {**options, "event_is": chosen}
        task = cls(**settings)
        targets = task.targets(facts)
        time, came = task._arrays(targets)
        if not came.any():
            values = f"'{chosen}' in none of {len(came):,} training rows that have a time"
            raise DataError(
                f"The event is {values}: all are censored, and nothing can be learnt.",
                "Does the other value mean that the event came? --task 'survive event_is=VALUE'",
            )
        return task._with(nelson_aalen(time, came), censoring(time, came))

    def notes(self, facts: Mapping[str, Fact]) -> list[str]:
        """Which value is the event, as the data may have it the other way round."""
        _, came = self._arrays(self.targets(facts))
        names, _ = labels_of(facts["event"])
        other = [name for name in names if name != self.event_is]
        turned = f" The other way round: --task 'survive event_is={other[0]}'" if other else ""
        return [
            f"The event ('{short(self.event_is, 40)}') came in {int(came.sum()):,} of "
            f"{len(came):,} training rows; the others are censored.{turned}"
        ]

    def _with(self, hazard: Steps, censored: Steps) -> Survive:
        hazard, censored = hazard.thinned(CURVE), censored.thinned(CENSORED)
        return type(self)(
            event_is=self.event_is,
            times=hazard.times.tolist(),
            hazard=hazard.values.tolist(),
            censor_times=censored.times.tolist(),
            censor_left=censored.values.tolist(),
        )

    def targets(self, facts: Mapping[str, Fact]) -> Targets:
        """float32 `[n, 2]`: the time, and 1 for an event."""
        time = numbers_of(facts["time"], "time")
        if (time < 0).any():
            row = int(np.flatnonzero(time < 0)[0])
            raise DataError(
                f"The time is negative in {int((time < 0).sum()):,} rows, first in row {row + 1:,} "
                f"of these ({time[row]:g}).",
                "Times count from when a row begins to be seen: correct them, or leave them empty.",
            )
        came, said = flags_of(facts["event"], self.event_is)
        known = torch.from_numpy(said & ~np.isnan(time))
        values = np.stack([np.nan_to_num(time), came], axis=1).astype(np.float32)
        return Targets(torch.from_numpy(values), known)

    @staticmethod
    def _arrays(targets: Targets) -> tuple[np.ndarray, np.ndarray]:
        """(time float64, event bool) of the known rows."""
        values = targets.values[targets.known].cpu().double().numpy()
        return values[:, 0], values[:, 1] > 0

    def responses(self, targets: Targets) -> tuple[Tensor, Tensor]:
        """Deviance residuals of a model without inputs (Therneau et al. 1990), standardised."""
        values = np.zeros(len(targets), np.float32)
        known = targets.known.cpu().numpy()
        if known.any():
            time, came = self._arrays(targets)
            values[known] = deviance_residuals(time, came)
        found = torch.from_numpy(values)[:, None].to(targets.values.device)
        return found, targets.known[:, None]

    def loss(self, scores: Tensor, targets: Targets, weight: Tensor | None = None) -> Tensor:
        known = targets.known
        time, event = targets.values[known].unbind(dim=1)
        share = None if weight is None else weight[known]
        return partial_likelihood(scores[known, 0], time, event > 0, share)

    def calibrate(self, scores: Tensor, targets: Targets) -> Calibration:
        """Only the scale: the partial likelihood does not depend on an offset."""
        return calibrated(self.loss, scores, targets, offsets=False)

    def settle(self, scores: Tensor, targets: Targets) -> Survive:
        """The task with Breslow's baseline hazard for these scores."""
        risk, _ = known_rows(scores, targets)
        time, came = self._arrays(targets)
        if not came.any():
            return self
        return self._with(breslow(time, came, risk[:, 0].numpy()), self.censored)

    def probabilities(self, scores: Tensor) -> Tensor:
        """Survival `[n, B]` until each of `times`."""
        hazard = torch.from_numpy(self.hazard.values).to(scores)
        return (-scores[:, :1].exp() * hazard).exp()

    def survival(self, scores: Tensor, at: np.ndarray) -> np.ndarray:
        """float64 `[n, B]`: survival until any times `[B]`."""
        risk = scores.detach().cpu().double()[:, :1].numpy()
        return np.exp(-np.exp(risk) * self.hazard(at))

    def decode(self, scores: Tensor) -> Columns:
        """`prediction` is the median survival time (NaN if the curve stays above one half),
        `log_risk` the score, `survival_<t>` the survival until a few of the times."""
        curves = self.survival(scores, self.times)
        below = curves <= 0.5
        first = np.r_[self.times, np.nan][np.where(below.any(1), below.argmax(1), len(self.times))]
        shown = np.unique(np.linspace(0, len(self.times) - 1, SHOWN + 2).round().astype(int)[1:-1])
        columns = {f"survival_{self.times[k]:.4g}": curves[:, k] for k in shown}
        risk = scores.detach().cpu().double()[:, 0].numpy()
        return {"prediction": first, "log_risk": risk, **columns}

    def metrics(self, scores: Tensor, targets: Targets) -> dict[str, float | None]:
        risk, _ = known_rows(scores, targets)
        time, came = self._arrays(targets)
        at = self._times_of(time, came)
        scored = brier(time, came, self.survival(risk, at), at, self.censored)
        found = {
            "c": concordance(time, came, risk[:, 0].numpy()),
            "integrated_brier": integrated(scored, at),
        }
        return defined(found)

    def _times_of(self, time: np.ndarray, came: np.ndarray) -> np.ndarray:
        """The times of events of measured rows, at most `CURVE`, while rows are still followed."""
        at = np.unique(time[came & (time < time.max())])
        at = at[self.censored(at) > 0]
        return Steps(at, at).thinned(CURVE).times

    def score(self, scores: Tensor, targets: Targets) -> float:
        risk, _ = known_rows(scores, targets)
        return concordance(*self._arrays(targets), risk[:, 0].numpy())

    def resampled(self, scores: Tensor, targets: Targets, times: np.ndarray) -> np.ndarray:
        risk, _ = known_rows(scores, targets)
        drawn = times[:, targets.known.cpu().numpy()]
        return samples.concordance(*self._arrays(targets), risk[:, 0].numpy(), drawn)

    def baseline(self, targets: Targets) -> Tensor:
        """The same risk for all rows."""
        return torch.zeros(1)


def deviance_residuals(time: np.ndarray, event: np.ndarray) -> np.ndarray:
    """Of a survival model without inputs, divided by their root mean square: float64 `[n]`.

    A martingale residual M is what came less what was expected: the event (1 or 0) less the
    cumulative hazard. Its deviance form, sign(M) √(-2 (M + δ log(δ - M))), has lighter tails.
    """
    martingale = event - nelson_aalen(time, event)(time)
    inside = martingale + np.where(event, np.log(np.where(event, event - martingale, 1.0)), 0.0)
    found = np.sign(martingale) * np.sqrt(np.maximum(-2 * inside, 0))
    size = np.sqrt((found**2).mean())
    return found / size if size > 0 else found
