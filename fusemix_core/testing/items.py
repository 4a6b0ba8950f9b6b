"""Made-up items for checking encoders: ordinary ones, and those at the edges of a modality."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fusemix_core.data.media import Audio
from fusemix_core.errors import ContractError
from fusemix_core.interfaces import Encoder
from fusemix_core.specs import EncoderSpec

LEAST = 8
"""Sample items that an encoder of another modality brings at least."""


def items_for(target: type[Encoder], spec: EncoderSpec) -> list[Any]:
    """The items to check an encoder on: its own `sample_items`, or else made-up ones.

    Raises ContractError for an encoder of another modality that brings less than `LEAST`.
    """
    items = list(target.sample_items(spec) or made_up(spec))
    if len(items) < LEAST:
        raise ContractError(
            f"Encoder '{spec.name}'",
            f"{LEAST} or more items from its classmethod `sample_items(spec)`, as the kit can't "
            f"make up {spec.modality} items",
            str(len(items)),
        )
    return items


def made_up(spec: EncoderSpec) -> list[Any]:
    """Eight different pictures, sounds or texts, sizes and lengths mixed; else none."""
    if spec.takes == "image":
        noise = np.random.default_rng(0)
        sizes = [(32, 32), (200, 100), (64, 90), (3, 5), (224, 224), (150, 130), (90, 90), (17, 80)]
        return [_picture(noise.integers(0, 256, (h, w, 3))) for w, h in sizes]
    if spec.takes == "audio":
        rate = spec.sample_rate or 16_000
        seconds = [0.2, 0.5, 1, 2, 0.3, 1.5, 2.5, 0.7]
        return [
            _sound(np.sin(2 * np.pi * 110 * (i + 1) * np.arange(int(s * rate)) / rate), rate)
            for i, s in enumerate(seconds)
        ]
    if spec.takes == "text" and spec.modality == "text":
        return [
            "a",
            "A dog runs.",
            "Two cats sleep on a warm red sofa.",
            "日本語の文",
            "3 + 4 = 7",
            "naïve café",
            "word " * 60,
            "🙂",
        ]
    return []


def edges(spec: EncoderSpec) -> dict[str, Any]:
    """What people's data hold at the edges of pictures, sounds and texts, each by what it is."""
    if spec.takes == "image":
        grey = np.tile(np.arange(64)[:, None, None], (1, 64, 3))
        return {
            "one pixel": _picture(np.full((1, 1, 3), 200)),
            "one row": _picture(np.arange(600).reshape(1, 200, 3) % 256),
            "one column": _picture(np.arange(600).reshape(200, 1, 3) % 256),
            "a strip 300 times as wide as high": _picture(np.arange(3600).reshape(2, 600, 3) % 256),
            "black": _picture(np.zeros((40, 40, 3))),
            "white": _picture(np.full((40, 40, 3), 255)),
            "grey": _picture(grey),
        }
    if spec.takes == "audio":
        rate = spec.sample_rate or 16_000
        noise = np.random.default_rng(1)
        return {
            "one sample": _sound(np.full(1, 0.5), rate),
            "ten milliseconds": _sound(noise.uniform(-1, 1, rate // 100), rate),
            "silence": _sound(np.zeros(rate), rate),
            "a constant": _sound(np.full(rate, 0.7), rate),
            "full scale": _sound(np.sign(np.sin(np.arange(rate) / 7)), rate),
            "forty seconds": _sound(noise.uniform(-0.1, 0.1, 40 * rate), rate),
        }
    if spec.takes == "text" and spec.modality == "text":
        return {
            "a full stop": ".",
            "a space": " ",
            "nothing": "",
            "a very long text": "A very long text. " * 2_000,
            "a word of 3,000 letters": "x" * 3_000,
            "emoji": "👩‍👩‍👧‍👦🏳️‍🌈" * 5,
            "a NUL": "before\0after",
            "line breaks": "one\n\ntwo\r\n\tthree",
            "right to left": "שלום עולם",
            "a lone surrogate's replacement": "\ufffd",
            "special tokens": "[CLS] [SEP] [PAD] <s> </s> <pad> <|endoftext|>",
        }
    return {}


def wrong_items(spec: EncoderSpec) -> list[Any]:
    """Things that are no item of what the encoder takes."""
    others = {"text": [b"bytes"], "image": ["picture.png"], "audio": ["sound.wav"], "file": []}
    return [object(), None, 3, *others[spec.takes]]


def fingerprints(items: Sequence[Any]) -> list[str]:
    """A digest of each item's content, to see whether it was changed."""
    return [hashlib.sha256(_content(item)).hexdigest() for item in items]


def _content(item: Any) -> bytes:
    if isinstance(item, Image.Image):
        return f"{item.mode} {item.size}".encode() + item.tobytes()
    if isinstance(item, Path) and item.is_file():
        return item.read_bytes()
    return pickle.dumps(item)


def _picture(values: np.ndarray) -> Image.Image:
    return Image.fromarray(np.asarray(values).astype(np.uint8))


def _sound(values: np.ndarray, rate: int) -> Audio:
    return Audio(values.astype(np.float32), rate)
