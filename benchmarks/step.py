"""The training step of `fusemix` against its matrix products alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from benchmarks.harness import Bar, Options, Row, interleaved, median, ratio, with_usual_memory
from fusemix_core.adapters.mlp import MlpAdapter
from fusemix_core.aligners.alignment import Alignment
from fusemix_core.allocator import keep_freed_memory
from fusemix_core.config import Training
from fusemix_core.engine.state import TrainState, train_step
from fusemix_core.interfaces import PairedLatents, ResidentLatents
from fusemix_core.mixups.fusemix import FuseMixMixup
from fusemix_core.objectives.infonce import InfoNCE

TITLE = "The training step"
ABOUT = """
One whole step of `fusemix`: batch gathered and mixed, adapters and loss forward and backward,
AdamW. The ratio is the time of the textbook's matrix products (three for each weight, three for the
loss), into memory that is there, to that of the whole step. The engine's own step leaves out one of
them a modality: the gradient of what the first layer sees, as nobody asks for that of latents.
*Plain torch* is the same step from torch's own modules: `nn.Dropout`, both similarity matrices, an
AdamW that is not fused, memory as torch leaves it.
"""

WIDTHS = ((1280, 384), (1536, 1024))
PAIRS = 2048
DIM = 512
BLOCKS, EXPANSION, DROPOUT = 4, 4, 0.6


def measure(options: Options) -> Iterator[Row]:
    keep_freed_memory()
    pairs = 256 if options.quick else PAIRS
    for widths in WIDTHS[: 1 if options.quick else 2]:
        forms = {
            "products": products(widths, pairs),
            "step": ours(widths, pairs),
            "plain torch": with_usual_memory(plain(widths, pairs)),
        }
        seconds = interleaved(forms, 2 if options.quick else 7)
        rate = flops(widths, pairs) / median(seconds["products"]) / 1e9
        for form, name, bar in (
            ("step", "step", Bar(0.92, at_least=True)),
            ("plain torch", "plain torch", None),
        ):
            yield Row(
                f"{name}, latents {widths[0]} and {widths[1]} wide",
                median(seconds[form]),
                "s",
                f"the rate of its products alone ({rate:.0f} GFLOP/s)",
                ratio(seconds, "products", form),
                bar,
            )


def shapes(widths: tuple[int, ...], pairs: int) -> list[tuple[int, int, int]]:
    """(n, d, m) of each product x Wᵀ of the forward, whose backward has two more of that size."""
    found = [
        (pairs, width, EXPANSION * width) for width in widths for _ in range(2 * BLOCKS)
    ]  # fc1 and fc2 have one size
    return [*found, *((pairs, width, DIM) for width in widths), (pairs, DIM, pairs)]


def flops(widths: tuple[int, ...], pairs: int) -> float:
    return sum(6.0 * n * d * m for n, d, m in shapes(widths, pairs))


def products(widths: tuple[int, ...], pairs: int) -> Callable[[], None]:
    """All products of a step, each weight's x Wᵀ, G W and Gᵀ x, on matrices of its own."""
    weights = [torch.randn(m, d) for _, d, m in shapes(widths, pairs)]
    sizes = set(shapes(widths, pairs))
    rows = {(n, d): torch.randn(n, d) for a, b, m in sizes for n, d in ((a, b), (a, m))}
    results = {s: torch.empty(s) for n, d, m in sizes for s in ((n, d), (n, m), (m, d))}

    def run() -> None:
        for w, (n, d, m) in zip(weights, shapes(widths, pairs), strict=True):
            x, g = rows[n, d], rows[n, m]
            torch.mm(x, w.T, out=results[n, m])
            torch.mm(g, w, out=results[n, d])
            torch.mm(g.T, x, out=results[m, d])

    return run


def latents(widths: tuple[int, ...], pairs: int) -> PairedLatents:
    rows = 4 * pairs
    tables = {f"m{k}": ResidentLatents(torch.randn(rows, w).half()) for k, w in enumerate(widths)}
    return PairedLatents(tables, torch.arange(rows)[:, None].repeat(1, len(widths)))


def ours(widths: tuple[int, ...], pairs: int) -> Callable[[], None]:
    torch.manual_seed(0)
    data = latents(widths, pairs)
    adapters = {
        m: MlpAdapter(w, DIM, blocks=BLOCKS, expansion=EXPANSION, dropout=DROPOUT).train()
        for m, w in data.dims.items()
    }
    state = TrainState.new(Alignment(adapters, InfoNCE()), Training(), seed=0)
    mixup, generator = FuseMixMixup(), torch.Generator().manual_seed(0)

    def run() -> None:
        rows = torch.randperm(len(data), generator=generator)[: 2 * pairs]
        train_step(state, data.batch(rows), mixup, lr=1e-4)

    return run


def plain(widths: tuple[int, ...], pairs: int) -> Callable[[], None]:
    """The same maths as one writes it first."""
    torch.manual_seed(0)
    data = latents(widths, pairs)
    adapters = nn.ModuleList(_PlainAdapter(w) for w in widths)
    temperature = nn.Parameter(torch.tensor(0.07))
    optimiser = torch.optim.AdamW([*adapters.parameters(), temperature], lr=1e-4)
    own = torch.arange(pairs)

    def run() -> None:
        rows = torch.randperm(len(data))[: 2 * pairs]
        mixed = [(0.3 * x[:pairs] + 0.7 * x[pairs:]) for x in data.batch(rows).latents.values()]
        a, b = (normalize(f(x), dim=1) for f, x in zip(adapters, mixed, strict=True))
        loss = cross_entropy(a @ b.T / temperature, own) + cross_entropy(b @ a.T / temperature, own)
        optimiser.zero_grad()
        (loss / 2).backward()
        optimiser.step()

    return run


class _PlainAdapter(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(width),
                nn.Linear(width, EXPANSION * width),
                nn.GELU(),
                nn.Dropout(DROPOUT),
                nn.Linear(EXPANSION * width, width),
            )
            for _ in range(BLOCKS)
        )
        self.out = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, DIM))

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = x + block(x)
        return self.out(x)
