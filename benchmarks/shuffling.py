"""Recall after training on an order shuffled by blocks, against a full shuffle."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from fusemix_core.aligners.recalls import recalls
from fusemix_core.config import Part, Recipe, Training
from fusemix_core.engine import feed
from fusemix_core.interfaces import FitContext, PairedLatents, ResidentLatents
from fusemix_core.registry import registry

Splits = tuple[PairedLatents, PairedLatents]
"""Training and validation pairs."""


class NotResident:
    """A table that the engine takes for one on disk."""

    def __init__(self, table: ResidentLatents) -> None:
        self.table, self.dim = table, table.dim

    def __len__(self) -> int:
        return len(self.table)

    def rows(self, index: Tensor) -> Tensor:
        return self.table.rows(index)


def synthetic(pairs: int, section: int = 40, seed: int = 0) -> Splits:
    """Pairs whose neighbours resemble each other, as figures of one section of a book do.

    Sixty-four causes with variances that fall as 1/k; half of each cause's variance is shared by
    the `section` neighbours. Sections are split whole: a tenth is for validation.
    """
    random = torch.Generator().manual_seed(seed)
    count = -(-pairs // section)
    spectrum = torch.arange(1, 65).float().rsqrt()
    shared = torch.randn(count, 64, generator=random).repeat_interleave(section, 0)[:pairs]
    causes = (shared + torch.randn(pairs, 64, generator=random)) * spectrum / 2**0.5
    tables = {}
    for modality, width in (("image", 384), ("text", 256)):
        seen = causes @ torch.randn(64, width, generator=random) / 8
        noise = 0.35 * torch.randn(pairs, width, generator=random)
        tables[modality] = ResidentLatents(seen + noise)
    links = torch.arange(pairs)[:, None].repeat(1, 2)
    held = torch.rand(count, generator=random).repeat_interleave(section)[:pairs] < 0.1
    return PairedLatents(tables, links[~held]), PairedLatents(tables, links[held])


def figures(manifest: Path) -> Splits:
    """The latents of the figures and their texts, split by module, from the latent store."""
    from fusemix_core.devices import resolve_device
    from fusemix_core.runs.config import build_config
    from fusemix_core.runs.encode import Encoding, encode_dataset
    from fusemix_core.runs.plan import make_plan
    from fusemix_core.runs.reporter import Reporter

    data = {"source": [str(manifest)], "columns": {"text": "alt"}, "group_by": "module"}
    encoders = {"image": "efficientnet-lite0", "text": "minilm"}
    plan = make_plan(*build_config({"encoders": encoders, "data": data, "recipe": "auto"}, []))
    how = Encoding(resolve_device("cpu"))
    encoded = encode_dataset(plan.dataset, plan.specs, how, Reporter(), max_bad=0.01, ragged=())
    return encoded.paired("train"), encoded.paired("validation")


def recall(splits: Splits, seed: int, block: int | None, steps: int, epochs: int) -> float:
    """R@1, mean of both directions, of linear adapters trained from scratch with FuseMix.

    In blocks of so many rows and windows of so many steps, or with None in a full shuffle.
    """
    train, validation = splits
    if block is not None:
        tables = {m: NotResident(t) for m, t in train.tables.items()}
        train = PairedLatents(tables, train.links)
    recipe = Recipe(
        name="linear",
        aligner=Part("gradient"),
        dim=256,
        adapter=Part("linear"),
        mixup=Part("fusemix"),
        objective=Part("infonce", {"temperature": 0.05, "learnable": False, "mask_shared": True}),
        training=Training(
            epochs=epochs, batch_size=256, lr=1e-3, schedule="cosine", warmup_steps=10
        ),
    )
    with _sizes(sum(train.dims.values()), block or 1, steps):
        context = FitContext(seed=seed)
        adapters = registry.build("aligner", recipe.aligner).fit(train, validation, recipe, context)
    found = recalls(adapters, validation)
    return sum(shares[0] for shares in found.values()) / len(found)


@contextlib.contextmanager
def _sizes(width: int, block: int, steps: int) -> Iterator[None]:
    """Blocks and windows of these sizes: those of the engine would hold a small set whole."""
    kept = feed.BLOCK_BYTES, feed.WINDOW_BYTES, feed.WINDOW_STEPS
    feed.BLOCK_BYTES, feed.WINDOW_BYTES, feed.WINDOW_STEPS = 2 * width * block, 0, steps
    try:
        yield
    finally:
        feed.BLOCK_BYTES, feed.WINDOW_BYTES, feed.WINDOW_STEPS = kept


def compare(
    splits: Splits, seeds: Sequence[int], block: int, steps: int, epochs: int
) -> tuple[list[float], list[float]]:
    """R@1 by seed: in a full shuffle, and by blocks."""
    full = [recall(splits, seed, None, steps, epochs) for seed in seeds]
    return full, [recall(splits, seed, block, steps, epochs) for seed in seeds]
