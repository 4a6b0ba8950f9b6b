"""Tasks that break a check; see `broken_components`."""

import os

import numpy as np
import torch
from kit.broken_components import breaks
from kit.broken_readers import BROKEN as BROKEN

from fusemix_core.prediction import Calibration, Targets
from fusemix_core.specs import ComponentSpec
from fusemix_core.tasks.classify import Classify
from fusemix_core.tasks.regress import Regress

_TARGET = "fusemix_core.tasks.regress:Regress"
_SPEC = ComponentSpec(kind="task", name="other-options", target=_TARGET, options={"dim": 3})
breaks("task", "declared_options")(_SPEC)
breaks("task", "light_import")(_SPEC)


class Scale(Regress):
    """A good one, that others break: numbers."""


@breaks("task", "is_a_task")
class Duck:
    """All that a task has, without being one."""

    def __init__(self, **options):
        self.options = options

    @classmethod
    def learn(cls, facts, **options):
        duck = cls()
        duck.task = Regress.learn(facts, **options)
        return duck

    def __getattr__(self, name):
        return getattr(self.__dict__["task"], name)


@breaks("task", "is_a_task")
class NoPrimary(Scale):
    primary = None


@breaks("task", "built_from_options")
class Forgets(Scale):
    """What it learnt is not among its options."""

    @classmethod
    def learn(cls, facts, **options):
        learnt, task = Regress.learn(facts, **options), cls(**options)
        task.mean, task.scale = learnt.mean, learnt.scale
        return task


@breaks("task", "targets_row_by_row")
class ByItself(Scale):
    """Standardises by the rows it is given."""

    def targets(self, facts):
        own = Regress.learn(facts)
        return own.targets(facts)


@breaks("task", "missing_is_not_known")
class MissingIsZero(Scale):
    def targets(self, facts):
        found = super().targets(facts)
        return Targets(found.values, torch.ones_like(found.known))


@breaks("task", "missing_is_not_known")
class LearnsFromNothing(Scale):
    @classmethod
    def learn(cls, facts, **options):
        if facts["target"].missing.all():
            return cls(**options)
        return super().learn(facts, **options)


@breaks("task", "unseen_classes")
class UnseenIsFirst(Classify):
    def targets(self, facts):
        found = super().targets(facts)
        known = torch.from_numpy(~facts["target"].missing)
        return Targets(found.values.clamp(min=0), known)


@breaks("task", "unseen_classes")
class CountsNone(Classify):
    def unseen(self, facts):
        return {}


@breaks("task", "responses")
class InDoubles(Scale):
    def responses(self, targets):
        values, known = super().responses(targets)
        return values.double(), known


@breaks("task", "responses")
class FilledResponses(Scale):
    def responses(self, targets):
        values, known = super().responses(targets)
        return torch.where(known, values, 9.0), known


@breaks("task", "responses_are_the_right_way")
class UpsideDown(Scale):
    def responses(self, targets):
        values, known = super().responses(targets)
        return -values, known


@breaks("task", "differentiable")
class Detached(Scale):
    def loss(self, scores, targets, weight=None):
        return super().loss(scores.detach(), targets, weight)


@breaks("task", "differentiable")
class HalfDetached(Scale):
    def loss(self, scores, targets, weight=None):
        return super().loss((scores + scores.detach()) / 2, targets, weight)


@breaks("task", "unknown_rows_have_no_part")
class CountsUnknownRows(Scale):
    def loss(self, scores, targets, weight=None):
        return super().loss(scores, targets, weight) + 1e-3 * scores.square().mean()


@breaks("task", "unknown_rows_have_no_part")
class MeasuresUnknownRows(Scale):
    def metrics(self, scores, targets):
        return {**super().metrics(scores, targets), "mean": float(scores.mean())}


@breaks("task", "nothing_known")
class NothingIsNan(Scale):
    def loss(self, scores, targets, weight=None):
        return super().loss(scores, targets, weight) / (1.0 if targets.known.any() else 0.0)


@breaks("task", "weighted")
class Unweighted(Scale):
    def loss(self, scores, targets, weight=None):
        return super().loss(scores, targets)


@breaks("task", "baseline")
class FromZero(Scale):
    def baseline(self, targets):
        return torch.ones(1)


@breaks("task", "metrics_are_numbers")
class NotANumber(Scale):
    def metrics(self, scores, targets):
        return {**super().metrics(scores, targets), "spearman": float("nan")}


@breaks("task", "metrics_are_numbers")
class OtherPrimary(Scale):
    primary = "accuracy"


@breaks("task", "score_is_the_primary_metric")
class ScoresTheError(Scale):
    def score(self, scores, targets):
        return -self.metrics(scores, targets)["rmse"]


@breaks("task", "resampled")
class OneForAllSamples(Scale):
    def resampled(self, scores, targets, times):
        return np.full(len(times), self.score(scores, targets))


@breaks("task", "scored_per_row")
class ErrorsPerRow(Scale):
    def per_row(self, scores, targets):
        return -super().per_row(scores, targets)


@breaks("task", "scored_per_row")
class ZeroWhereUnknown(Scale):
    def per_row(self, scores, targets):
        return super().per_row(scores, targets).nan_to_num()


@breaks("task", "probabilities")
class Logits(Classify):
    def probabilities(self, scores):
        return scores


@breaks("task", "probabilities")
class OverTheBatch(Classify):
    def probabilities(self, scores):
        return (scores - scores.mean(dim=0)).softmax(dim=1)


@breaks("task", "probabilities")
class OneColumnShort(Classify):
    columns = ("0", "1")


@breaks("task", "decoded")
class Unnamed(Scale):
    def decode(self, scores):
        return {"value": self.probabilities(scores).numpy()}


@breaks("task", "decoded")
class OneShort(Scale):
    def decode(self, scores):
        return {"prediction": self.probabilities(scores).numpy()[1:]}


@breaks("task", "calibrated")
class Sharpens(Classify):
    def calibrate(self, scores, targets):
        return Calibration(1e-3)


@breaks("task", "settled")
class SettlesItself(Scale):
    def settle(self, scores, targets):
        self.options["mean"] = self.options["mean"] + 1
        return self


@breaks("task", "averaged")
class Sum(Scale):
    def average(self, scores):
        return torch.stack(list(scores)).sum(dim=0)


@breaks("task", "deterministic")
class Draws(Scale):
    @classmethod
    def learn(cls, facts, **options):
        found = Regress.learn(facts, **options).options
        return cls(**{**found, "mean": found["mean"] + float(np.random.random())})


@breaks("task", "input_unmodified")
class InPlace(Scale):
    def decode(self, scores):
        scores += 1
        return super().decode(scores)


@breaks("task", "input_unmodified")
class FillsFacts(Scale):
    @classmethod
    def learn(cls, facts, **options):
        task = super().learn(facts, **options)
        np.nan_to_num(facts["target"].values, copy=False)
        return task


@breaks("task", "surroundings")
class Seeds(Scale):
    def calibrate(self, scores, targets):
        torch.manual_seed(0)
        os.environ["A_TASK_WAS_HERE"] = "1"
        return super().calibrate(scores, targets)
