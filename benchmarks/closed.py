"""What a closed form costs beyond one reading of its pairs and their products.

python -m benchmarks.closed HOME --pairs N     # the run alone, of a store that is there
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch

from benchmarks.feed import drop_cache, peak_memory
from benchmarks.generated import generate, open_pairs
from benchmarks.harness import Bar, Options, Row, interleaved, median, ratio
from fusemix_core.aligners.moments import moments_of
from fusemix_core.config import Part, Recipe
from fusemix_core.interfaces import FitContext, PairedLatents
from fusemix_core.latents.shards import Shard
from fusemix_core.registry import registry

TITLE = "Closed forms"
ABOUT = """
Whole fits of the closed forms on a store on disk (latents of widths 1280 and 384 as float16), its
files dropped from the system's cache before each. The reference does the least that can be done:
it reads the shards one after another into a buffer and takes the three products of covariances in
float32, with no standardisation, no check of what is missing, and no choice. `moments` is the pass
alone: less than the reference where it reads while it computes, and as a product with itself needs
its upper triangle only. A fit has, beside the pass, its sample, the solutions for
every ridge, and the recall on 10,000 validation pairs for every choice. Kernel CCA is left out: it
takes a sample of the pairs. Peak memory is that of the process, where the pairs' keys and places
are, while it fits.
"""

PAIRS = 5_000_000
WIDTHS = {"image": 1280, "text": 384}
CHUNK = 8_192
BARE = "read and multiplied"
CLEAR = Path("/proc/self/clear_refs")
FITS = {
    "cca": Part("cca", {"landmarks": 0}),
    "csa": Part("csa"),
    "procrustes": Part("procrustes"),
    "ridge": Part("ridge"),
    "asif": Part("asif"),
}


def measure(options: Options) -> Iterator[Row]:
    pairs = 20_000 if options.quick else PAIRS
    generate(options.scratch, pairs + held_out(pairs), WIDTHS)
    command = [sys.executable, "-m", "benchmarks.closed", str(options.scratch)]
    command += ["--pairs", str(pairs), "--threads", str(options.threads)]
    command += ["--repeats", "1"] if options.quick else []
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found = json.loads(done.stdout.splitlines()[-1])
    seconds, peaks = found["seconds"], found["peaks"]
    yield Row(f"{pairs:,} pairs, read and multiplied", median(seconds[BARE]), "s")
    for name in list(seconds)[1:]:
        times, bar = ratio(seconds, name, BARE), Bar(1.1) if name == "moments" else None
        yield Row(f"{pairs:,} pairs, {name}", median(seconds[name]), "s", BARE, times, bar)
    for name, peak in peaks.items():
        yield Row(f"{name}, peak memory", peak, "GB", "4 GB", peak / 4, Bar(1.0))


def run(home: Path, pairs: int, repeats: int) -> dict[str, object]:
    """Seconds of the bare pass, of the moments alone and of each fit, in turn; the peak GB of the
    last two."""
    data = open_pairs(home, pairs + held_out(pairs), WIDTHS)
    train, validation = (
        PairedLatents(data.tables, part) for part in data.links.split([pairs, held_out(pairs)])
    )
    peaks: dict[str, float] = {}

    def watched(name: str, job: Callable[[], object]) -> Callable[[], None]:
        def once() -> None:
            drop_cache(home)
            CLEAR.write_text("5")  # the peak begins anew
            job()
            peaks[name] = max(peak_memory(), peaks.get(name, 0.0))

        return once

    def fit(part: Part) -> object:
        recipe = Recipe("closed", part)
        return registry.build("aligner", part).fit(train, validation, recipe, FitContext())

    jobs = {BARE: lambda: bare_pass(data), "moments": lambda: moments_of(train, FitContext())}
    jobs |= {name: partial(fit, part) for name, part in FITS.items()}
    forms = {name: watched(name, job) for name, job in jobs.items()}
    seconds = interleaved(forms, repeats, warmups=0)
    del peaks[BARE]
    return {"seconds": seconds, "peaks": peaks}


def held_out(pairs: int) -> int:
    """Validation pairs, beside the others."""
    return min(pairs // 50, 10_000)


def bare_pass(data: PairedLatents) -> None:
    """Read each shard into a buffer, and add up the products of its rows."""
    x_shards, y_shards = (data.tables[m].shards for m in WIDTHS)
    dims = list(WIDTHS.values())
    totals = [torch.zeros(a, b, dtype=torch.float64) for a in dims for b in dims if a >= b]
    for shards in zip(x_shards, y_shards, strict=True):
        x, y = (torch.from_numpy(read(shard)) for shard in shards)
        for a, b in zip(x.split(CHUNK), y.split(CHUNK), strict=True):
            a, b = a.float(), b.float()
            for total, (left, right) in zip(totals, ((a, a), (a, b), (b, b)), strict=True):
                total.add_(left.T @ right)


def read(shard: Shard) -> np.ndarray:
    """The latents of a shard, read from its file."""
    values = np.empty((len(shard), *shard.shape), shard.dtype)
    with open(shard.path, "rb", buffering=0) as file:
        file.seek(shard.offset)
        file.readinto(values)
    return values


def main() -> None:
    """The run alone, of a store that is there."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("home", type=Path)
    for name, value in (("pairs", PAIRS), ("repeats", 2), ("threads", 2)):
        parser.add_argument(f"--{name}", type=int, default=value)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(json.dumps(run(args.home, args.pairs, args.repeats)))


if __name__ == "__main__":
    main()
