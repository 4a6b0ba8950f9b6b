"""Runs a function of a test module in several processes of torch.distributed (gloo)."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]


def run_in_processes(count, function, folder, *arguments, timeout=120):
    """Call `function(folder, *arguments)`, of a module in this folder, in `count` processes.

    What it leaves is what it writes to the folder. Arguments are strings. Raises if one fails.
    """
    folder.mkdir(parents=True, exist_ok=True)
    module, name = function
    command = [sys.executable, __file__, module, name, str(folder), *arguments]
    environment = {**os.environ, "WORLD_SIZE": str(count), "OMP_NUM_THREADS": "1"}
    children = [
        subprocess.Popen(
            command, env={**environment, "RANK": str(i)}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )
        for i in range(count)
    ]  # fmt: skip
    try:
        told = [child.communicate(timeout=timeout)[0] for child in children]
    finally:
        for child in children:
            child.kill()
    assert all(child.returncode == 0 for child in children), "\n".join(told)


def main(module, name, folder, *arguments):
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    sys.path.insert(0, str(TESTS))
    spec = importlib.util.spec_from_file_location("module", Path(__file__).with_name(module))
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    store = f"file://{Path(folder).absolute()}/store-{name}-{'-'.join(arguments)}"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=world)
    getattr(found, name)(Path(folder), *arguments)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
