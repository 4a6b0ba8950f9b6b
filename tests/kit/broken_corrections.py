"""Corrections that break a check; see `broken_components`."""

import torch
from kit.broken_components import breaks
from kit.broken_tasks import BROKEN as BROKEN

from fusemix_core.corrections.plain import ShiftCorrection
from fusemix_core.specs import ComponentSpec

_TARGET = "fusemix_core.corrections.bank:BankCorrection"
_SPEC = ComponentSpec(kind="correction", name="other-options", target=_TARGET, options={"dim": 3})
breaks("correction", "declared_options")(_SPEC)
breaks("correction", "light_import")(_SPEC)


@breaks("correction", "is_a_correction")
class Duck:
    """All that a correction has, without being one."""

    def __init__(self):
        self.other = ShiftCorrection()

    def __getattr__(self, name):
        return getattr(self.__dict__["other"], name)


@breaks("correction", "finite_rows")
class Narrow(ShiftCorrection):
    def apply(self, rows, learnt, seeds, bank=None):
        return rows[:, :-1]


@breaks("correction", "finite_rows")
class Divided(ShiftCorrection):
    def apply(self, rows, learnt, seeds, bank=None):
        return rows / 0


@breaks("correction", "row_by_row")
class Centred(ShiftCorrection):
    """Of the batch's own mean."""

    def apply(self, rows, learnt, seeds, bank=None):
        return rows - rows.mean(dim=0) + 1


@breaks("correction", "same_pairs_same_fit")
class Drawn(ShiftCorrection):
    count = 0

    def learn(self, pairs, context):
        Drawn.count += 1
        return {**super().learn(pairs, context), "gap": torch.full((8,), float(Drawn.count))}


@breaks("correction", "saved_and_loaded")
class Attribute(ShiftCorrection):
    scale = None

    def learn(self, pairs, context):
        self.scale = 2.0
        return super().learn(pairs, context)

    def apply(self, rows, learnt, seeds, bank=None):
        return super().apply(rows, learnt, seeds) * (self.scale or 1.0)


@breaks("correction", "each_pair_of_modalities")
class Shared(ShiftCorrection):
    """One gap for all."""

    def learn(self, pairs, context):
        self.gap = super().learn(pairs, context)["gap"]
        return super().learn(pairs, context)

    def apply(self, rows, learnt, seeds, bank=None):
        return super().apply(rows, {**learnt, "gap": self.gap}, seeds)


@breaks("correction", "nothing_changed")
class Seeds(ShiftCorrection):
    def apply(self, rows, learnt, seeds, bank=None):
        torch.rand(1)
        return super().apply(rows, learnt, seeds)
