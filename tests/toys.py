"""Encoders small enough for tests: colours for images, words for texts, pitch for sounds.

Used by file (`tests/toys.py:ToyImage`) and by import.
"""

import hashlib

import numpy as np
import torch

from fusemix_core.data.media import Audio
from fusemix_core.errors import ConfigError
from fusemix_core.interfaces import Encoder, Padded, TokenAdapter
from fusemix_core.specs import EncoderSpec


class _Toy(Encoder):
    def __init__(self, spec, device=torch.device("cpu")):
        self.spec, self.device = spec, device

    @classmethod
    def load(cls, spec, device, dtype):
        return cls(spec, device)

    def encode(self, batch, view="pooled"):
        if view not in self.spec.views:
            raise ConfigError(f"no view '{view}'")
        with torch.no_grad():
            return torch.tanh(batch.to(self.device) @ self.mix.to(self.device))

    @property
    def weights_digest(self):
        return hashlib.sha256(self.mix.numpy().tobytes()).hexdigest()


class ToyImage(_Toy):
    spec = EncoderSpec(name="toy-image", modality="image", target="toys:ToyImage", dim=16)
    mix = torch.randn(6, 16, generator=torch.Generator().manual_seed(0))

    def collate(self, items):
        if not all(hasattr(i, "convert") for i in items):
            raise TypeError("images only")
        rows = []
        for item in items:
            pixels = np.asarray(item, dtype=np.float32).reshape(-1, 3) / 255
            rows.append(np.concatenate([pixels.mean(0), pixels.std(0)]))
        return torch.tensor(np.array(rows))


class ToyText(_Toy):
    spec = EncoderSpec(
        name="toy-text", modality="text", target="toys:ToyText", dim=12, max_tokens=40
    )
    mix = torch.randn(32, 12, generator=torch.Generator().manual_seed(1))

    def collate(self, items):
        if not all(isinstance(i, str) for i in items):
            raise TypeError("texts only")
        rows = torch.zeros(len(items), 32)
        for row, item in zip(rows, items, strict=True):
            for word in item.lower().split()[:40]:
                row[hashlib.md5(word.encode()).digest()[0] % 32] += 1
        return rows

    def truncated(self, items):
        return sum(len(i.split()) > 40 for i in items)


class GridImage(ToyImage):
    """A ToyImage with a view of two more axes."""

    spec = EncoderSpec(
        name="toy-grid", modality="image", target="toys:GridImage", dim=16, views=("pooled", "grid")
    )

    def encode(self, batch, view="pooled"):
        pooled = super().encode(batch)
        if view == "grid":
            places = [pooled * (i + 1) - i for i in range(6)]
            return torch.stack(places, dim=1).unflatten(1, (2, 3))
        return pooled


class TokenText(ToyText):
    """A ToyText with one latent a word, after one for the beginning, and two layers."""

    spec = EncoderSpec(
        name="toy-tokens", modality="text", target="toys:TokenText", dim=12,
        views=("pooled", "tokens", "layers"),
    )  # fmt: skip

    def collate(self, items):
        if not all(isinstance(i, str) for i in items):
            raise TypeError("texts only")
        return [super(TokenText, self).collate(["", *item.split()]) for item in items]

    def encode(self, batch, view="pooled"):
        if view == "tokens":
            rows = [super(TokenText, self).encode(words) for words in batch]
            lengths = torch.tensor([len(row) for row in rows])
            mask = torch.arange(int(lengths.max())) < lengths[:, None]
            return Padded(torch.nn.utils.rnn.pad_sequence(rows, batch_first=True), mask)
        pooled = super().encode(torch.stack([words.sum(0) for words in batch]))
        return torch.stack([-pooled, pooled], dim=1) if view == "layers" else pooled


class TokenMean(TokenAdapter):
    """The mean of projected tokens."""

    def __init__(self, dim_in, dim_out):
        super().__init__()
        self.out = torch.nn.Linear(dim_in, dim_out)

    def tokens(self, latents):
        return Padded(self.out(latents.filled()), latents.mask)

    def pool(self, tokens, latents):
        count = tokens.mask.sum(dim=1, keepdim=True).clamp(min=1)
        return tokens.filled().sum(dim=1) / count


class ToySound(_Toy):
    spec = EncoderSpec(
        name="toy-sound", modality="audio", target="toys:ToySound", dim=10, sample_rate=8000
    )
    mix = torch.randn(8, 10, generator=torch.Generator().manual_seed(2))

    def collate(self, items):
        if not all(isinstance(i, Audio) for i in items):
            raise TypeError("sounds only")
        rows = []
        for item in items:
            spectrum = np.abs(np.fft.rfft(item.samples, 512))[:256]
            rows.append(spectrum.reshape(8, 32).mean(1) / (spectrum.mean() + 1e-6))
        return torch.tensor(np.array(rows), dtype=torch.float32)
