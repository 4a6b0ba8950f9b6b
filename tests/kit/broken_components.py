"""For each check of components, one that breaks it. Aligners, optimisers and scorers are
in `broken_fits`, selectors in `broken_selectors`."""

from collections import defaultdict
from dataclasses import replace

import torch
from torch import nn
from torch.nn.functional import normalize
from toys import TokenMean

from fusemix_core.errors import ConfigError
from fusemix_core.interfaces import Adapter, Batch, Padded, Step
from fusemix_core.mixups.fusemix import FuseMixMixup
from fusemix_core.mixups.none import NoMixup
from fusemix_core.objectives.infonce import InfoNCE
from fusemix_core.specs import ComponentSpec

BROKEN = defaultdict(dict)
"""kind → check → what must fail it."""


def breaks(kind, check):
    def add(target):
        BROKEN[kind].setdefault(check, []).append(target)
        return target

    return add


for _kind, _target in (
    ("adapter", "fusemix_core.adapters.mlp:MlpAdapter"),
    ("mixup", "fusemix_core.mixups.fusemix:FuseMixMixup"),
    ("objective", "fusemix_core.objectives.infonce:InfoNCE"),
    ("optimiser", "fusemix_core.optimisers.adamw:AdamW"),
    ("aligner", "fusemix_core.aligners.cca:CCAAligner"),
    ("scorer", "fusemix_core.scorers.csls:CSLSScorer"),
    ("selector", "fusemix_core.selectors.dpp:DppSelector"),
    ("evaluator", "fusemix_core.evaluation.geometry:GeometryEvaluator"),
):
    _spec = ComponentSpec(kind=_kind, name="other-options", target=_target, options={"dim": 3})
    breaks(_kind, "declared_options")(_spec)
    breaks(_kind, "light_import")(_spec)  # with a plugin whose listing imports a heavy package

for _kind, _target, _uses in (
    ("adapter", "fusemix_core.adapters.mlp:MlpAdapter", ("tokens",)),
    ("objective", "fusemix_core.objectives.infonce:InfoNCE", ("trust",)),
    ("aligner", "fusemix_core.aligners.cca:CCAAligner", ()),
    ("selector", "fusemix_core.selectors.dpp:DppSelector", ()),
):
    _spec = ComponentSpec(kind=_kind, name="other-uses", target=_target, uses=_uses)
    breaks(_kind, "declared_uses")(_spec)


# -- adapters --------------------------------------------------------------------------------------


class Linear(Adapter):
    """A linear adapter that others break; it starts from no map."""

    def __init__(self, dim_in, dim_out):
        super().__init__()
        self.out = nn.Linear(dim_in, dim_out)

    def forward(self, latents):
        return self.out(latents)


@breaks("adapter", "shape")
class OneWider(Linear):
    def __init__(self, dim_in, dim_out):
        super().__init__(dim_in, dim_out + 1)


@breaks("adapter", "finite")
class NanOnZeros(Linear):
    def forward(self, latents):
        return self.out(latents / latents.norm(dim=1, keepdim=True))


@breaks("adapter", "dtype")
class AlwaysFloat32(Linear):
    def forward(self, latents):
        return super().forward(latents).float()


@breaks("adapter", "empty_batch")
class NeedsRows(Linear):
    def forward(self, latents):
        return self.out(latents - 0 * latents.amax(0))


@breaks("adapter", "batch_independence")
class LessTheMean(Linear):
    def forward(self, latents):
        return self.out(latents - latents.mean(0))


@breaks("adapter", "eval_determinism")
class AlwaysDropout(Linear):
    def forward(self, latents):
        return nn.functional.dropout(self.out(latents), 0.5, training=True)


@breaks("adapter", "eval_determinism")
class ChangesInput(Linear):
    def forward(self, latents):
        return self.out(latents.mul_(0.5) if not latents.requires_grad else latents)


@breaks("adapter", "seeded_construction")
class SeedsItself(Linear):
    def __init__(self, dim_in, dim_out):
        super().__init__(dim_in, dim_out)
        draw = torch.Generator()
        draw.seed()
        self.out.bias.data.normal_(generator=draw)


@breaks("adapter", "learns")
class DeadParameter(Linear):
    def __init__(self, dim_in, dim_out):
        super().__init__(dim_in, dim_out)
        self.forgotten = nn.Parameter(torch.zeros(3))


@breaks("adapter", "gradient_reaches_latents")
class Detached(Linear):
    def forward(self, latents):
        return self.out(latents.detach())


@breaks("adapter", "rebuilt")
class HiddenState(Linear):
    """Its options are passed on by position, so that they are not remembered."""

    def __init__(self, dim_in, dim_out):
        super().__init__(dim_in, dim_out)
        self.scale = torch.rand(())

    def forward(self, latents):
        return self.scale * self.out(latents)


@breaks("adapter", "rebuilt")
class NotPlainOptions(Linear):
    def __init__(self, dim_in, dim_out):
        super().__init__(dim_in, dim_out)
        self.options = {"activation": torch.tanh}


@breaks("adapter", "any_number_of_tokens")
class FirstTokenOnly(TokenMean):
    def pool(self, tokens, latents):
        return tokens.filled()[:, 0]


@breaks("adapter", "any_number_of_tokens")
class ZerosArePadding(TokenMean):
    def tokens(self, latents):
        return super().tokens(Padded(latents.values, (latents.filled() != 0).any(dim=2)))


@breaks("adapter", "any_number_of_tokens")
class NeedsTokens(TokenMean):
    def pool(self, tokens, latents):
        return tokens.filled().sum(dim=1) / tokens.mask.sum(dim=1, keepdim=True)


@breaks("adapter", "padding")
class CountsPadding(TokenMean):
    def pool(self, tokens, latents):
        return tokens.filled().mean(dim=1)


@breaks("adapter", "padding")
class ReadsPadding(TokenMean):
    def tokens(self, latents):
        return Padded(self.out(latents.values), latents.mask)

    def pool(self, tokens, latents):
        return super().pool(tokens, latents) + 0 * tokens.values.sum(dim=1)


@breaks("adapter", "embedded_tokens")
class TrimsTokens(TokenMean):
    def tokens(self, latents):
        tokens = super().tokens(latents)
        own = tokens.mask.any(dim=0)
        return Padded(tokens.values[:, own], tokens.mask[:, own])


@breaks("adapter", "embedded_tokens")
class OtherForward(TokenMean):
    def forward(self, latents):
        return 2 * super().forward(latents)


@breaks("adapter", "start_from")
class StartsFromNothing(Linear):
    def start_from(self, closed_form):
        pass


@breaks("adapter", "start_from")
class RefusesAll(Linear):
    def start_from(self, closed_form):
        raise ConfigError("no")


# -- mixups ----------------------------------------------------------------------------------------


@breaks("mixup", "rows_per_pair")
class SaysTwo(NoMixup):
    rows_per_pair = 2


@breaks("mixup", "shapes")
class ToFloat32(NoMixup):
    def __call__(self, batch, generator, progress):
        return replace(batch, latents={m: x.float() for m, x in batch.latents.items()})


@breaks("mixup", "shapes")
class LinksInInt32(NoMixup):
    def __call__(self, batch, generator, progress):
        return replace(batch, links=batch.links.int())


@breaks("mixup", "finite")
class NanAtTheEnd(NoMixup):
    def __call__(self, batch, generator, progress):
        scale = float("nan") if progress > 0.9 else 1.0
        return replace(batch, latents={m: x * scale for m, x in batch.latents.items()})


@breaks("mixup", "one_lambda_and_pairing")
class LambdaEach(FuseMixMixup):
    def __call__(self, batch, generator, progress):
        mixed = {}
        for modality, x in batch.latents.items():
            one = self.mix(Batch({modality: x}, batch.links), self.draw(generator, progress))
            mixed[modality] = one.latents[modality]
        return replace(self.mix(batch, 0.5), latents=mixed)


@breaks("mixup", "one_lambda_and_pairing")
class PairingEach(FuseMixMixup):
    def __call__(self, batch, generator, progress):
        mixed = self.mix(batch, 0.5)
        rolled = {m: x.roll(k, 0) for k, (m, x) in enumerate(mixed.latents.items())}
        return replace(mixed, latents=rolled)


@breaks("mixup", "links_are_rows_of_the_batch")
class LinksShifted(NoMixup):
    def __call__(self, batch, generator, progress):
        links = batch.links.clone()
        links[:, :, 1] = links[:, :, 1].roll(1, 0)
        return Batch(batch.latents, links)


@breaks("mixup", "carries_facts")
class LosesFacts(NoMixup):
    def __call__(self, batch, generator, progress):
        return Batch(batch.latents, batch.links)


@breaks("mixup", "carries_facts")
class FactsOfOtherRows(NoMixup):
    def __call__(self, batch, generator, progress):
        facts = {name: x.flip(0) for name, x in batch.facts.items()}
        return replace(batch, facts=facts)


@breaks("mixup", "missing_entries")
class MixesWithMissing(NoMixup):
    def __call__(self, batch, generator, progress):
        mixed = {m: 0.5 * x + 0.5 * x.roll(1, 0) for m, x in batch.latents.items()}
        rows = torch.arange(len(batch.links))
        return replace(batch.mixed(lambda x, y: x, rows, rows.roll(1)), latents=mixed)


@breaks("mixup", "own_rows")
class DrawsForRowsItHas(NoMixup):
    def __call__(self, batch, generator, progress):
        weights = torch.rand(len(batch.latents["image"]), 1, generator=generator)
        return batch.mixed(lambda x: weights * x, torch.arange(len(batch.links)))

    sources = NoMixup.sources


@breaks("mixup", "tokens")
class FillsPadding(NoMixup):
    def __call__(self, batch, generator, progress):
        latents = {
            m: Padded(x.values + 1, torch.ones_like(x.mask)) if isinstance(x, Padded) else x
            for m, x in batch.latents.items()
        }
        return replace(batch, latents=latents)


@breaks("mixup", "tokens")
class ZerosAreNoTokens(NoMixup):
    def __call__(self, batch, generator, progress):
        latents = {
            m: Padded(x.values, (x.filled() != 0).any(dim=2)) if isinstance(x, Padded) else x
            for m, x in batch.latents.items()
        }
        return replace(batch, latents=latents)


@breaks("mixup", "tokens")
class MeanWithPadding(NoMixup):
    def __call__(self, batch, generator, progress):
        return batch.changed(lambda x, own: x - x.mean())


@breaks("mixup", "draws_from_its_generator")
class CountsItsCalls(NoMixup):
    def __init__(self):
        self.calls = 0

    def __call__(self, batch, generator, progress):
        self.calls += 1
        return replace(batch, latents={m: x * self.calls for m, x in batch.latents.items()})


@breaks("mixup", "surroundings")
class DrawsGlobally(NoMixup):
    def __call__(self, batch, generator, progress):
        torch.rand(1)
        return batch


@breaks("mixup", "input_unmodified")
class InPlace(NoMixup):
    def __call__(self, batch, generator, progress):
        for x in batch.latents.values():
            x.mul_(0.9)
        return batch


@breaks("mixup", "is_a_mixup")
class NotAMixup:
    rows_per_pair = 1
    __call__ = NoMixup.__call__


@breaks("mixup", "is_a_mixup")
class NoRows(NoMixup):
    rows_per_pair = 0


# -- objectives ------------------------------------------------------------------------------------


@breaks("objective", "scalar")
class ALossARow(InfoNCE):
    def forward(self, step):
        return super().forward(step).expand(len(step.links))


@breaks("objective", "scalar")
class OnlyTwo(InfoNCE):
    def forward(self, step):
        image, text = step.embeddings.values()
        return super().forward(Step.of({"image": image, "text": text}, step.links))


@breaks("objective", "gradients")
class OneSided(InfoNCE):
    def forward(self, step):
        first, *others = step.embeddings.items()
        held = {m: x.detach() for m, x in others}
        return super().forward(Step.of({first[0]: first[1], **held}, step.links))


@breaks("objective", "gradients")
class DeadTemperature(InfoNCE):
    def __init__(self):
        super().__init__()
        self.other = nn.Parameter(torch.ones(()))


class WrongBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return 1.1 * gradient


@breaks("objective", "gradient_is_the_derivative")
class WrongDerivative(InfoNCE):
    def forward(self, step):
        return WrongBackward.apply(super().forward(step))


@breaks("objective", "scale_invariance")
class SquaredDistance(InfoNCE):
    def forward(self, step):
        image, text, *_ = step.embeddings.values()
        return (image - text).square().mean()


@breaks("objective", "order_of_rows")
class FirstRowsCount(InfoNCE):
    def forward(self, step):
        rows = {m: x[:8] for m, x in step.embeddings.items()}
        return super().forward(Step.of(rows, step.links[:8]))


@breaks("objective", "prefers_alignment")
class IgnoresPairs(InfoNCE):
    def forward(self, step):
        return sum(normalize(x, dim=1).mean(0).square().sum() for x in step.embeddings.values())


@breaks("objective", "descent_aligns")
class Ascends(InfoNCE):
    def forward(self, step):
        loss = super().forward(step)
        return 2 * loss.detach() - loss


@breaks("objective", "missing_entries")
class IgnoresLinks(InfoNCE):
    def forward(self, step):
        return super().forward(Step.of(step.embeddings, step.links.abs()))


@breaks("objective", "mixed_and_shared_items")
class OneSource(InfoNCE):
    def forward(self, step):
        assert step.links.shape[1] == 1
        return super().forward(step)


@breaks("objective", "deterministic")
class Decays(InfoNCE):
    def forward(self, step):
        self.calls = getattr(self, "calls", 0) + 1
        return super().forward(step) / self.calls


@breaks("objective", "log_is_numbers")
class LogsVectors(InfoNCE):
    def log(self):
        return {"temperature": self.temperature.expand(3)}


@breaks("objective", "resumes")
class StateElsewhere(InfoNCE):
    """What it learns of the data is in no buffer."""

    def forward(self, step):
        self.weight = getattr(self, "weight", 1.0) / 2
        return super().forward(step) * self.weight


@breaks("objective", "input_unmodified")
class NormalisesInPlace(InfoNCE):
    def forward(self, step):
        for x in step.embeddings.values():
            x.data.div_(x.data.norm(dim=1, keepdim=True))
        return super().forward(step)


@breaks("objective", "surroundings")
class ShufflesGlobally(InfoNCE):
    def forward(self, step):
        torch.randperm(len(step.links))
        return super().forward(step)


@breaks("objective", "reads_what_it_declares")
class NeverReadsTrust(InfoNCE):
    uses = ("trust",)


@breaks("objective", "tokens")
class IgnoresTokens(InfoNCE):
    uses = ("tokens",)

    def forward(self, step):
        return super().forward(step) + 0 * sum(x.filled().sum() for x in step.tokens.values())


@breaks("objective", "tokens")
class CountsTokens(InfoNCE):
    uses = ("tokens",)

    def forward(self, step):
        means = {m: x.filled().mean(dim=1) for m, x in step.tokens.items()}
        lengths = sum(x.values.shape[1] for x in step.tokens.values())
        return super().forward(Step.of(means, step.links)) * lengths


@breaks("objective", "unpaired")
class IgnoresUnpaired(InfoNCE):
    uses = ("unpaired",)


@breaks("objective", "unpaired")
class PairsUnpaired(InfoNCE):
    uses = ("unpaired",)

    def forward(self, step):
        loss = super().forward(step)
        rows = [normalize(x.embeddings, dim=1) for x in step.unpaired.values()]
        n = min(map(len, rows), default=0)
        return loss - (rows[0][:n] * rows[-1][:n]).sum(1).mean() if n else loss


@breaks("objective", "trust")
class IgnoresTrust(InfoNCE):
    uses = ("trust",)


@breaks("objective", "trust")
class DividesByTrust(InfoNCE):
    uses = ("trust",)

    def forward(self, step):
        kept = step.trust > 0
        rows = {m: x[kept] for m, x in step.embeddings.items()}
        loss = super().forward(Step.of(rows, step.links[kept]))
        return loss * len(step.trust) / step.trust.sum()


@breaks("objective", "through")
class IgnoresOtherAdapters(InfoNCE):
    uses = ("adapters",)


@breaks("objective", "through")
class TargetsOfAnyLength(InfoNCE):
    uses = ("adapters",)

    def forward(self, step):
        averaged = step.through(step.adapters)
        pulls = [(x - averaged[m]).square().mean() for m, x in step.embeddings.items()]
        return super().forward(step) + sum(pulls)


@breaks("objective", "is_an_objective")
class NotAnObjective(nn.Module):
    def forward(self, step):
        return InfoNCE()(step)
