"""Selectors that break a check; see `broken_components`."""

import numpy as np
import torch
from kit.broken_fits import BROKEN, breaks

from fusemix_core.interfaces import Selector, rows_of
from fusemix_core.selectors.candidates import check_size
from fusemix_core.selectors.dpp import DppSelector
from fusemix_core.selectors.uniform import UniformSelector

__all__ = ["BROKEN"]


class Longest(DppSelector):
    """A good one, that others break: the longest latents, in chunks."""

    def lengths(self, pairs):
        column = pairs.modalities.index(self.by or pairs.modalities[0])
        table, items = pairs.tables[self.by or pairs.modalities[0]], pairs.links[:, column]
        found = [self.norms(table, part.clamp(min=0)) for part in items.split(1000)]
        return torch.cat(found).masked_fill(items < 0, -1)

    def norms(self, table, items):
        return rows_of(table, items).norm(dim=1)

    def select(self, pairs, k, context):
        check_size(k, len(pairs))
        return self.lengths(pairs).argsort(descending=True, stable=True)[:k]


@breaks("selector", "view_of_more_axes")
class FirstLayerOnly(Longest):
    def norms(self, table, items):
        rows = table.rows(items)
        return (rows if rows.ndim == 2 else rows[:, 0]).norm(dim=1)


@breaks("selector", "is_a_selector")
class NotASelector:
    fewer = ""

    def select(self, pairs, k, context):
        return UniformSelector().select(pairs, k, context)


@breaks("selector", "rows")
class OneTwice(Longest):
    def select(self, *args):
        found = super().select(*args)
        return torch.cat([found[:1], found[:-1]])


@breaks("selector", "rows")
class Items(Longest):
    """Numbers of items, not of rows."""

    def select(self, pairs, *args):
        return pairs.links[super().select(pairs, *args), 0]


@breaks("selector", "rows")
class AList(Longest):
    def select(self, *args):
        return super().select(*args).tolist()


@breaks("selector", "rows")
class Narrow(Longest):
    def select(self, *args):
        return super().select(*args).int()


@breaks("selector", "as_many_as_asked_for")
class NoReason(Longest):
    fewer = ""

    def select(self, *args):
        return super().select(*args)[:10]


@breaks("selector", "as_many_as_asked_for")
class More(Longest):
    def select(self, pairs, k, context):
        return super().select(pairs, min(k + 1, len(pairs)), context)


@breaks("selector", "too_many")
class TakesWhatThereIs(Longest):
    def select(self, pairs, k, context):
        return self.lengths(pairs).argsort(descending=True, stable=True)[: max(k, 0)]


@breaks("selector", "seeded")
class DrawsFromTorch(Selector):
    def select(self, pairs, k, context):
        return torch.randperm(len(pairs))[:k]


@breaks("selector", "seeded")
class DrawsFromNumpy(Selector):
    def select(self, pairs, k, context):
        return torch.from_numpy(np.random.permutation(len(pairs))[:k])


@breaks("selector", "deterministic")
class GoesOn(Longest):
    """What it gave before it does not give again."""

    given = 0

    def select(self, pairs, k, context):
        found = super().select(pairs, k, context).roll(self.given)
        self.given += 1
        return found


@breaks("selector", "order_of_items")
class ByNumber(Longest):
    def select(self, pairs, k, context):
        return pairs.links[:, 0].argsort(stable=True)[:k]


@breaks("selector", "by_one_modality")
class TheFirst(Longest):
    """Whatever `by` says."""

    def __init__(self, *, by=""):
        super().__init__()


@breaks("selector", "by_one_modality")
class AllOfThem(Longest):
    def lengths(self, pairs):
        return sum(Longest(by=m).lengths(pairs) for m in pairs.modalities)


@breaks("selector", "without_latents")
class SaysItUsesNone(Longest):
    uses = ()


@breaks("selector", "in_chunks")
class AllAtOnce(Longest):
    def lengths(self, pairs):
        return pairs.batch(torch.arange(len(pairs))).latents["image"].norm(dim=1)


@breaks("selector", "input_unmodified")
class NormalisesInPlace(Longest):
    def lengths(self, pairs):
        found = super().lengths(pairs)
        for table in pairs.tables.values():
            table.latents.div_(table.latents.norm(dim=1, keepdim=True))
        return found


@breaks("selector", "input_unmodified")
class MarksRows(Longest):
    def select(self, pairs, k, context):
        found = super().select(pairs, k, context)
        pairs.links[found[:1]] = -1
        return found


@breaks("selector", "surroundings")
class SeedsGlobally(Longest):
    def select(self, pairs, k, context):
        torch.manual_seed(context.seed)
        return super().select(pairs, k, context)
