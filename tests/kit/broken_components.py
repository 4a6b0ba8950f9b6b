"""For each check of components, one that breaks it. Aligners, optimisers and scorers are
in `broken_fits`, selectors in `broken_selectors`."""

from collections import defaultdict
from dataclasses import replace

import torch
from torch import nn
from torch.nn.functional import normalize
from toys import TokenMean

from fusemix_core.errors import ConfigError
from fusemix_core.interfaces import Adapter, Batch, Padded
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
class LosesTheSourceAxis(NoMixup):
    def __call__(self, batch, generator, progress):
        return Batch(batch.latents, batch.links[:, 0])


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
    def forward(self, embeddings, links):
        return super().forward(embeddings, links).expand(len(links))


@breaks("objective", "scalar")
class OnlyTwo(InfoNCE):
    def forward(self, embeddings, links):
        image, text = embeddings.values()
        return super().forward({"image": image, "text": text}, links)


@breaks("objective", "gradients")
class OneSided(InfoNCE):
    def forward(self, embeddings, links):
        first, *others = embeddings.items()
        held = {m: x.detach() for m, x in others}
        return super().forward({first[0]: first[1], **held}, links)


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
    def forward(self, embeddings, links):
        return WrongBackward.apply(super().forward(embeddings, links))


@breaks("objective", "scale_invariance")
class SquaredDistance(InfoNCE):
    def forward(self, embeddings, links):
        image, text, *_ = embeddings.values()
        return (image - text).square().mean()


@breaks("objective", "order_of_rows")
class FirstRowsCount(InfoNCE):
    def forward(self, embeddings, links):
        return super().forward({m: x[:8] for m, x in embeddings.items()}, links[:8])


@breaks("objective", "prefers_alignment")
class IgnoresPairs(InfoNCE):
    def forward(self, embeddings, links):
        return sum(normalize(x, dim=1).mean(0).square().sum() for x in embeddings.values())


@breaks("objective", "descent_aligns")
class Ascends(InfoNCE):
    def forward(self, embeddings, links):
        loss = super().forward(embeddings, links)
        return 2 * loss.detach() - loss


@breaks("objective", "missing_entries")
class IgnoresLinks(InfoNCE):
    def forward(self, embeddings, links):
        return super().forward(embeddings, links.abs())


@breaks("objective", "mixed_and_shared_items")
class OneSource(InfoNCE):
    def forward(self, embeddings, links):
        assert links.shape[1] == 1
        return super().forward(embeddings, links)


@breaks("objective", "deterministic")
class Decays(InfoNCE):
    def forward(self, embeddings, links):
        self.calls = getattr(self, "calls", 0) + 1
        return super().forward(embeddings, links) / self.calls


@breaks("objective", "log_is_numbers")
class LogsTensors(InfoNCE):
    def log(self):
        return {"temperature": self.temperature}


@breaks("objective", "resumes")
class StateElsewhere(InfoNCE):
    """What it learns of the data is in no buffer."""

    def forward(self, embeddings, links):
        self.weight = getattr(self, "weight", 1.0) / 2
        return super().forward(embeddings, links) * self.weight


@breaks("objective", "input_unmodified")
class NormalisesInPlace(InfoNCE):
    def forward(self, embeddings, links):
        for x in embeddings.values():
            x.data.div_(x.data.norm(dim=1, keepdim=True))
        return super().forward(embeddings, links)


@breaks("objective", "surroundings")
class ShufflesGlobally(InfoNCE):
    def forward(self, embeddings, links):
        torch.randperm(len(links))
        return super().forward(embeddings, links)


@breaks("objective", "tokens")
class IgnoresTokens(InfoNCE):
    takes_tokens = True

    def forward(self, embeddings, links, tokens):
        return super().forward(embeddings, links) + 0 * sum(
            x.filled().sum() for x in tokens.values()
        )


@breaks("objective", "tokens")
class CountsTokens(InfoNCE):
    takes_tokens = True

    def forward(self, embeddings, links, tokens):
        means = {m: x.filled().mean(dim=1) for m, x in tokens.items()}
        lengths = sum(x.values.shape[1] for x in tokens.values())
        return super().forward(means, links) * lengths


@breaks("objective", "unpaired")
class IgnoresUnpaired(InfoNCE):
    takes_unpaired = True

    def forward(self, embeddings, links, unpaired):
        return super().forward(embeddings, links)


@breaks("objective", "unpaired")
class PairsUnpaired(InfoNCE):
    takes_unpaired = True

    def forward(self, embeddings, links, unpaired):
        loss = super().forward(embeddings, links)
        rows = [normalize(x, dim=1) for x, _ in unpaired.values()]
        n = min(map(len, rows), default=0)
        return loss - (rows[0][:n] * rows[-1][:n]).sum(1).mean() if n else loss


@breaks("objective", "trust")
class IgnoresTrust(InfoNCE):
    takes_trust = True

    def forward(self, embeddings, links, trust):
        return super().forward(embeddings, links)


@breaks("objective", "trust")
class DividesByTrust(InfoNCE):
    takes_trust = True

    def forward(self, embeddings, links, trust):
        kept = trust > 0
        rows = {m: x[kept] for m, x in embeddings.items()}
        return super().forward(rows, links[kept]) * len(trust) / trust.sum()


@breaks("objective", "averaged")
class IgnoresAveraged(InfoNCE):
    momentum = 0.9

    def forward(self, embeddings, links, averaged):
        return super().forward(embeddings, links)


@breaks("objective", "averaged")
class TargetsOfAnyLength(InfoNCE):
    momentum = 0.9

    def forward(self, embeddings, links, averaged):
        pulls = [(x - averaged[m]).square().mean() for m, x in embeddings.items()]
        return super().forward(embeddings, links) + sum(pulls)


@breaks("objective", "averaged")
class NoMomentum(InfoNCE):
    momentum = 1.0


@breaks("objective", "is_an_objective")
class NotAnObjective(nn.Module):
    def forward(self, embeddings, links):
        return InfoNCE()(embeddings, links)
