"""`check_adapter`: whether an adapter keeps its contract."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from fusemix_core.adapters.kernel import KernelAdapter
from fusemix_core.adapters.linear import LinearAdapter
from fusemix_core.errors import ConfigError
from fusemix_core.interfaces import Adapter, Padded, as_tokens, input_of, takes_tokens
from fusemix_core.latents.fingerprint import plain
from fusemix_core.registry import Registry, registry
from fusemix_core.saved.components import tensors_of
from fusemix_core.testing.components import (
    ComponentCase,
    Subject,
    add_declaration_checks,
    expect_nothing_changed,
    find,
    seed,
)
from fusemix_core.testing.report import Report
from fusemix_core.testing.suite import Suite, expect

WIDE, NARROW, ROWS, TOKENS = 24, 16, 12, 5

ADAPTER = Suite("adapter", least=11)
add_declaration_checks(ADAPTER)


def check_adapter(
    subject: Subject,
    *,
    options: Mapping[str, Any] | None = None,
    expected_failures: Mapping[str, str] | None = None,
    registry: Registry = registry,
) -> Report:
    """Check an adapter: a registered name, a ComponentSpec or a class, built with `options`."""
    ADAPTER.expected(expected_failures)
    case = find("adapter", subject, options, registry)
    return ADAPTER.run(case.name, case, expected_failures)


def latents(rows: int = ROWS, width: int = WIDE) -> Tensor:
    """float32 `[rows, width]`, the same each time."""
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(rows + width))


def token_latents(rows: int = ROWS, width: int = WIDE) -> Padded:
    """Items of which number i has 1 + i % TOKENS tokens, zeros for padding."""
    x = latents(rows * TOKENS, width).unflatten(0, (rows, TOKENS))
    mask = torch.arange(TOKENS) < 1 + torch.arange(rows)[:, None] % TOKENS
    return Padded(x.masked_fill(~mask[..., None], 0), mask)


def given(case: ComponentCase, rows: int = ROWS, width: int = WIDE) -> Tensor | Padded:
    """What the adapter takes: rows, or tokens of items that differ in length."""
    make = token_latents if takes_tokens(case.target) else latents
    return make(rows, width)


def of_values(x: Tensor | Padded, change: Callable[[Tensor], Tensor]) -> Tensor | Padded:
    """Latents whose values are changed."""
    return Padded(change(x.values), x.mask) if isinstance(x, Padded) else change(x)


def built(case: ComponentCase, dim_in: int = WIDE, dim_out: int = NARROW, number: int = 0) -> Any:
    """A new adapter in eval mode, its weights drawn by the seed `number`."""
    with seed(number):
        return case.make(dim_in, dim_out).eval()


def embed(adapter: Adapter, x: Tensor | Padded) -> Tensor:
    with torch.no_grad():
        return adapter(x)


def expect_same(got: Tensor, wanted: Tensor, what: str) -> None:
    """Fail unless two tensors agree within the rounding of float32."""
    expect(got.shape == wanted.shape, f"{what}: {list(got.shape)} instead of {list(wanted.shape)}")
    expect(torch.allclose(got, wanted, rtol=1e-4, atol=1e-5), f"{what}: other values")


@ADAPTER.check()
def shape(case: ComponentCase) -> None:
    """Latents of width `dim_in` become embeddings `[n, dim_out]`, narrower or wider."""
    for dim_in, dim_out in ((WIDE, NARROW), (NARROW, WIDE), (NARROW, NARROW)):
        got = list(embed(built(case, dim_in, dim_out), given(case, ROWS, dim_in)).shape)
        expect(got == [ROWS, dim_out], f"({dim_in}, {dim_out}) gave {got} for {ROWS} rows")


@ADAPTER.check()
def finite(case: ComponentCase) -> None:
    """No embedding contains NaN or infinity, of zeros and large latents either."""
    adapter = built(case)
    for what, scale in (("latents", 1.0), ("zeros", 0.0), ("large latents", 1e3)):
        x = of_values(given(case), lambda values, scale=scale: values * scale)
        expect(embed(adapter, x).isfinite().all(), f"NaN or infinity for {what}")


@ADAPTER.check()
def dtype(case: ComponentCase) -> None:
    """Embeddings are float32, and float64 after `.double()`."""
    adapter = built(case)
    got = embed(adapter, given(case)).dtype
    expect(got == torch.float32, f"float32 latents gave {got}")
    got = embed(adapter.double(), given(case).to(torch.float64)).dtype
    expect(got == torch.float64, f"float64 latents gave {got}")


@ADAPTER.check()
def empty_batch(case: ComponentCase) -> None:
    """No rows give no embeddings, as wide as always."""
    got = list(embed(built(case), given(case)[:0]).shape)
    expect(got == [0, NARROW], f"no rows gave {got}")


@ADAPTER.check()
def batch_independence(case: ComponentCase) -> None:
    """In eval mode a row's embedding does not depend on the other rows."""
    adapter, x = built(case), given(case)
    single = torch.cat([embed(adapter, x[i : i + 1]) for i in range(len(x))])
    expect_same(single, embed(adapter, x), "one by one")


@ADAPTER.check()
def eval_determinism(case: ComponentCase) -> None:
    """In eval mode the same latents give the same embeddings, and nothing is drawn or changed."""
    adapter, x, kept = built(case), given(case), given(case)
    first = embed(adapter, x)
    expect(torch.equal(embed(adapter, x), first), "the second call gave other values")
    expect(torch.equal(as_tokens(x).values, as_tokens(kept).values), "it changed its input")
    expect_nothing_changed(lambda: embed(adapter, x))


@ADAPTER.check()
def seeded_construction(case: ComponentCase) -> None:
    """Initial weights depend only on torch's global generator."""
    first, second = (built(case, number=3) for _ in range(2))
    x = given(case)
    expect_same(embed(first, x), embed(second, x), "built twice with one seed")


@ADAPTER.check()
def learns(case: ComponentCase) -> None:
    """Gradients reach every parameter: all change within three steps, and the loss falls."""
    adapter, x = built(case).train(), given(case, 64)
    goal = torch.randn(64, NARROW, generator=torch.Generator().manual_seed(9))
    before = {n: p.detach().clone() for n, p in adapter.named_parameters() if p.requires_grad}
    expect(before, "it has no parameters to learn")
    optimiser = torch.optim.Adam(adapter.parameters(), lr=1e-2)
    losses = []
    with seed(1):
        for _ in range(3):
            optimiser.zero_grad()
            loss = (adapter(x) - goal).square().mean()
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
    for name, parameter in adapter.named_parameters():
        if name in before:
            expect(not torch.equal(parameter, before[name]), f"{name} does not learn")
    expect(losses[-1] < losses[0], f"the loss went from {losses[0]:.3g} to {losses[-1]:.3g}")


@ADAPTER.check()
def gradient_reaches_latents(case: ComponentCase) -> None:
    """Embeddings have a gradient with respect to the latents."""
    x = of_values(given(case), lambda values: values.requires_grad_())
    built(case)(x).square().sum().backward()
    grad = (x.values if isinstance(x, Padded) else x).grad
    expect(grad is not None and grad.isfinite().all() and grad.any(), "none, or not finite")


@ADAPTER.check()
def rebuilt(case: ComponentCase) -> None:
    """`options` and the saved tensors give the same adapter again."""
    expect_rebuilt(built(case, number=5), WIDE, NARROW)


def expect_rebuilt(adapter: Adapter, dim_in: int, dim_out: int) -> None:
    """Fail unless the adapter survives being saved: plain options, and tensors by safetensors."""
    plain(adapter.options)
    with seed(6):
        again = type(adapter)(dim_in, dim_out, **adapter.options)
    again.load_state_dict(load(save(tensors_of(adapter))), strict=True)
    x = input_of(adapter, latents(ROWS, dim_in))
    expect_same(embed(again.eval(), x), embed(adapter.eval(), x), "saved and rebuilt")


@ADAPTER.check()
def start_from(case: ComponentCase) -> None:
    """After `start_from` it gives the map's embeddings and can be saved, or it has refused."""
    taken = 0
    for map_ in closed_forms(case):
        adapter = built(case, number=7)
        try:
            adapter.start_from(map_)
        except (ConfigError, NotImplementedError):
            continue
        taken += 1
        what = f"started from a {type(map_).__name__}"
        got, wanted = (embed(a.eval(), input_of(a, latents())) for a in (adapter, map_))
        expect_same(got, wanted, what)
        expect_rebuilt(adapter, WIDE, NARROW)
    claims = getattr(type(built(case)), "start_from", None) is not Adapter.start_from
    expect(taken or not claims, "start_from is implemented, but refuses every map")


@ADAPTER.check(when=lambda case: takes_tokens(case.target))
def any_number_of_tokens(case: ComponentCase) -> None:
    """Items of any number of tokens, of none too, become embeddings; a token of zeros is one."""
    adapter, x = built(case), token_latents()
    for count in (1, 3, TOKENS):
        got = list(embed(adapter, Padded(x.values[:, :count], x.mask[:, :count])).shape)
        expect(got == [ROWS, NARROW], f"{count} tokens an item gave {got} for {ROWS} items")
    missing = embed(adapter, Padded(x.values, torch.zeros_like(x.mask)))
    expect(missing.isfinite().all(), "NaN or infinity for items without tokens")
    full = x.values[TOKENS - 1]
    fewer, whole = (embed(adapter, as_tokens(part[None])) for part in (full[:-1], full))
    expect((whole - fewer).any(), "the last token of an item has no part")
    zeros = torch.cat([full[:-1], torch.zeros_like(full[-1:])])
    expect((embed(adapter, as_tokens(zeros[None])) - fewer).any(), "a token of zeros has no part")


@ADAPTER.check(when=lambda case: takes_tokens(case.target))
def padding(case: ComponentCase) -> None:
    """How much padding there is, and its values, NaN too, have no part in the embeddings."""
    adapter, x = built(case), token_latents()
    wanted = embed(adapter, x)
    for value in (1e3, torch.nan):
        full = Padded(x.filled(value), x.mask)
        expect_same(embed(adapter, full), wanted, f"padding of {value}")
    expect_same(embed(adapter, x.padded_to(TOKENS + 2)), wanted, "more padding")
    own = [as_tokens(row[mask][None]) for row, mask in zip(x.values, x.mask, strict=True)]
    alone = torch.cat([embed(adapter, item) for item in own])
    expect_same(alone, wanted, "items without their padding")


@ADAPTER.check(when=lambda case: takes_tokens(case.target))
def embedded_tokens(case: ComponentCase) -> None:
    """`tokens` gives values `[n, T', dim_out]` that learn; pooled they are the embeddings."""
    adapter, x = built(case), token_latents()
    with torch.no_grad():
        found, longer = adapter.tokens(x), adapter.tokens(x.padded_to(TOKENS + 2))
        spoilt = adapter.tokens(Padded(x.filled(torch.nan), x.mask))
        pooled = adapter.pool(found, x)
    expect_same(pooled, embed(adapter, x), "tokens, pooled")
    shape = list(found.values.shape)
    expect(shape[::2] == [ROWS, NARROW] and len(shape) == 3, f"tokens of the shape {shape}")
    expect(list(found.mask.shape) == shape[:2], f"a mask of the shape {list(found.mask.shape)}")
    expect(found.values[found.mask].isfinite().all(), "tokens that are not finite")
    expect(longer.values.shape[1] == shape[1] + 2, "T' does not follow T")
    expect(not longer.mask[:, shape[1] :].any(), "padding became tokens")
    expect_same(spoilt.filled(), found.filled(), "tokens beside padding of NaN")
    adapter.tokens(x).filled().square().sum().backward()
    expect(any(p.grad is not None and p.grad.any() for p in adapter.parameters()), "no gradient")


def closed_forms(case: ComponentCase) -> list[Adapter]:
    """Maps to start from: an affine one, one of a kernel, one of the adapter's class."""
    with seed(8):
        linear, kernel = LinearAdapter(WIDE, NARROW), KernelAdapter(WIDE, NARROW, landmarks=8)
    kernel.prepare(latents(64))
    return [linear.eval(), kernel.eval(), built(case, number=8)]
