"""Aligners and scorers that break a check; see `broken_components`."""

import random
from dataclasses import replace

import numpy as np
import torch
from kit.broken_components import BROKEN, Linear, breaks

from fusemix_core.adapters.linear import LinearAdapter
from fusemix_core.aligners.cca import CCAAligner
from fusemix_core.errors import ConfigError
from fusemix_core.interfaces import FitContext, PairedLatents
from fusemix_core.optimisers.lion import Lion
from fusemix_core.scorers.cosine import CosineScorer
from fusemix_core.scorers.csls import CSLSScorer

__all__ = ["BROKEN"]

# -- aligners --------------------------------------------------------------------------------------


class CCA(CCAAligner):
    """A small one, that others break."""

    def __init__(self):
        super().__init__(landmarks=0, ridges=(1.0,), powers=(0.5,))


@breaks("aligner", "is_an_aligner")
class NotAnAligner:
    def fit(self, *args):
        return CCA().fit(*args)


@breaks("aligner", "adapters")
class OneMissing(CCA):
    def fit(self, *args):
        fitted = super().fit(*args)
        fitted.popitem()
        return fitted


@breaks("aligner", "adapters")
class OtherWidths(CCA):
    def fit(self, train, *args):
        return {m: LinearAdapter(d, 4 + k) for k, (m, d) in enumerate(train.dims.items())}


@breaks("aligner", "ready_to_use")
class LeftTraining(CCA):
    def fit(self, *args):
        return {m: a.train() for m, a in super().fit(*args).items()}


@breaks("aligner", "aligns")
class Random(CCA):
    def fit(self, train, *args):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return {m: LinearAdapter(d, 6).eval() for m, d in train.dims.items()}


@breaks("aligner", "three_modalities")
class TwoOnly(CCA):
    def fit(self, train, validation, *args):
        if len(train.tables) > 2:
            raise ConfigError("two modalities only")
        return super().fit(train, validation, *args)


@breaks("aligner", "seeded")
class GlobalSeed(CCA):
    def fit(self, train, validation, recipe, context):
        fitted = super().fit(train, validation, recipe, context)
        for adapter in fitted.values():
            adapter.weight.data += 0.01 * torch.randn(adapter.weight.shape)
        return fitted


@breaks("aligner", "sees_only_its_pairs")
class CentresOnAll(CCA):
    """It takes the mean over all items of the tables, those of the test split included."""

    def fit(self, train, *args):
        fitted = super().fit(train, *args)
        for modality, table in train.tables.items():
            everything = table.rows(torch.arange(len(table)))
            with torch.no_grad():
                fitted[modality].bias.copy_(-fitted[modality](everything).mean(0))
        return fitted


@breaks("aligner", "uses_its_pairs")
class AssumesRowsMatch(CCA):
    """It takes item i of one modality for the partner of item i of the other."""

    def fit(self, train, *args):
        links = train.links.amin(1, keepdim=True).expand_as(train.links)
        return super().fit(PairedLatents(train.tables, links.clone()), *args)


@breaks("aligner", "saveable")
class Unregistered(CCA):
    def fit(self, train, *args):
        return {m: Linear(d, 6).eval() for m, d in train.dims.items()}


@breaks("aligner", "input_unmodified")
class StandardisesInPlace(CCA):
    def fit(self, train, *args):
        for table in train.tables.values():
            table.latents.sub_(table.latents.mean(0))
        return super().fit(train, *args)


@breaks("aligner", "surroundings")
class SeedsEverything(CCA):
    def fit(self, train, validation, recipe, context):
        random.seed(context.seed)
        np.random.seed(context.seed)
        torch.manual_seed(context.seed)
        return super().fit(train, validation, recipe, context)


@breaks("aligner", "fixed_unchanged")
class GoesOnTrainingFixed(CCA):
    def fit(self, train, validation, recipe, context):
        fitted = super().fit(train, validation, recipe, context)
        for modality in context.fixed:
            with torch.no_grad():
                fitted[modality].out.bias += 0.01
        return fitted


@breaks("aligner", "fits_to_fixed")
class PutsFixedInAfterwards(CCA):
    def fit(self, train, validation, recipe, context):
        recipe = replace(recipe, dim=16)
        fitted = super().fit(train, validation, recipe, FitContext(seed=context.seed))
        return {m: context.fixed.get(m, a) for m, a in fitted.items()}


# -- scorers ---------------------------------------------------------------------------------------


@breaks("scorer", "is_a_scorer")
class NotAScorer:
    tensors = {}

    def fit(self, train):
        pass


@breaks("scorer", "shape")
class Transposed(CosineScorer):
    def score(self, queries, gallery, query, target):
        return super().score(queries, gallery, query, target).T


@breaks("scorer", "larger_is_closer")
class Distance(CosineScorer):
    def score(self, queries, gallery, query, target):
        return torch.cdist(queries, gallery)


@breaks("scorer", "in_tiles")
class Softmax(CosineScorer):
    def score(self, queries, gallery, query, target):
        return super().score(queries, gallery, query, target).softmax(dim=1)


@breaks("scorer", "prepared")
class OtherWhenPrepared(CosineScorer):
    def prepare(self, gallery, query, target):
        return lambda queries: 2 * self.score(queries, gallery, query, target)


@breaks("scorer", "lifted")
class LiftsWithoutItsBias(CSLSScorer):
    def lift(self, rows, modality, against, gallery):
        return rows


@breaks("scorer", "mapped")
class KeepsItsBanksAsTheyWere(CSLSScorer):
    def mapped(self, basis):
        return self


@breaks("scorer", "saveable")
class ForgetsItsFit(CosineScorer):
    mean = torch.zeros(8)

    def fit(self, train):
        self.mean = train["text"].mean(0)

    def score(self, queries, gallery, query, target):
        return super().score(queries, gallery - self.mean, query, target)


@breaks("scorer", "deterministic")
class SamplesItsBank(CosineScorer):
    def fit(self, train):
        draw = torch.Generator()
        draw.seed()
        self.shift = torch.rand(8, generator=draw)

    def score(self, queries, gallery, query, target):
        return super().score(queries, gallery - self.shift, query, target)


@breaks("scorer", "extends")
class FitsAnew(CSLSScorer):
    def __init__(self):
        super().__init__()

    def extend(self, train):
        self.fit({m: train.get(m, train["audio"]) for m in ("image", "text", "audio")})


@breaks("scorer", "input_unmodified")
class CentresInPlace(CosineScorer):
    def fit(self, train):
        for rows in train.values():
            rows.sub_(rows.mean(0))


@breaks("scorer", "surroundings")
class DrawsWhenScoring(CosineScorer):
    def score(self, queries, gallery, query, target):
        torch.rand(1)
        return super().score(queries, gallery, query, target)


# -- optimisers ------------------------------------------------------------------------------------


class Small(Lion):
    """One that others break."""

    def __init__(self, groups, lr):
        super().__init__(groups, lr)


@breaks("optimiser", "is_an_optimiser")
class NotAnOptimiser:
    def __init__(self, groups, lr):
        self.param_groups = groups


@breaks("optimiser", "descends")
class Climbs(Small):
    def step(self, closure=None):
        for p in (p for g in self.param_groups for p in g["params"]):
            p.grad.neg_()
        super().step()


@breaks("optimiser", "obeys_its_rate")
class KeepsItsFirstRate(Small):
    def __init__(self, groups, lr):
        super().__init__(groups, lr)
        self.first = lr

    def step(self, closure=None):
        for group in self.param_groups:
            group["lr"] = self.first
        super().step()


@breaks("optimiser", "decays_what_it_is_told")
class NeverDecays(Small):
    def __init__(self, groups, lr):
        super().__init__([{"params": g["params"]} for g in groups], lr)


@breaks("optimiser", "skips_what_has_no_gradient")
class DecaysAll(Small):
    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                p.mul_(1 - group["lr"] * group["weight_decay"])
        super().step()


@breaks("optimiser", "resumes")
class CountsOutsideItsState(Small):
    count = 0

    def step(self, closure=None):
        self.count += 1
        for group in self.param_groups:
            group["lr"] = 1e-2 / self.count
        super().step()


@breaks("optimiser", "resumes")
class StateOfNumbers(Small):
    def step(self, closure=None):
        super().step()
        for state in self.state.values():
            state["steps"] = 1


@breaks("optimiser", "surroundings")
class DrawsItsSteps(Small):
    def step(self, closure=None):
        torch.rand(())
        super().step()
