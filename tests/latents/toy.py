"""A small deterministic encoder and items for it. Loaded by `import_file`, also in children."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import fields

import numpy as np
import torch
from torch import Tensor, nn

from fusemix_core.data.media import Audio
from fusemix_core.digests import content_key
from fusemix_core.errors import DataError
from fusemix_core.interfaces import Encoder, Padded
from fusemix_core.latents.encoding import Encoding
from fusemix_core.latents.extraction import Extraction, extract
from fusemix_core.latents.store import LatentStore
from fusemix_core.specs import EncoderSpec

DIM = 8


class ToyItems:
    """Items held in memory. A value that is an exception is raised when it is loaded."""

    def __init__(self, values: list, modality: str = "text") -> None:
        self.values, self.modality = values, modality
        digests = b"".join(content_key(repr(v).encode()) for v in values)
        self.keys = np.frombuffer(digests, np.uint64).reshape(-1, 2)

    def __len__(self) -> int:
        return len(self.values)

    def load(self, i: int, sample_rate: int | None = None):
        value = self.values[i]
        if isinstance(value, Exception):
            raise value
        return value

    def describe(self, i: int) -> str:
        return str(self.values[i])

    def select(self, index: np.ndarray) -> ToyItems:
        return type(self)([self.values[i] for i in index], self.modality)


class DeadlyItems(ToyItems):
    """Those called deadly end the process that loads them, unless it is `spared`."""

    spared = 0

    def __init__(self, values: list, modality: str = "text") -> None:
        super().__init__(values, modality)
        self.spared = type(self).spared

    def load(self, i: int, sample_rate: int | None = None):
        if str(self.values[i]).startswith("deadly") and os.getpid() != self.spared:
            os.kill(os.getpid(), signal.SIGSEGV)
        return super().load(i, sample_rate)


def texts(n: int, start: int = 0) -> list[str]:
    """Texts of many lengths, all different."""
    return [f"{i} " + "word " * (i * 7919 % 40) for i in range(start, start + n)]


class ToyEncoder(Encoder):
    """Features of a text (or clip) through one fixed linear layer.

    Of the view `layers` two opposite ones, of `tokens` `length(item)` multiples of it. Options:
    `delay`, seconds a batch; `at_once`, the most items that fit its pretended memory.
    """

    loads = 0
    batches: list[list] = []

    def __init__(self, spec: EncoderSpec) -> None:
        self.spec = spec
        self.layer = nn.Linear(16, DIM)
        with torch.no_grad():
            for parameter in self.layer.parameters():
                parameter.copy_(torch.linspace(-1, 1, parameter.numel()).view_as(parameter).sin())

    @classmethod
    def load(cls, spec, device, dtype):
        cls.loads += 1
        return cls(spec)

    def collate(self, items) -> tuple[list, Tensor]:
        if any(isinstance(item, str) and "uncollatable" in item for item in items):
            raise ValueError("can't collate that")
        return list(items), torch.stack([features(item) for item in items])

    @torch.no_grad()
    def encode(self, batch, view: str = "pooled") -> Tensor | Padded:
        items, values = batch
        time.sleep(self.spec.options.get("delay", 0))
        if len(items) > self.spec.options.get("at_once", 10**9):
            raise torch.OutOfMemoryError("pretended")
        type(self).batches.append(items)
        pooled = self.layer(values)
        if view == "layers":
            return torch.stack([pooled, -pooled], dim=1)
        if view == "tokens":
            lengths = torch.tensor([length(item) for item in items])
            count = torch.arange(int(lengths.max()))
            mask = count < lengths[:, None]
            return Padded(pooled[:, None] * (count[:, None] + 1) * mask[..., None], mask)
        return pooled


def length(item: str) -> int:
    return 1 + len(item) % 7


def features(item: str | Audio) -> Tensor:
    if isinstance(item, Audio):
        item = item.samples.tobytes().hex()
    data = np.frombuffer(content_key(item.encode()), np.uint8)
    return torch.from_numpy(data.astype(np.float32) / 255)


def spec(cls: type = ToyEncoder, **changes) -> EncoderSpec:
    """The spec of the toy, its weights known by a digest."""
    views = ("pooled", "layers", "tokens")
    facts = {"name": "toy", "modality": "text", "dim": DIM, "views": views, "sha256": "ab" * 32}
    return EncoderSpec(**{**facts, "target": f"{cls.__module__}:{cls.__qualname__}", **changes})


def damaged(i: int) -> DataError:
    return DataError(f"item {i} is damaged")


def extracted(spec: EncoderSpec, items: ToyItems, store: LatentStore, **options) -> Extraction:
    """The extraction; `options` are those of `extract` and the fields of `Encoding`."""
    how = {f.name: options.pop(f.name) for f in fields(Encoding) if f.name in options}
    return extract(spec, items, store, Encoding(**how), **options)


class DeadlyEncoder(ToyEncoder):
    """Ends the process that collates an item called deadly, unless it is that of the loaded one."""

    def __init__(self, spec: EncoderSpec) -> None:
        super().__init__(spec)
        self.process = os.getpid()

    def collate(self, items) -> tuple[list, Tensor]:
        if os.getpid() != self.process and any("deadly" in str(item) for item in items):
            os.kill(os.getpid(), signal.SIGSEGV)
        return super().collate(items)


class FaultyEncoder(ToyEncoder):
    """Has a fault of the program."""

    def collate(self, items):
        raise KeyError("no such option")


class Unsendable(ToyEncoder):
    """Can't be pickled."""

    def __init__(self, spec: EncoderSpec) -> None:
        super().__init__(spec)
        self.function = lambda x: x


class OfArrays(ToyEncoder):
    """Of uint8 arrays."""

    def collate(self, items) -> tuple[list, Tensor]:
        return list(map(len, items)), torch.stack([features(i.tobytes().hex()) for i in items])


class Signing(ToyEncoder):
    """Its latents say which process encoded."""

    def encode(self, batch, view: str = "pooled") -> Tensor:
        found = super().encode(batch, view)
        found[:, 0] = os.getpid()
        return found


class DeadlyEncode(ToyEncoder):
    """Ends the process that encodes an item called deadly."""

    def encode(self, batch, view: str = "pooled") -> Tensor | Padded:
        if "deadly" in batch[0]:
            os.kill(os.getpid(), signal.SIGSEGV)
        return super().encode(batch, view)


class Telling(ToyItems):
    """The first of them are bad, and say how nice the thread is that loads them."""

    def load(self, i: int, sample_rate: int | None = None):
        print("as some libraries do")
        if str(self.values[i]).startswith("how nice"):
            raise DataError(f"{os.nice(0)}")
        return super().load(i, sample_rate)
