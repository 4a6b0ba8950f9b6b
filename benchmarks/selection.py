"""What choosing pairs costs: selectors on a latent store of a million candidates.

python -m benchmarks.selection HOME CANDIDATES SELECTOR K THREADS     # one choice, of such a store
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from benchmarks.feed import drop_cache, peak_memory
from benchmarks.generated import SHARD, keys_of
from benchmarks.growth import CAUSES, latents
from benchmarks.harness import Options, Row
from fusemix_core.config import Part
from fusemix_core.interfaces import FitContext, PairedLatents
from fusemix_core.latents.shards import write_shard
from fusemix_core.latents.store import LatentStore
from fusemix_core.registry import registry

TITLE = "Choosing pairs"
ABOUT = """
Selectors on a store on disk, latents of width 384 as float16 that are read in chunks, each choice
in a process of its own with the files dropped from the system's cache before. Seconds are those of
the processor, of all cores together, so that other work on the machine does not count; on two cores
it takes about half as long. The latents have a spectrum that falls as a power of the rank, as
encoders' do. The reference is one pass over the latents that multiplies them by 100 vectors. Peak
memory is that of the whole process, torch among it.
"""

CANDIDATES = 1_000_000
WIDTH = 384
MODALITY = "text"
PASS = "one pass"
FEW = 20_000
CASES = (
    ("uniform", 1_000, CANDIDATES),
    ("concept-balanced", 1_000, CANDIDATES),
    ("concept-balanced", 10_000, CANDIDATES),
    ("dpp", 1_000, FEW),
    ("dpp", 1_000, CANDIDATES),
    ("dpp", 10_000, FEW),
)
"""By what, how many, of how many: not 10,000 of a million by `dpp`, which takes too long here."""


def measure(options: Options) -> Iterator[Row]:
    less = 50 if options.quick else 1
    generate(options.scratch, CANDIDATES // less)
    passes = {n: chosen(options, n // less, PASS, 0)["seconds"] for n in (FEW, CANDIDATES)}
    for count, seconds in passes.items():
        yield Row(f"{count // less:,} candidates, {PASS}", seconds, "s")
    for selector, k, count in CASES:
        reference, count, k = passes[count], count // less, k // less
        found = chosen(options, count, selector, k)
        name = f"{k:,} of {count:,}, {selector}"
        yield Row(
            name,
            found["seconds"],
            "s",
            PASS,
            found["seconds"] / reference,
            details={"selector": selector, "k": k, "candidates": count, **found},
        )
        yield Row(f"{name}, peak memory", found["peak_gb"], "GB")


def generate(home: Path, count: int) -> None:
    """Fill the store `home` with float16 latents `[count, WIDTH]`."""
    causes = torch.randn(count, CAUSES, generator=torch.Generator().manual_seed(0))
    values = latents(count, WIDTH, causes, 1).numpy()
    for first in range(0, count, SHARD):
        part = values[first : first + SHARD]
        keys = keys_of(first, first + len(part))
        write_shard(LatentStore(home).folder / MODALITY / "pooled", keys, part, {})


def chosen(options: Options, count: int, selector: str, k: int) -> dict[str, float]:
    """Processor seconds, peak GB and how many were chosen, of a choice in its own process."""
    command = [sys.executable, "-m", "benchmarks.selection", str(options.scratch)]
    command += [str(count), selector, str(k), str(options.threads)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def main(home: Path, count: int, selector: str, k: int) -> None:
    """Print processor seconds, peak GB and how many were chosen, of one choice."""
    table = LatentStore(home).open(MODALITY, "pooled", keys_of(0, count), "float16")
    drop_cache(home)
    start = time.process_time()
    if selector == PASS:
        vectors, rows = torch.randn(WIDTH, 100), []
        for part in torch.arange(count).split(8192):
            (table.rows(part) @ vectors).sum()
    else:
        pairs = PairedLatents({MODALITY: table}, torch.arange(count)[:, None])
        rows = registry.build("selector", Part(selector)).select(pairs, k, FitContext())
    seconds = time.process_time() - start
    print(json.dumps({"seconds": seconds, "peak_gb": peak_memory(), "chosen": len(rows)}))


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[5]))
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
