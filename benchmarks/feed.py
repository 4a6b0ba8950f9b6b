"""What the feed costs a step, from memory and from disk, and what block shuffling costs."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from unittest.mock import patch

import torch

from benchmarks.generated import WIDTHS, generate, open_pairs
from benchmarks.harness import Bar, Options, Row
from benchmarks.shuffling import compare, figures, synthetic
from fusemix_core.aligners.alignment import Alignment
from fusemix_core.config import Part, Training
from fusemix_core.engine import feed as feed_module
from fusemix_core.engine.feed import ahead, feed
from fusemix_core.engine.plan import Plan, plan_steps
from fusemix_core.engine.state import TrainState, train_step
from fusemix_core.interfaces import Batch, PairedLatents
from fusemix_core.registry import registry

TITLE = "The feed"
ABOUT = """
Rates of whole training steps (latents of widths 1536 and 1024 as float16, FuseMix, InfoNCE), each
fed in its own way, in units of the rate of the same step on one batch that never changes. `linear`
adapters are the worst case for a feed, `mlp` are those of `fusemix`. The cold run reads a
store that is larger than the memory allowed, after the system's cache of it was dropped, in a
process of its own whose peak memory is measured. Recall is that of linear adapters trained from
scratch; windows are four steps, the least the engine takes.
"""

CPU = torch.device("cpu")
ADAPTERS = {"linear": Part("linear"), "mlp": Part("mlp", {"blocks": 4, "dropout": 0.6})}
EPOCHS = 1_000_000
"""More than are run: a feed that goes on."""


def measure(options: Options) -> Iterator[Row]:
    pairs, batch = (8_000, 64) if options.quick else (400_000, 2048)
    generate(options.scratch / "warm", pairs)
    stored = open_pairs(options.scratch / "warm", pairs)
    held = PairedLatents({m: t.load() for m, t in stored.tables.items()}, stored.links)
    plan = plan_steps(pairs, 2, Training(epochs=EPOCHS, batch_size=batch))
    yield from rates("linear", held, stored, plan, stretch=12, repeats=3 if options.quick else 7)
    if not options.quick:
        yield from rates("mlp", held, stored, plan, stretch=4, repeats=3)
    del held
    yield from cold(options)
    yield from recalls(options)


def rates(
    name: str, held: PairedLatents, stored: PairedLatents, plan: Plan, stretch: int, repeats: int
) -> Iterator[Row]:
    """Stretches of steps in turn; the first step of each, which the feed before may still slow
    down, is left out."""
    with patch.object(feed_module, "ahead", lambda items, source: items):
        not_ahead = feed(stored, plan, 0, CPU, blocks=True)
    batches = feed(held, plan, 0, CPU, blocks=False)
    feeds = {
        "no feed": fixed(held, plan),
        "resident": feed(held, plan, 0, CPU, blocks=False),
        "resident, made ahead": ahead(batches, batches),
        "memory map, full shuffle": feed(stored, plan, 0, CPU, blocks=False),
        "memory map, by blocks, not ahead": not_ahead,
        "memory map, by blocks": feed(stored, plan, 0, CPU, blocks=True),
    }
    run = step_of(name)
    seconds: dict[str, list[float]] = {form: [] for form in feeds}
    for _ in range(repeats):
        for form, batches in feeds.items():
            run(next(batches))
            start = time.perf_counter()
            for _ in range(stretch):
                run(next(batches))
            seconds[form].append((time.perf_counter() - start) / stretch)
    for form, batches in feeds.items():
        batches.close()
        yield rate_row(f"{name}, {form}", seconds, form, "no feed")
    form = "memory map, by blocks"
    yield rate_row(f"{name}, {form}", seconds, form, "resident", Bar(0.9, at_least=True))


def rate_row(
    name: str, seconds: Mapping[str, list[float]], form: str, of: str, bar: Bar | None = None
) -> Row:
    """Milliseconds a step, and the rate in units of another's."""
    rate = statistics.median(a / b for a, b in zip(seconds[of], seconds[form], strict=True))
    return Row(name, 1e3 * statistics.median(seconds[form]), "ms a step", f"rate, {of}", rate, bar)


def step_of(name: str) -> Callable[[Batch], object]:
    """A whole training step of these adapters."""
    adapters = {
        m: registry.build("adapter", ADAPTERS[name], width, 512) for m, width in WIDTHS.items()
    }
    objective = registry.build("objective", Part("infonce"))
    mixup = registry.build("mixup", Part("fusemix"))
    state = TrainState.new(Alignment(adapters, objective), Training(lr=1e-4), 0)
    return lambda batch: train_step(state, batch, mixup, 1e-4)


def fixed(pairs: PairedLatents, plan: Plan) -> Iterator[Batch]:
    """One batch, over and over. Mixing takes its own copy."""
    batch = pairs.batch(torch.arange(plan.rows_per_step))
    while True:
        yield batch


# -- a store larger than memory ------------------------------------------------------------------


def cold(options: Options) -> Iterator[Row]:
    """Steps from a cold store, in a process of its own."""
    pairs, batch, steps = (20_000, 64, 40) if options.quick else (5_000_000, 2048, 300)
    home = options.scratch / "cold"
    generate(home, pairs)
    command = [
        sys.executable,
        "-m",
        "benchmarks.feed",
        str(home),
        "--threads",
        str(options.threads),
    ]
    command += ["--pairs", str(pairs), "--batch", str(batch), "--steps", str(steps)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found = json.loads(done.stdout.splitlines()[-1])
    name = f"linear, {pairs:,} pairs from a cold disk by blocks"
    seconds = {"cold": found["seconds"], "no feed": found["fixed"]}
    yield rate_row(name, seconds, "cold", "no feed", Bar(0.9, at_least=True))
    limit = Bar(1.0)
    yield Row(f"{name}, peak memory", found["peak"], "GB", "4 GB", found["peak"] / 4, limit)


def cold_run(home: Path, pairs: int, batch: int, steps: int) -> dict[str, object]:
    """Seconds a step in stretches of 25 from the cold store, after each 5 steps without a feed."""
    data = open_pairs(home, pairs)
    drop_cache(home)
    plan = plan_steps(pairs, 2, Training(epochs=EPOCHS, batch_size=batch))
    run, batches = step_of("linear"), feed(data, plan, 0, CPU, blocks=True)
    found: dict[str, list[float]] = {"seconds": [], "fixed": []}
    for _ in range(max(steps // 25, 1)):
        for name, source, count in (("seconds", batches, 25), ("fixed", None, 5)):
            last = next(batches)
            run(last)
            start = time.perf_counter()
            for _ in range(count):
                run(next(source) if source else last)
            found[name].append((time.perf_counter() - start) / count)
    batches.close()
    return {**found, "peak": peak_memory()}


def drop_cache(home: Path) -> None:
    """Have the system forget what it holds of the store's files."""
    for path in home.rglob("*.safetensors"):
        handle = os.open(path, os.O_RDONLY)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)


def peak_memory() -> float:
    """GB that the process held at most, pages of mapped files included."""
    with open("/proc/self/status") as file:
        fields = dict(line.split(":", 1) for line in file)
    return int(fields["VmHWM"].split()[0]) / 1e6


# -- recall --------------------------------------------------------------------------------------


def recalls(options: Options) -> Iterator[Row]:
    """R@1 by blocks against a full shuffle, differences paired by seed."""
    seeds = range(1 if options.quick else 5)
    sets = {"synthetic": (synthetic(4_000 if options.quick else 24_000), 5)}
    if options.data and not options.quick:
        sets["openstax"] = figures(options.data / "openstax" / "manifest.jsonl"), 25
    for name, (splits, epochs) in sets.items():
        full, blocks = compare(splits, seeds, block=51, steps=4, epochs=epochs)
        ratio = statistics.mean(blocks) / statistics.mean(full)
        details = {"full": full, "blocks": blocks}
        value = 100 * statistics.mean(blocks)
        yield Row(f"{name}, R@1 by blocks", value, "%", "full shuffle", ratio, details=details)


def main() -> None:
    """The cold run alone, of a store that is there."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("home", type=Path)
    for name, value in (("pairs", 5_000_000), ("batch", 2048), ("steps", 300), ("threads", 2)):
        parser.add_argument(f"--{name}", type=int, default=value)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(json.dumps(cold_run(args.home, args.pairs, args.batch, args.steps)))


if __name__ == "__main__":
    main()
