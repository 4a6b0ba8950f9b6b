"""Runs a function in several processes of torch.distributed (gloo)."""

import signal
import time
import traceback

import started
import torch
import torch.distributed as dist


def run_in_processes(count, function, folder, *arguments, timeout=300, killed=()):
    """Call `function(folder, *arguments)` of a module in `count` processes, one thread each.

    What it leaves is what it writes to the folder. Raises with their tracebacks if any fails; those
    `killed` are to end by SIGKILL.
    """
    folder.mkdir(parents=True, exist_ok=True)
    store = folder / f"store-{time.monotonic_ns()}"
    processes = [
        started.Process(target=_child, args=(i, count, store, function, folder, arguments))
        for i in range(count)
    ]
    for process in processes:
        process.start()
    end = time.monotonic() + timeout
    for process in processes:
        process.join(max(end - time.monotonic(), 0))
    codes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
    told = "\n".join(p.read_text() for p in folder.glob("*.traceback"))
    wanted = [-signal.SIGKILL if i in killed else 0 for i in range(count)]
    assert codes == wanted, f"exit codes {codes}\n{told}"


def _child(rank, count, store, function, folder, arguments):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=count)
    try:
        function(folder, *arguments)
    except BaseException:
        (folder / f"{rank}.traceback").write_text(f"process {rank}\n{traceback.format_exc()}")
        raise
    finally:
        dist.destroy_process_group()
