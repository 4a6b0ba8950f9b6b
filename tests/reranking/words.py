"""Sentences in two made-up languages. A pooled latent is too narrow to tell words apart, tokens do.

Used by file (`tests/reranking/words.py:Left`) and by import.
"""

import hashlib

import numpy as np
import torch

from fusemix_core.interfaces import Encoder, Padded
from fusemix_core.specs import EncoderSpec

WORDS = 30
DIM = 16
TRAINING = {"training": {"epochs": 8, "lr": 3e-3, "batch_size": 32}}


def table(count=260, seed=0):
    """Column → sentences of three words; the right one says the same in another order."""
    draw = np.random.default_rng(seed)
    ids = np.array([draw.permutation(WORDS)[:3] for _ in range(count)])
    left = [" ".join(f"a{i}" for i in row) + f" n{k}" for k, row in enumerate(ids)]
    right = [" ".join(f"b{i}" for i in row[::-1]) + f" n{k}" for k, row in enumerate(ids)]
    return {"left": left, "right": right}


class _Words(Encoder):
    def __init__(self, spec, device=torch.device("cpu")):
        self.spec, self.device = spec, device

    @classmethod
    def load(cls, spec, device, dtype):
        return cls(spec, device)

    @property
    def weights_digest(self):
        return hashlib.sha256(self.words.numpy().tobytes()).hexdigest()

    def collate(self, items):
        return list(items)

    def encode(self, batch, view="pooled"):
        rows = [torch.stack([self.words[int(w[1:])] for w in text.split()[:3]]) for text in batch]
        tokens = Padded.of(rows)
        if view == "tokens":
            return tokens
        if view == "tokens-layers":
            return Padded(torch.cat([tokens.values.tanh(), tokens.values], dim=2), tokens.mask)
        return torch.stack([row.mean(0) @ self.narrow for row in rows])


def _words(seed):
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(WORDS, DIM, generator=draw), torch.randn(DIM, DIM, generator=draw).tril(-9)


VIEWS = ("pooled", "tokens", "tokens-layers")


class Left(_Words):
    spec = EncoderSpec(
        name="left-words", modality="left", target="words:Left", dim=DIM, takes="text", views=VIEWS
    )
    words, narrow = _words(0)


class Right(_Words):
    spec = EncoderSpec(
        name="right-words", modality="right", target="words:Right", dim=DIM, takes="text",
        views=VIEWS,
    )  # fmt: skip
    words, narrow = _words(1)
