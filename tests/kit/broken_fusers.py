"""Fusers that break a check; see `broken_components`."""

import random
from dataclasses import replace

import torch
from kit.broken_components import BROKEN, breaks

from fusemix_core.fuser import Fitted, Fuser
from fusemix_core.interfaces import Padded
from fusemix_core.specs import ComponentSpec

__all__ = ["BROKEN"]

_SPEC = ComponentSpec(
    kind="fuser",
    name="other-options",
    target="fusemix_core.fusers.mlp:MlpFuser",
    options={"dim": 3},
)
breaks("fuser", "declared_options")(_SPEC)
breaks("fuser", "light_import")(_SPEC)  # with a plugin whose listing imports a heavy package
breaks("fuser", "declared_uses")(
    ComponentSpec(
        kind="fuser",
        name="other-uses",
        target="fusemix_core.fusers.attention:AttentionFuser",
        options={},
    )
)


class Ridge(Fuser):
    """The mean of ridge regressions on each modality, that others break."""

    def __init__(self, inputs, outputs):
        super().__init__(inputs, outputs)
        for modality, width in inputs.items():
            self.register_buffer(modality, torch.zeros(width + 1, outputs))

    @classmethod
    def fit(cls, train, validation, task, context):
        widths = {m: table.shape[-1] for m, table in train.pairs.tables.items()}
        fuser = cls(widths, task.outputs)
        responses, known = task.responses(train.targets)
        for k, modality in enumerate(train.modalities):
            rows = train.present[:, k] & known[:, 0]
            latents = cls.pooled(train.latents(modality), train.present[:, k])
            x = torch.cat([latents, torch.ones(len(latents), 1)], dim=1)[rows]
            gram = x.T @ x + torch.eye(x.shape[1])
            setattr(fuser, modality, torch.linalg.solve(gram, x.T @ responses[rows]))
        fuser.calibrate(train, task)
        return Fitted(fuser.eval())

    def calibrate(self, rows, task):
        given = {m: rows.latents(m) for m in rows.modalities}
        found = task.calibrate(Ridge.forward(self, given, rows.present), rows.targets)
        for modality in rows.modalities:
            weights = found.scale * getattr(self, modality)
            if found.offsets:
                weights[-1] += torch.tensor(found.offsets)
            setattr(self, modality, weights)

    @staticmethod
    def pooled(latents, there):
        return latents.masked_fill(~there[:, None], 0)

    def each(self, latents, present):
        """Scores `[K, n, C]` by each modality alone."""
        found = []
        for k, modality in enumerate(self.inputs):
            weights = getattr(self, modality)
            pooled = self.pooled(latents[modality], present[:, k])
            found.append(pooled @ weights[:-1] + weights[-1])
        return torch.stack(found)

    def forward(self, latents, present):
        each = self.each(latents, present)
        return (each * present.T[..., None]).sum(dim=0) / present.sum(dim=1, keepdim=True)


class TokenRidge(Ridge):
    """The same of the means of tokens."""

    uses = ("tokens",)

    @staticmethod
    def pooled(latents, there):
        x = Padded(latents.values, latents.mask & there[:, None])
        return x.filled().sum(dim=1) / x.mask.sum(dim=1, keepdim=True).clamp(min=1)


@breaks("fuser", "is_a_fuser")
class NotAFuser:
    uses = ()

    @classmethod
    def fit(cls, *args):
        return Ridge.fit(*args)


@breaks("fuser", "is_a_fuser")
class NothingElse(Ridge):
    @classmethod
    def fit(cls, *args):
        return super().fit(*args).fuser


@breaks("fuser", "ready_to_use")
class LeftTraining(Ridge):
    @classmethod
    def fit(cls, *args):
        return Fitted(super().fit(*args).fuser.train())


@breaks("fuser", "every_subset")
class Spread(Ridge):
    def forward(self, latents, present):
        return super().forward(latents, present) / (present.sum(dim=1, keepdim=True) - 1)


@breaks("fuser", "every_subset")
class Wide(Ridge):
    def forward(self, latents, present):
        return super().forward(latents, present).double()


@breaks("fuser", "absent_changes_nothing")
class Multiplied(Ridge):
    @staticmethod
    def pooled(latents, there):
        return latents * there[:, None]


@breaks("fuser", "absent_changes_nothing")
class Ignored(Ridge):
    def forward(self, latents, present):
        return super().forward(latents, torch.ones_like(present))


@breaks("fuser", "row_by_row")
class Centred(Ridge):
    def forward(self, latents, present):
        scores = super().forward(latents, present)
        return scores - scores.mean(dim=0)


@breaks("fuser", "padding")
class AllPositions(TokenRidge):
    @staticmethod
    def pooled(latents, there):
        x = Padded(latents.values, latents.mask & there[:, None])
        return x.filled().mean(dim=1)


@breaks("fuser", "saveable")
class Unsaved(Ridge):
    shift = 0.0

    @classmethod
    def fit(cls, *args):
        found = super().fit(*args)
        found.fuser.shift = 0.5
        return found

    def forward(self, latents, present):
        return super().forward(latents, present) + self.shift


@breaks("fuser", "learns")
class Constant(Ridge):
    def forward(self, latents, present):
        return super().forward(latents, present) * 0


@breaks("fuser", "learns_from_small_latents")
class Rounded(Ridge):
    @staticmethod
    def pooled(latents, there):
        return Ridge.pooled(latents, there).round()


@breaks("fuser", "complete_rows")
class MeanOfGaps(Ridge):
    @classmethod
    def fit(cls, train, *args):
        found = super().fit(train, *args)
        found.fuser.image /= (~train.present[:, 0]).sum().clamp(max=1)
        return found


@breaks("fuser", "scores_of_rows_left_out")
class SomeScores(Ridge):
    @classmethod
    def fit(cls, train, validation, task, context):
        found = super().fit(train, validation, task, context)
        return replace(found, scores=torch.zeros(7, task.outputs))


@breaks("fuser", "unknown_targets")
class EveryTarget(Ridge):
    @classmethod
    def fit(cls, train, *args):
        known = torch.ones_like(train.targets.known)
        targets = replace(train.targets, values=train.targets.values.clamp(min=0), known=known)
        return super().fit(replace(train, targets=targets), *args)


@breaks("fuser", "seeded")
class GlobalSeed(Ridge):
    @classmethod
    def fit(cls, *args):
        found = super().fit(*args)
        found.fuser.image += 0.01 * torch.randn(found.fuser.image.shape)
        return found


@breaks("fuser", "sees_only_its_rows")
class WholeTables(Ridge):
    @classmethod
    def fit(cls, train, *args):
        found = super().fit(train, *args)
        found.fuser.image += 0.01 * train.pairs.tables["image"].latents.mean()
        return found


@breaks("fuser", "input_unmodified")
class InPlace(Ridge):
    @classmethod
    def fit(cls, train, *args):
        found = super().fit(train, *args)
        train.pairs.tables["image"].latents += 1
        return found


@breaks("fuser", "surroundings")
class SeedsPython(Ridge):
    @classmethod
    def fit(cls, *args):
        random.seed(0)
        return super().fit(*args)
