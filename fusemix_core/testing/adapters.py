"""`check_adapter`: whether an adapter keeps its contract."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from fusemix_core.adapters.kernel import KernelAdapter
from fusemix_core.adapters.linear import LinearAdapter
from fusemix_core.errors import ConfigError
from fusemix_core.interfaces import Adapter
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

ADAPTER = Suite("adapter", least=10)
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


def built(case: ComponentCase, dim_in: int = WIDE, dim_out: int = NARROW, number: int = 0) -> Any:
    """A new adapter in eval mode, its weights drawn by the seed `number`."""
    with seed(number):
        return case.make(dim_in, dim_out).eval()


def embed(adapter: Adapter, x: Tensor) -> Tensor:
    with torch.no_grad():
        return adapter(x)


def expect_same(got: Tensor, wanted: Tensor, what: str) -> None:
    """Fail unless two tensors agree within the rounding of float32."""
    expect(got.shape == wanted.shape, f"{what}: {list(got.shape)} instead of {list(wanted.shape)}")
    expect(torch.allclose(got, wanted, rtol=1e-4, atol=1e-5), f"{what}: other values")


@ADAPTER.check()
def shape(case: ComponentCase) -> None:
    """Latents `[n, dim_in]` become embeddings `[n, dim_out]`, narrower or wider."""
    for dim_in, dim_out in ((WIDE, NARROW), (NARROW, WIDE), (NARROW, NARROW)):
        got = list(embed(built(case, dim_in, dim_out), latents(ROWS, dim_in)).shape)
        expect(got == [ROWS, dim_out], f"({dim_in}, {dim_out}) gave {got} for {ROWS} rows")


@ADAPTER.check()
def finite(case: ComponentCase) -> None:
    """No embedding holds NaN or infinity, of zeros and large latents either."""
    adapter = built(case)
    for what, x in (("latents", latents()), ("zeros", latents() * 0), ("large", latents() * 1e3)):
        expect(embed(adapter, x).isfinite().all(), f"NaN or infinity for {what}")


@ADAPTER.check()
def dtype(case: ComponentCase) -> None:
    """Embeddings are float32, and float64 after `.double()`."""
    adapter = built(case)
    got = embed(adapter, latents()).dtype
    expect(got == torch.float32, f"float32 latents gave {got}")
    got = embed(adapter.double(), latents().double()).dtype
    expect(got == torch.float64, f"float64 latents gave {got}")


@ADAPTER.check()
def empty_batch(case: ComponentCase) -> None:
    """No rows give no embeddings, as wide as always."""
    got = list(embed(built(case), latents(0)).shape)
    expect(got == [0, NARROW], f"no rows gave {got}")


@ADAPTER.check()
def batch_independence(case: ComponentCase) -> None:
    """In eval mode a row's embedding does not depend on the other rows."""
    adapter, x = built(case), latents()
    single = torch.cat([embed(adapter, row[None]) for row in x])
    expect_same(single, embed(adapter, x), "one by one")


@ADAPTER.check()
def eval_determinism(case: ComponentCase) -> None:
    """In eval mode the same latents give the same embeddings, and nothing is drawn or changed."""
    adapter, x = built(case), latents()
    given = x.clone()
    first = embed(adapter, x)
    expect(torch.equal(embed(adapter, x), first), "the second call gave other values")
    expect(torch.equal(x, given), "it changed its input")
    expect_nothing_changed(lambda: embed(adapter, x))


@ADAPTER.check()
def seeded_construction(case: ComponentCase) -> None:
    """Initial weights depend on torch's global generator alone."""
    first, second = (built(case, number=3) for _ in range(2))
    expect_same(embed(first, latents()), embed(second, latents()), "built twice with one seed")


@ADAPTER.check()
def learns(case: ComponentCase) -> None:
    """Gradients reach every parameter: all change within three steps, and the loss falls."""
    adapter, x = built(case).train(), latents(64)
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
    x = latents().requires_grad_()
    built(case)(x).square().sum().backward()
    expect(x.grad is not None and x.grad.isfinite().all() and x.grad.any(), "none, or not finite")


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
    x = latents(ROWS, dim_in)
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
        expect_same(embed(adapter.eval(), latents()), embed(map_, latents()), what)
        expect_rebuilt(adapter, WIDE, NARROW)
    claims = getattr(type(built(case)), "start_from", None) is not Adapter.start_from
    expect(taken or not claims, "start_from is implemented, but refuses every map")


@ADAPTER.check(when=lambda case: getattr(case.target, "takes_tokens", False))
def any_number_of_tokens(case: ComponentCase) -> None:
    """Latents `[n, T * dim_in]` of any T become embeddings, and all-zero tokens have no part."""
    adapter, x = built(case), ragged()
    for count in (1, 3, TOKENS):
        got = list(embed(adapter, x[:, :count].flatten(1)).shape)
        expect(got == [ROWS, NARROW], f"{count} tokens an item gave {got} for {ROWS} items")
    wanted = embed(adapter, x.flatten(1))
    expect_same(embed(adapter, padded(x)), wanted, "more padding")
    alone = [embed(adapter, row[: 1 + i % TOKENS].flatten()[None]) for i, row in enumerate(x)]
    expect_same(torch.cat(alone), wanted, "items without their padding")
    full = x[TOKENS - 1]
    one_fewer = embed(adapter, full[:-1].flatten()[None])
    changed = embed(adapter, full.flatten()[None]) - one_fewer
    expect(changed.any(), "the last token of an item has no part")


@ADAPTER.check(when=lambda case: gives_tokens(case.target))
def projected_tokens(case: ComponentCase) -> None:
    """`with_tokens` gives the same embeddings, and tokens `[n, T, dim_out]` that learn."""
    adapter, x = built(case), ragged()
    with torch.no_grad():
        embeddings, tokens = adapter.with_tokens(x.flatten(1))
        _, longer = adapter.with_tokens(padded(x))
    expect_same(embeddings, embed(adapter, x.flatten(1)), "with tokens")
    good = tokens.ndim == 3 and tokens.shape[::2] == (ROWS, NARROW) and tokens.isfinite().all()
    expect(good, f"tokens of the shape {list(tokens.shape)}, or not finite")
    expect(longer.shape[1] == tokens.shape[1] + 2, "T does not follow the width of the latents")
    expect(not longer[:, tokens.shape[1] :].any(), "padding became tokens")
    adapter.with_tokens(x.flatten(1))[1].square().sum().backward()
    expect(any(p.grad is not None and p.grad.any() for p in adapter.parameters()), "no gradient")


def gives_tokens(target: Any) -> bool:
    return getattr(target, "with_tokens", Adapter.with_tokens) is not Adapter.with_tokens


def ragged() -> Tensor:
    """`[ROWS, TOKENS, WIDE]`: item i has 1 + i % TOKENS tokens, then zeros."""
    x = latents(ROWS * TOKENS).unflatten(0, (ROWS, TOKENS))
    lengths = 1 + torch.arange(ROWS) % TOKENS
    return x * (torch.arange(TOKENS) < lengths[:, None])[:, :, None]


def padded(x: Tensor) -> Tensor:
    """The rows of tokens with two more of padding."""
    return torch.nn.functional.pad(x, (0, 0, 0, 2)).flatten(1)


def closed_forms(case: ComponentCase) -> list[Adapter]:
    """Maps to start from: an affine one, one of a kernel, one of the adapter's class."""
    with seed(8):
        linear, kernel = LinearAdapter(WIDE, NARROW), KernelAdapter(WIDE, NARROW, landmarks=8)
    kernel.prepare(latents(64))
    return [linear.eval(), kernel.eval(), built(case, number=8)]
