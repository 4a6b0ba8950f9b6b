"""Runs of the command line in forked children, so that torch is imported once. Run as:
nursery.py FOLDER RUNS KILLS SEED.

FOLDER/whole is a run of `encode` and `align` that nobody disturbed; its data are FOLDER/world.
FOLDER/<n> for n < RUNS is one that was killed KILLS times by SIGKILL at random times, `encode` or
`align` by turns, and then resumed until it ended; FOLDER/encode and FOLDER/align were stopped by
SIGINT and by SIGTERM. Every child writes what it encoded and which steps it did to
<run>/told.txt. What was found wrong is printed, a line each.
"""

import contextlib
import gc
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import jinja2  # noqa: F401  that children need not import it
import torch
from pairs import write_world
from PIL import Image

import fusemix_core.jobs.align
import fusemix_core.jobs.encode  # noqa: F401
from fusemix_core.cli import app, main  # noqa: F401
from fusemix_core.engine import checkpoint, loop
from fusemix_core.engine.checkpoint import checkpoint_folders
from fusemix_core.errors import ArtefactError
from fusemix_core.latents import extraction
from fusemix_core.latents.shards import read_shard, verify_shard
from fusemix_core.registry import registry
from fusemix_core.reports import figures
from fusemix_core.userfile import import_file

toys = import_file(Path(__file__).parents[1] / "toys.py")  # the module that the runs import
ROWS, SHARD = 240, 16
ENDS = {signal.SIGKILL: -signal.SIGKILL, signal.SIGINT: 130, signal.SIGTERM: 143}
EPOCHS = 10
ENCODE, ALIGN = "encode", "align"


def arguments(command: str, folder: Path, run: Path) -> list[str]:
    file = Path(toys.__file__)
    said = [command, "--a", f"{file}:ToyImage", "--b", f"{file}:ToyText"]
    said += ["--data", str(folder / "world/pairs.csv"), "--device", "cpu", "--encode-batch", "8"]
    if command == ALIGN:
        said += ["--out", "run", "--recipe", "fusemix", "--seed", "1"]
        for setting in (f"training.epochs={EPOCHS}", "adapter.blocks=1", "training.batch_size=32"):
            said += ["--set", setting]
        said += ["--resume"] * (run / "run/config.toml").exists()
    return said


def child(command: str, folder: Path, run: Path) -> int:
    """Start the command in a process of its own, which tells what it does; its id."""
    run.mkdir(exist_ok=True)
    pid = os.fork()
    if pid:
        return pid
    os.chdir(run)
    os.environ["FUSEMIX_HOME"] = str(run / "home")
    lines = (run / "told.txt").open("a", buffering=1)
    sys.stdout = sys.stderr = (run / "said.txt").open("a")
    tell_items(lines)
    tell_steps(lines)
    sys.argv = ["fusemix", *arguments(command, folder, run)]
    code = 1
    try:
        main()
    except SystemExit as end:
        code = end.code or 0
    finally:
        sys.stdout.flush()
        os._exit(code)


def tell_items(lines) -> None:
    """Have the encoders take their time and tell how many items they encoded."""
    for toy in (toys.ToyImage, toys.ToyText):

        def slow(self, batch, view="pooled", encode=toy.encode):
            time.sleep(0.01)
            lines.write(f"encoded {len(batch)}\n")
            return encode(self, batch, view)

        toy.encode = slow


def tell_steps(lines) -> None:
    step, save = loop.Trainer._step, checkpoint.save

    def telling(self, batch):
        step(self, batch)
        lines.write(f"step {self.state.step}\n")

    def saving(taken, *rest):
        done = save(taken, *rest)
        lines.write(f"saved {taken.step}\n")
        return done

    loop.Trainer._step, checkpoint.save = telling, saving


def code(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def result(run: Path) -> dict[str, bytes]:
    """What a run leaves that must be the same: latents, the last checkpoint, the model."""
    last = checkpoint_folders(run / "run/checkpoints")[-1]
    folders = (run / "home/latents", run / "run/model", last)
    found = [p for folder in folders for p in sorted(folder.rglob("*")) if p.is_file()]
    return {str(p.relative_to(run)): p.read_bytes() for p in found}


def faults(run: Path) -> list[str]:
    """Shards that are present and wrong."""
    wrong = []
    for path in (run / "home/latents").rglob("*.safetensors"):
        try:
            verify_shard(read_shard(path))
        except ArtefactError as error:
            wrong.append(str(error))
    return wrong


def repeated(run: Path, kills: int) -> list[str]:
    """What was done again beyond the shard, or the checkpoint, in flight."""
    lines = [line.split() for line in (run / "told.txt").read_text().splitlines()]
    events = [(what, int(n)) for what, n in lines]
    encoded = sum(n for what, n in events if what == "encoded")
    wrong = []
    # The shard that is written and the one that is encoded meanwhile, of each kill.
    if encoded > 2 * ROWS + kills * 2 * SHARD:
        wrong.append(f"{encoded} items were encoded, {2 * ROWS} in all, {kills} kills")
    saved = 0
    for what, n in events:
        if what == "saved":
            saved = max(saved, n)
        elif what == "step" and n <= saved:
            wrong.append(f"step {n} was done again after the checkpoint of step {saved}")
    return wrong


def unlogged(run: Path) -> list[str]:
    """Whether metrics.jsonl tells each step once, in order, as if nothing had happened."""
    lines = map(json.loads, (run / "run/metrics.jsonl").read_text().splitlines())
    steps = [line["step"] for line in lines if line["kind"] == "train"]
    return [] if steps == list(range(1, len(steps) + 1)) else [f"metrics.jsonl tells {steps}"]


def disturbed(
    folder: Path, name: str, command: str, draw: random.Random, signals: list[int]
) -> None:
    """One run stopped by each signal in turn, after a random part of what it had to tell, and
    resumed."""
    run, kills, wrong = folder / name, 0, []
    left = told(folder / "whole") if command == ALIGN else told(folder / "whole", "encoded")
    for number in signals:
        pid = child(command, folder, run)
        begun = number != signal.SIGKILL  # before its first line it may not listen yet
        wait_until(run, told(run) + begun + draw.randrange(max(1, left - told(run))), pid)
        time.sleep(draw.uniform(0, 0.02))
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        end = code(pid)
        kills += end == ENDS[number]
        if end not in (0, ENDS[number]):
            wrong.append(f"signal {number} ended it with {end}")
        wrong += faults(run)
    for last in (ENCODE, ALIGN):
        if (end := code(child(last, folder, run))) != 0:
            wrong.append(f"{last} ended with {end}: {(run / 'said.txt').read_text()[-2000:]}")
    wrong += faults(run) + repeated(run, kills) + unlogged(run)
    want, got = result(folder / "whole"), result(run)
    differ = sorted(n for n in want.keys() | got.keys() if want.get(n) != got.get(n))
    if differ:
        wrong.append(f"these files differ: {', '.join(differ)}")
    for line in wrong:
        print(f"{name} ({command}, {kills} kills): {line}", flush=True)
    print(f"stopped {kills}", flush=True)


def told(run: Path, what: str = "") -> int:
    """How many lines a run has told, of one kind or in all."""
    file = run / "told.txt"
    lines = file.read_text().splitlines() if file.exists() else []
    return sum(line.startswith(what) for line in lines)


def wait_until(run: Path, lines: int, pid: int) -> None:
    """Until the run has told so many lines, or has ended and waits to be asked how."""
    while told(run) < lines and not os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
        time.sleep(0.002)


def nursery(folder: Path, runs: int, kills: int, seed: int) -> None:
    torch.set_num_threads(1)
    torch.optim.AdamW([torch.zeros(1, requires_grad=True)])  # imports for seconds, once
    Image.init()  # so do these
    registry.load()
    gc.freeze()  # what is imported is not looked at again
    figures._svg = lambda *_, **__: "<svg></svg>"  # tests/reports draws them
    extraction.shard_size = lambda items: SHARD
    write_world(folder / "world", count=ROWS)
    for command in (ENCODE, ALIGN):
        if code(child(command, folder, folder / "whole")):
            print((folder / "whole/said.txt").read_text())
            return
    draw = random.Random(seed)
    for n in range(runs):
        disturbed(folder, str(n), (ENCODE, ALIGN)[n % 2], draw, [signal.SIGKILL] * kills)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # without, if started in background
    for command in (ENCODE, ALIGN):
        disturbed(folder, command, command, draw, [signal.SIGINT, signal.SIGTERM])


if __name__ == "__main__":
    nursery(Path(sys.argv[1]), *map(int, sys.argv[2:]))
