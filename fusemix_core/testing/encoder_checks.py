"""What an encoder must hold: its latents. Names here are the names of the checks."""

from __future__ import annotations

import statistics
import threading
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from fusemix_core.data.media import medium
from fusemix_core.errors import ConfigError
from fusemix_core.interfaces import Padded
from fusemix_core.latents.preparing import UNREADABLE
from fusemix_core.specs import kind_of
from fusemix_core.testing.encoder_case import ENCODER, EncoderCase, rows_of
from fusemix_core.testing.items import fingerprints, wrong_items
from fusemix_core.testing.suite import expect
from fusemix_core.testing.worker import collate_in_worker

RANKS = {"pooled": 1, "layers": 2, "tokens": 2, "grid": 3, "time": 2}
"""Dimensions of one item's latents, by the kind of view."""


# -- shape -----------------------------------------------------------------------------------------


@ENCODER.check()
def declared_spec(case: EncoderCase) -> None:
    """The encoder carries its spec, whose views have known kinds and different names."""
    spec: Any = getattr(case.encoder, "spec", None)
    expect(spec is not None, "the encoder has no attribute `spec`")
    expect(spec.modality == case.spec.modality, f"its spec says {spec.modality}")
    expect(spec.views, "the spec declares no view")
    expect(len(set(spec.views)) == len(spec.views), f"a view is declared twice: {spec.views}")
    for view in spec.views:
        expect(kind_of(view) in RANKS, f"view '{view}': its kind is none of {', '.join(RANKS)}")
    if medium(spec.takes).sampled:
        expect(spec.sample_rate, "an encoder that takes signals declares a sample_rate")


@ENCODER.check()
def declared_dim(case: EncoderCase) -> None:
    """The first view is as wide as the spec's dim."""
    view = case.spec.views[0]
    wanted = case.spec.dim
    for row in case.latents[view]:
        width = row.shape[-1]
        expect(wanted is None or width == wanted, f"{view} is {width} wide; the spec says {wanted}")


@ENCODER.check()
def declared_views(case: EncoderCase) -> None:
    """Each view has one row per item, of the shape that its kind has."""
    for view in case.spec.views:
        raw = case.raw(case.items, view)
        values = raw.values if isinstance(raw, Padded) else raw
        wanted = 1 + RANKS[kind_of(view)]
        shape = list(values.shape)
        expect(values.ndim == wanted, f"{view} is {shape}, not of {wanted} dimensions")
        expect(len(values) == len(case.items), f"{view} is {shape} for {len(case.items)} items")
        if isinstance(raw, Padded):
            padding(view, raw)


def padding(view: str, padded: Padded) -> None:
    """Fail unless the mask fits, items' own latents come first, and the rest is zeros."""
    expect(kind_of(view) in ("tokens", "time"), f"{view} is Padded; only tokens and time may be")
    values, mask = padded.values, padded.mask
    expect(mask.dtype == torch.bool, f"{view}: the mask is {mask.dtype}, not bool")
    expect(
        mask.shape == values.shape[:2],
        f"{view}: the mask is {list(mask.shape)} for values {list(values.shape)}",
    )
    first = mask.int().diff(dim=1).le(0).all()
    expect(first, f"{view}: an item's own latents must come before its padding")
    expect(mask.any(dim=1).all(), f"{view}: an item has no latent at all")
    expect(not values[~mask].any(), f"{view}: padded positions must hold zeros")


@ENCODER.check()
def float32(case: EncoderCase) -> None:
    """Latents are float32 whatever the encoder computes in."""
    for view in case.spec.views:
        raw = case.raw(case.items[:2], view)
        values = raw.values if isinstance(raw, Padded) else raw
        expect(values.dtype == torch.float32, f"{view} is {values.dtype}")


@ENCODER.check()
def finite(case: EncoderCase) -> None:
    """No latent contains NaN or infinity."""
    for view, rows in case.latents.items():
        for i, row in enumerate(rows):
            expect(row.isfinite().all(), f"{view} of item {i} holds NaN or infinity")


@ENCODER.check()
def different_items(case: EncoderCase) -> None:
    """Different items have different latents."""
    for view, rows in case.latents.items():
        for i, row in enumerate(rows):
            for j in range(i):
                expect(not torch.equal(row, rows[j]), f"{view}: items {j} and {i} have the same")


@ENCODER.check()
def declared_norm(case: EncoderCase) -> None:
    """Rows of the first view have unit norm if the spec says `normalised`."""
    view = case.spec.views[0]
    for i, row in enumerate(case.latents[view] if case.spec.normalised else []):
        norm = row.norm().item()
        expect(abs(norm - 1) < 1e-3, f"normalised is declared, but row {i} has the norm {norm:.4g}")


# -- independence ----------------------------------------------------------------------------------


@ENCODER.check()
def order(case: EncoderCase) -> None:
    """Row i is item i, in whatever order the items come."""
    for view, wanted in case.latents.items():
        case.expect_near(case.rows(case.items[::-1], view), wanted[::-1], f"{view}, reversed")


@ENCODER.check()
def batch_size(case: EncoderCase) -> None:
    """An item's latents do not depend on what else is in its batch."""
    size = max(2, len(case.items) // 3)
    for view, wanted in case.latents.items():
        parts = [case.items[at : at + size] for at in range(0, len(case.items), size)]
        got = [row for part in parts for row in case.rows(part, view)]
        case.expect_near(got, wanted, f"{view}, batches of {size}")


@ENCODER.check()
def single_item(case: EncoderCase) -> None:
    """A batch of one item gives that item's latents."""
    for view, wanted in case.latents.items():
        got = [row for item in case.items for row in case.rows([item], view)]
        case.expect_near(got, wanted, f"{view}, one by one")


@ENCODER.check()
def empty_batch(case: EncoderCase) -> None:
    """No items give no rows, as wide as always."""
    for view in case.spec.views:
        raw = case.raw([], view)
        values = raw.values if isinstance(raw, Padded) else raw
        width = case.latents[view][0].shape[-1]
        shape = list(values.shape)
        expect(len(values) == 0 and shape[-1] == width, f"{view} of no items is {shape}")
        expect(values.ndim == 1 + RANKS[kind_of(view)], f"{view} of no items is {shape}")


@ENCODER.check()
def deterministic(case: EncoderCase) -> None:
    """The same items give the same latents: on a CPU bit for bit."""
    exact = all(t.device.type == "cpu" for t in case.tensors().values())
    for view, wanted in case.latents.items():
        again = case.rows(case.items, view)
        same = all(torch.equal(a, w) for a, w in zip(again, wanted, strict=True))
        expect(same or not exact, f"{view}: the same batch gave other latents")
        case.expect_near(again, wanted, f"{view}, encoded again")


@ENCODER.check()
def input_unmodified(case: EncoderCase) -> None:
    """Neither the items nor the collated batch are changed."""
    before, given = fingerprints(case.items), list(case.items)
    batch = case.encoder.collate(given)
    expect(
        len(given) == len(case.items) and fingerprints(given) == before, "collate changed its items"
    )
    view = case.spec.views[0]
    first = rows_of(case.encoder.encode(batch, view))
    second = rows_of(case.encoder.encode(batch, view))
    case.expect_near(second, first, "the same batch encoded twice")


# -- how it computes -------------------------------------------------------------------------------


@ENCODER.check()
def no_grad(case: EncoderCase) -> None:
    """Latents carry no gradient, and no weight asks for one."""
    for view in case.spec.views:
        with torch.enable_grad():
            raw = case.raw(case.items[:1], view)
        values = raw.values if isinstance(raw, Padded) else raw
        expect(not values.requires_grad, f"{view} requires a gradient")
    for name, tensor in case.tensors().items():
        expect(not tensor.requires_grad, f"{name} requires a gradient: freeze the model")


@ENCODER.check()
def eval_mode(case: EncoderCase) -> None:
    """Every module is in eval mode, before and after encoding."""
    case.raw(case.items[:1])
    for held in case.modules():
        for name, module in held.named_modules():
            kind = type(module).__name__
            expect(not module.training, f"the {kind} '{name}' is in training mode")


@ENCODER.check()
def device(case: EncoderCase) -> None:
    """Weights are on the device asked for; `collate` gives batches on the CPU."""
    places = {t.device for t in case.tensors().values()}
    if case.device is not None:
        wrong = [str(p) for p in places if p.type != case.device.type]
        expect(not wrong, f"weights are on {', '.join(wrong)}; asked for: {case.device}")
    expect(len(places) <= 1, f"weights are on {', '.join(sorted(map(str, places)))}")
    for tensor in tensors_in(case.encoder.collate(case.items[:2])):
        expect(tensor.device.type == "cpu", f"collate gave a tensor on {tensor.device}")


@ENCODER.check(when=lambda case: case.load is not None)
def half_precision(case: EncoderCase) -> None:
    """Asked for bfloat16 or float16 it computes in that, or refuses with ConfigError."""
    assert case.load is not None
    view = case.spec.views[0]
    for dtype in (torch.bfloat16, torch.float16):
        try:
            encoder = case.load(dtype)
        except ConfigError:
            continue
        half = EncoderCase(case.spec, encoder, case.items, {})
        kinds = {t.dtype for t in half.tensors().values() if t.is_floating_point()}
        expect(not kinds or dtype in kinds, f"asked for {dtype}, its weights are {kinds}")
        rows = zip(half.rows(case.items), case.latents[view], strict=True)
        # The median: of a near-silent clip, say, a normalisation makes rounding as large as it.
        apart = statistics.median(
            (got - wanted).norm().item() / max(wanted.norm().item(), 1e-12) for got, wanted in rows
        )
        expect(apart < 0.3, f"in {dtype} items are {apart:.0%} away from themselves in float32")


# -- what it takes ---------------------------------------------------------------------------------


@ENCODER.check()
def wrong_type(case: EncoderCase) -> None:
    """`collate` raises TypeError for things that are not items."""
    for wrong in wrong_items(case.spec):
        for batch in ([wrong], [case.items[0], wrong]):
            try:
                case.encoder.collate(batch)
            except TypeError:
                continue
            expect(False, f"collate took a {type(wrong).__name__}")


@ENCODER.check(when=lambda case: bool(case.edges))
def edge_items(case: EncoderCase) -> None:
    """Edge inputs are encoded without touching their neighbours, or refused by ValueError."""
    view = case.spec.views[0]
    wanted = case.latents[view]
    for what, item in case.edges.items():
        try:
            case.encoder.collate([item])
        except UNREADABLE:
            continue
        got = case.rows([case.items[0], item, case.items[1]])
        expect(got[1].isfinite().all(), f"{what}: NaN or infinity")
        case.expect_near([got[0], got[2]], wanted[:2], f"beside {what}")


@ENCODER.check()
def unknown_view(case: EncoderCase) -> None:
    """A view that the spec does not declare is a ConfigError."""
    batch = case.encoder.collate(case.items[:1])
    for view in ("no-such-view", *(kind for kind in RANKS if kind not in case.spec.views)):
        try:
            case.encoder.encode(batch, view)
        except ConfigError:
            continue
        expect(False, f"encode took the view '{view}'")


@ENCODER.check()
def truncated(case: EncoderCase) -> None:
    """`truncated` and `collated` count the items that will be cut."""
    expect(case.encoder.truncated([]) == 0, "truncated([]) is not 0")
    count = case.encoder.truncated(case.items)
    expect(
        isinstance(count, int) and 0 <= count <= len(case.items),
        f"truncated gave {count!r} for {len(case.items)} items",
    )
    limit = case.spec.max_tokens
    if case.spec.modality == "text" and limit:
        texts = ["a", "long " * 2 * limit]
        for name, cut in (
            ("truncated", case.encoder.truncated(texts)),
            ("collated", case.encoder.collated(texts)[1]),
        ):
            expect(cut == 1, f"of a letter and {2 * limit} words {name} says it cuts {cut}")


@ENCODER.check(when=lambda case: any(map(case.encoder.network, case.spec.views)))
def network(case: EncoderCase) -> None:
    """`encode` reaches the network that it offers, by `compute`, and gives the same with it."""
    batch = case.encoder.collate(case.items)
    for view, wanted in case.latents.items():
        offered = case.encoder.network(view)
        if offered is None:
            continue
        asked: set[str] = set()

        def runtime(
            of: str, inputs: dict[str, Tensor], module=offered.module, asked=asked
        ) -> Tensor:
            asked.add(of)
            return module(**inputs)

        case.encoder.runtime = runtime
        try:
            got = rows_of(case.encoder.encode(batch, view))
        finally:
            case.encoder.runtime = None
        expect(asked == {view}, f"encode of '{view}' asked compute for {asked or 'nothing'}")
        case.expect_near(got, wanted, f"{view}, by its network")


# -- where collate runs ----------------------------------------------------------------------------


@ENCODER.check()
def worker(case: EncoderCase) -> None:
    """`collate` gives the same in a spawned process, without the weights."""
    batch = collate_in_worker(case.encoder, case.items)
    for view, wanted in case.latents.items():
        case.expect_near(rows_of(case.encoder.encode(batch, view)), wanted, f"{view}, in a worker")


@ENCODER.check()
def threads(case: EncoderCase) -> None:
    """`collate` gives the same in threads: one for texts, several for other items."""
    found: dict[int, Any] = {}

    def collate(number: int) -> None:
        try:
            found[number] = case.encoder.collate(case.items)
        except Exception as error:
            found[number] = error

    count = 1 if medium(case.spec.takes).inline else 3
    running = [threading.Thread(target=collate, args=(n,)) for n in range(count)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    view = case.spec.views[0]
    for batch in found.values():
        if isinstance(batch, Exception):
            raise batch
        got = rows_of(case.encoder.encode(batch, view))
        case.expect_near(got, case.latents[view], "collated in a thread")


def tensors_in(batch: Any) -> Iterator[Tensor]:
    """All tensors in a batch: itself, in its lists and tables, and in its attributes."""
    if isinstance(batch, Tensor):
        yield batch
    elif isinstance(batch, dict):
        for value in batch.values():
            yield from tensors_in(value)
    elif isinstance(batch, list | tuple):
        for value in batch:
            yield from tensors_in(value)
    elif hasattr(batch, "__dict__"):
        for value in vars(batch).values():
            yield from tensors_in(value)
