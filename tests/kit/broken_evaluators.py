"""Evaluators that break a check; see `broken_components`."""

import torch
from kit.broken_selectors import BROKEN, breaks

from fusemix_core.interfaces import Evaluator
from fusemix_core.sections import Figure, Section, Table

__all__ = ["BROKEN"]


class Spread(Evaluator):
    """A good one, that others break: how far apart the items of each modality are."""

    def __call__(self, data):
        return {m: rows.var(0).sum().item() for m, rows in data.embeddings.items()}


@breaks("evaluator", "is_an_evaluator")
class NotAnEvaluator:
    uses = ()

    def __call__(self, data):
        return {"pairs": len(data.links)}

    def sections(self, metrics, data):
        return []


@breaks("evaluator", "declared_uses")
class UnknownPart(Spread):
    uses = ("weather",)


@breaks("evaluator", "declared_uses")
class BankUndeclared(Spread):
    def __call__(self, data):
        return {m: rows.mean().item() for m, rows in data.bank.items()}


@breaks("evaluator", "plain")
class NotANumber(Spread):
    def __call__(self, data):
        return {"spread": float("nan")}


@breaks("evaluator", "plain")
class ATensor(Spread):
    def __call__(self, data):
        return {"spread": {m: rows.var(0) for m, rows in data.embeddings.items()}}


@breaks("evaluator", "plain")
class NoMapping(Spread):
    def __call__(self, data):
        return 3.0


@breaks("evaluator", "two_modalities")
class ThreeModalities(Spread):
    def __call__(self, data):
        _, _, third = data.modalities
        return {third: data.embeddings[third].sum().item()}


@breaks("evaluator", "nothing_to_measure")
class NeedsLinks(Spread):
    def __call__(self, data):
        return {"first": data.links[(data.links >= 0).all(1)][0, 0].item()}


@breaks("evaluator", "added_modalities")
class NothingAdded(Spread):
    def __call__(self, data):
        assert not data.added
        return super().__call__(data)


@breaks("evaluator", "deterministic")
class Random(Spread):
    count = 0

    def __call__(self, data):
        Random.count += 1
        return {"count": Random.count}


@breaks("evaluator", "input_unmodified")
class Centres(Spread):
    def __call__(self, data):
        for rows in data.embeddings.values():
            rows -= rows.mean(0)
        return super().__call__(data)


@breaks("evaluator", "shown")
class ShortRows(Spread):
    def sections(self, metrics, data):
        return [Section(tables=[Table(["modality", "spread"], [[m] for m in metrics])])]


@breaks("evaluator", "shown")
class Texts(Spread):
    def sections(self, metrics, data):
        return ["a section"]


@breaks("evaluator", "figures")
class Links(Spread):
    def sections(self, metrics, data):
        def draw(axes):
            axes.scatter([0], [1]).set_urls(["javascript:alert(1)"])

        return [Section(figures=[Figure(draw)])]


@breaks("evaluator", "figures")
class CannotDraw(Spread):
    def sections(self, metrics, data):
        return [Section(figures=[Figure(lambda axes: axes.plot([1, 2], [1, 2, 3]))])]


@breaks("evaluator", "surroundings")
class DrawsGlobally(Spread):
    def __call__(self, data):
        torch.rand(1)
        return super().__call__(data)
