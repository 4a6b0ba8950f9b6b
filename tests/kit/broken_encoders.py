"""A good encoder, and one for each check of encoders that breaks what the check holds."""

import logging
import os
import random
import threading
import uuid
import warnings
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from fusemix_core.errors import ConfigError
from fusemix_core.interfaces import Encoder, Network, Padded
from fusemix_core.specs import EncoderSpec

DIM, LIMIT = 8, 64


class Good(Encoder):
    """A vector a letter, through two layers."""

    spec = EncoderSpec(
        name="good",
        modality="text",
        target="kit.broken_encoders:Good",
        dim=DIM,
        views=("pooled", "tokens", "layers"),
        max_tokens=LIMIT,
    )

    def __init__(self, spec, device, dtype):
        self.spec, self.device, self.dtype = spec, device, dtype
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.model = nn.ModuleList([nn.Embedding(97, DIM), nn.Linear(DIM, DIM), nn.Dropout()])
        self.model.eval().requires_grad_(False).to(device, dtype)

    @classmethod
    def load(cls, spec, device, dtype):
        return cls(cls.spec, device, dtype)

    @classmethod
    def tiny(cls, spec):
        return cls(cls.spec, torch.device("cpu"), torch.float32)

    def collate(self, items):
        if not all(isinstance(item, str) for item in items):
            raise TypeError("texts only")
        return [torch.tensor([0] + [ord(c) % 97 for c in item[: LIMIT - 1]]) for item in items]

    @torch.inference_mode()
    def encode(self, batch, view="pooled"):
        if view not in self.spec.views:
            raise ConfigError(f"no view '{view}'")
        length = max(map(len, batch), default=1)
        values = torch.zeros(len(batch), length, DIM)
        mask = torch.zeros(len(batch), length, dtype=torch.bool)
        for i, ids in enumerate(batch):
            values[i, : len(ids)] = self.letters(ids)
            mask[i, : len(ids)] = True
        if view == "tokens":
            return Padded(values, mask)
        pooled = values.sum(1) / mask.sum(1, keepdim=True)
        return torch.stack([pooled, pooled.tanh()], dim=1) if view == "layers" else pooled

    def letters(self, ids):
        embed, layer, dropout = self.model
        place = torch.linspace(1, 2, len(ids), dtype=self.dtype, device=self.device)[:, None]
        return dropout(layer(embed(ids.to(self.device))) * place).float().cpu()

    def truncated(self, items):
        return sum(len(item) > LIMIT - 1 for item in items)


class ViewTwice(Good):
    spec = replace(Good.spec, views=("pooled", "tokens", "tokens"))


class ViewOfNoKind(Good):
    spec = replace(Good.spec, views=("pooled", "frames"))


class OtherWidth(Good):
    spec = replace(Good.spec, dim=DIM + 1)


class OtherRank(Good):
    def encode(self, batch, view="pooled"):
        latents = super().encode(batch, view)
        return latents.values if view == "tokens" else latents.flatten(1)


class PaddedPooled(Good):
    def encode(self, batch, view="pooled"):
        return super().encode(batch, "tokens")


class PaddingFirst(Good):
    def encode(self, batch, view="pooled"):
        latents = super().encode(batch, view)
        return Padded(latents.values.flip(1), latents.mask.flip(1)) if view == "tokens" else latents


class PaddingNotZero(Good):
    def encode(self, batch, view="pooled"):
        latents = super().encode(batch, view)
        return Padded(latents.values + 1, latents.mask) if view == "tokens" else latents


class Half(Good):
    def encode(self, batch, view="pooled"):
        latents = super().encode(batch, view)
        return latents if view == "tokens" else latents.half()


class NotFinite(Good):
    def encode(self, batch, view="pooled"):
        latents = super().encode(batch, view)
        return latents if view == "tokens" else latents / 0


class Constant(Good):
    def letters(self, ids):
        return torch.ones(len(ids), DIM)


class NotNormalised(Good):
    spec = replace(Good.spec, normalised=True)


class SortedByLength(Good):
    def encode(self, batch, view="pooled"):
        return super().encode(sorted(batch, key=len), view)


class LessTheMean(Good):
    def encode(self, batch, view="pooled"):
        latents = super().encode(batch, view)
        return latents if view == "tokens" or len(batch) < 2 else latents - latents.mean(0)


class Squeezed(Good):
    def encode(self, batch, view="pooled"):
        latents = super().encode(batch, view)
        return latents if view == "tokens" else latents.squeeze()


class NeedsOne(Good):
    def collate(self, items):
        return list(torch.nn.utils.rnn.pad_sequence(super().collate(items), batch_first=True))


class Noisy(Good):
    draw = torch.Generator().manual_seed(0)

    def letters(self, ids):
        letters = super().letters(ids)
        return letters + 1e-6 * torch.randn(letters.shape, generator=self.draw)


class SortsItems(Good):
    def collate(self, items):
        batch = super().collate(items)
        items.sort()
        return batch


class SpoilsBatch(Good):
    def encode(self, batch, view="pooled"):
        latents = super().encode(batch, view)
        for ids in batch:
            ids.zero_()
        return latents


class WithGradient(Good):
    def __init__(self, *args):
        super().__init__(*args)
        self.model.requires_grad_(True)

    encode = Good.encode.__wrapped__


class Training(Good):
    def __init__(self, *args):
        super().__init__(*args)
        self.model[2].train()


class OnTwoDevices(Good):
    def __init__(self, *args):
        super().__init__(*args)
        self.head = nn.Linear(2, 2, device="meta").eval().requires_grad_(False)


class OnlyFloat32(Good):
    @classmethod
    def load(cls, spec, device, dtype):
        return cls(cls.spec, device, torch.float32)


class TakesAnything(Good):
    def collate(self, items):
        return super().collate([str(item) for item in items])


class FailsOnNothing(Good):
    def collate(self, items):
        return super().collate([item[0].lower() + item[1:] for item in self.checked(items)])

    def checked(self, items):
        super().collate(items)
        return items


class NanOnNothing(Good):
    def letters(self, ids):
        letters = super().letters(ids)
        return letters / 0 if len(ids) == 1 else letters


class IgnoresView(Good):
    def encode(self, batch, view="pooled"):
        return super().encode(batch, view if view in self.spec.views else "pooled")


class NeverCuts(Good):
    def truncated(self, items):
        return 0


class CountsTooMany(Good):
    def truncated(self, items):
        return len(items) + 1


class CountsOtherwise(Good):
    def collated(self, items):
        return self.collate(items), 0


class NetworkUnused(Good):
    def network(self, view):
        return Network(self.model)


class NotForWorkers(Good):
    def __init__(self, *args):
        super().__init__(*args)
        self.tokenize = lambda text: text


class NeedsWeightsInWorker(Good):
    def collate(self, items):
        assert self.model
        return super().collate(items)


class OnlyInMainThread(Good):
    def collate(self, items):
        assert threading.current_thread() is threading.main_thread()
        return super().collate(items)


class OtherDigestEachTime(Good):
    weights_digest = property(lambda self: uuid.uuid4().hex)


class OtherWeightsEachTime(Good):
    def __init__(self, *args):
        super().__init__(*args)
        self.model[1].bias.data.fill_(random.SystemRandom().random())


class NoDigest(Good):
    weights_digest = "always the same"


class PlainTensor(Good):
    """Its weights are in no nn.Module, so nothing sees them."""

    def __init__(self, spec, device, dtype):
        self.spec = spec
        self.matrix = torch.randn(97, DIM, generator=torch.Generator().manual_seed(0))

    def letters(self, ids):
        return self.matrix[ids] * torch.linspace(1, 2, len(ids))[:, None]


class SeedsTorch(Good):
    def encode(self, batch, view="pooled"):
        torch.manual_seed(0)
        return super().encode(batch, view)


class DrawsFromNumpy(Good):
    def collate(self, items):
        np.random.rand()
        return super().collate(items)


class DrawsFromRandom(Good):
    @classmethod
    def load(cls, spec, device, dtype):
        random.random()
        return super().load(spec, device, dtype)


class TurnsGradientsOff(Good):
    def encode(self, batch, view="pooled"):
        torch.set_grad_enabled(False)
        return super().encode(batch, view)


class SetsDefaultDtype(Good):
    @classmethod
    def load(cls, spec, device, dtype):
        torch.set_default_dtype(torch.float64)
        return super().load(spec, device, dtype)


class SetsVariable(Good):
    @classmethod
    def load(cls, spec, device, dtype):
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        return super().load(spec, device, dtype)


class ConfiguresLogging(Good):
    @classmethod
    def load(cls, spec, device, dtype):
        logging.getLogger().setLevel(logging.DEBUG - 1)
        return super().load(spec, device, dtype)


class SilencesWarnings(Good):
    def encode(self, batch, view="pooled"):
        warnings.simplefilter("ignore")
        return super().encode(batch, view)


class FitsUndeclared(Good):
    @classmethod
    def fit(cls, spec, items):
        return replace(spec, options={"longest": max(map(len, items))})


class Fitted(Good):
    """Learns a shift; keeps its contract."""

    spec = replace(Good.spec, views=("pooled",), fitted=True, options={"learnt": None})

    def __init__(self, spec, device, dtype):
        super().__init__(spec, device, dtype)
        self.learnt_shift = spec.options["learnt"]["shift"]

    @classmethod
    def load(cls, spec, device, dtype):
        return cls(spec, device, dtype)

    @classmethod
    def fit(cls, spec, items):
        return replace(spec, options={"learnt": {"shift": cls.shift(items)}})

    @staticmethod
    def shift(items):
        return max(map(len, items)) / 100

    def encode(self, batch, view="pooled"):
        return super().encode(batch, view) + float(self.learnt_shift)

    @property
    def weights_digest(self):
        return f"{super().weights_digest} {self.learnt_shift}"


class LearnsObjects(Fitted):
    @staticmethod
    def shift(items):
        return torch.tensor(0.5)


class LearnsByChance(Fitted):
    @staticmethod
    def shift(items):
        return random.random()


class ForgetsTuples(Fitted):
    """What is a tuple when it is fitted is a list when it is loaded."""

    @staticmethod
    def shift(items):
        return (0.5,)

    def encode(self, batch, view="pooled"):
        shift = 0.5 if isinstance(self.learnt_shift, tuple) else 0.0
        return Good.encode(self, batch, view) + shift


class NanOnUnseen(Fitted):
    @staticmethod
    def shift(items):
        return sorted(items)

    def collate(self, items):
        self.unseen = torch.tensor([item not in self.learnt_shift for item in items])
        return super().collate(items)

    def encode(self, batch, view="pooled"):
        found = Good.encode(self, batch, view).clone()
        found[self.unseen] = torch.nan
        return found


BROKEN = {
    "fit_changes_nothing": [FitsUndeclared],
    "fit_is_plain": [LearnsObjects, LearnsByChance],
    "fit_is_kept": [ForgetsTuples],
    "fit_to_few": [NanOnUnseen],
    "declared_spec": [ViewTwice, ViewOfNoKind],
    "declared_dim": [OtherWidth],
    "declared_views": [OtherRank, PaddedPooled, PaddingFirst, PaddingNotZero],
    "float32": [Half],
    "finite": [NotFinite],
    "different_items": [Constant],
    "declared_norm": [NotNormalised],
    "order": [SortedByLength],
    "batch_size": [LessTheMean],
    "single_item": [Squeezed],
    "empty_batch": [NeedsOne],
    "deterministic": [Noisy],
    "input_unmodified": [SortsItems, SpoilsBatch],
    "no_grad": [WithGradient],
    "eval_mode": [Training],
    "device": [OnTwoDevices],
    "half_precision": [OnlyFloat32],
    "wrong_type": [TakesAnything],
    "edge_items": [FailsOnNothing, NanOnNothing],
    "unknown_view": [IgnoresView],
    "truncated": [NeverCuts, CountsTooMany, CountsOtherwise],
    "network": [NetworkUnused],
    "worker": [NotForWorkers, NeedsWeightsInWorker],
    "threads": [OnlyInMainThread],
    "light_import": [Good],  # with a plugin whose listing imports a heavy package
    "stable_fingerprint": [OtherDigestEachTime, OtherWeightsEachTime],
    "fingerprint_follows_weights": [NoDigest, PlainTensor],
    "random_state": [SeedsTorch, DrawsFromNumpy, DrawsFromRandom],
    "torch_settings": [TurnsGradientsOff, SetsDefaultDtype],
    "environment": [SetsVariable],
    "logging": [ConfiguresLogging, SilencesWarnings],
}
"""Check → encoders that must fail it."""
