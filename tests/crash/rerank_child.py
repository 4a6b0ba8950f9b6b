"""Runs of `rerank` in forked children that are killed and resumed. Run as:
rerank_child.py FOLDER one|all, which is how many kills.

FOLDER/run is a fused model, FOLDER/whole a re-ranker for it that nobody disturbed. Every other one
is killed by SIGKILL at a training step, or before or after a file gets its name, and then resumed.
FOLDER/<name>.steps has a byte for each step. Prints a line for each thing that is found wrong, and
how many were killed. It forks, to import torch only once.
"""

import csv
import gc
import json
import os
import shutil
import signal
import sys
from dataclasses import replace
from pathlib import Path

import torch
from forked import child

import fusemix_core.jobs.align
import fusemix_core.jobs.rerank  # noqa: F401
from fusemix_core import align, rerank
from fusemix_core.engine import loop
from fusemix_core.engine.checkpoint import checkpoint_folders
from fusemix_core.latents import extraction
from fusemix_core.registry import registry
from fusemix_core.reports import figures
from fusemix_core.userfile import import_file

words = import_file(Path(__file__).parents[1] / "reranking" / "words.py")
ENCODERS = {"left": words.Left, "right": words.Right}
TRAINING = {"epochs": 3, "evaluate_every": 1, "batch_size": 40, "lr": 3e-3, "patience": 0}
NETWORKS = ("interaction", "twin")
SECOND = 14
"""A step of the second network, after its first checkpoint."""


def run(folder: Path, name: str) -> None:
    """The re-ranker FOLDER/NAME, begun or resumed."""
    os.environ["FUSEMIX_HOME"] = str(folder / f"home-{name}")
    step = loop.Trainer._step

    def counted(self, batch):
        with open(folder / f"{name}.steps", "a") as file:
            file.write(".")
        step(self, batch)

    loop.Trainer._step = counted
    out = folder / name
    resume = (out / "config.toml").exists()
    settings = {"training": TRAINING, "negatives": "random"}
    rerank(folder / "run", settings=settings, out=out, resume=resume, encoders=ENCODERS)


def dying(folder: Path, name: str, where, function: str, count: int, after: bool):
    """`run` until `where.function` has been called `count` times, `after` it or before."""

    def work() -> None:
        real, calls = getattr(where, function), 0

        def deadly(*given, **options):
            nonlocal calls
            calls += 1
            if after:
                real(*given, **options)
            if calls == count:
                os.kill(os.getpid(), signal.SIGKILL)
            return None if after else real(*given, **options)

        setattr(where, function, deadly)
        run(folder, name)

    return work


def calls_of(folder: Path, where, function: str) -> int:
    """How often an undisturbed run calls it."""
    told = folder / "calls.txt"

    def work() -> None:
        real, calls = getattr(where, function), 0

        def counted(*given, **options):
            nonlocal calls
            calls += 1
            return real(*given, **options)

        setattr(where, function, counted)
        run(folder, f"counted-{function}")
        told.write_text(str(calls))

    assert child(work) == 0
    return int(told.read_text())


def result(run: Path) -> dict[str, bytes | dict]:
    """What a run leaves that must be the same."""
    folders = [run / "model", *(checkpoint_folders(run / "checkpoints" / n)[-1] for n in NETWORKS)]
    found = [p for folder in folders for p in sorted(folder.rglob("*")) if p.is_file()]
    values = json.loads((run / "results.json").read_text())
    del values["measured"]["cost"]
    for one in values["candidates"].values():
        del one["seconds"]
    return {str(p.relative_to(run)): p.read_bytes() for p in found} | {"results.json": values}


def steps(folder: Path, name: str) -> int:
    """How many steps the processes of a run did in all."""
    return len((folder / f"{name}.steps").read_text())


def ways(folder: Path):
    """Every way to die: where, which function, at which call, before or after it."""
    for where, function in ((loop.Trainer, "_step"), (os, "replace"), (os, "rename")):
        for count in range(1, 1 + calls_of(folder, where, function)):
            yield from ((where, function, count, after) for after in (False, True))


def main(folder: Path, kills: str) -> None:
    torch.set_num_threads(1)
    torch.optim.AdamW([torch.zeros(1, requires_grad=True)])  # imports for seconds, once
    own = registry.component("reranker", "interaction")
    registry.add(replace(own, name="twin"))
    gc.freeze()
    figures._svg = lambda *_, **__: "<svg></svg>"
    extraction.shard_size = lambda items: 64
    columns = words.table(count=160)
    with open(folder / "pairs.csv", "w", newline="") as file:
        csv.writer(file).writerows([columns, *zip(*columns.values(), strict=True)])
    os.environ["FUSEMIX_HOME"] = str(folder / "home-run")
    data = str(folder / "pairs.csv")
    assert child(lambda: align(ENCODERS, data, recipe="cca", out=folder / "run")) == 0
    assert child(lambda: run(folder, "whole")) == 0
    whole, killed = result(folder / "whole"), 0
    every = [(loop.Trainer, "_step", SECOND, True)] if kills == "one" else list(ways(folder))
    for where, function, count, after in every:
        name = f"{function}-{count}-{after}"
        killed += child(dying(folder, name, where, function, count, after)) == -signal.SIGKILL
        if child(lambda name=name: run(folder, name)):
            print(f"{name}: it can't be resumed", flush=True)
            continue
        found = result(folder / name)
        differ = sorted(n for n in whole.keys() | found.keys() if whole.get(n) != found.get(n))
        again = steps(folder, name) - steps(folder, "whole")
        network = steps(folder, "whole") // len(NETWORKS)
        if function == "_step" and again > (count - 1) % network + 1:
            print(f"{name}: {again} steps were done again", flush=True)
        if differ:
            print(f"{name}: these differ: {', '.join(differ)}", flush=True)
        shutil.rmtree(folder / name)
    print(f"killed {killed} of {len(every)}", flush=True)


main(Path(sys.argv[1]), sys.argv[2])
