"""A server under load: many clients for a minute, and whether its memory grows.

    python -m benchmarks serving

Needs fusemix-serve and fusemix-starter. The server is a process of its own, and so are the
clients, on the same cores.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.harness import Bar, Options, Row

TITLE = "Serving"

ABOUT = """
`fusemix serve` with the model of fusemix-starter and an index of its sample. 64 clients ask at
once, each again as soon as it has its answer, on a connection that it keeps: half for embeddings of
a text, half for a search of the index. Server and clients share the cores. Memory is the server's
resident set after the first sixth of the time and at the end. Times are compared with one client's.
"""

CLIENTS, SECONDS = 64, 60.0
QUICK_CLIENTS, QUICK_SECONDS = 8, 3.0
GROWTH = Bar(1.1)
_WORDS = ("map", "chart", "cell", "bridge", "river", "engine", "market", "planet", "muscle", "vote")


@dataclass
class Load:
    """What clients measured: the milliseconds of each answer, and how many were errors."""

    milliseconds: list[float] = field(default_factory=list)
    errors: int = 0

    def percentile(self, share: float) -> float:
        """The time in which a share of the answers came."""
        ordered = sorted(self.milliseconds)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def measure(options: Options) -> Iterator[Row]:
    """Rows of one client, and of many at once."""
    clients = QUICK_CLIENTS if options.quick else CLIENTS
    seconds = QUICK_SECONDS if options.quick else SECONDS
    index = starter_index(options.scratch)
    with server(index) as (port, process):
        _ask(port, 0, time.perf_counter())  # loads the encoder
        single = load(port, 1, seconds / 12)
        with ThreadPoolExecutor(1) as watcher:
            watched = watcher.submit(_after, seconds / 6, process.pid)
            many = load(port, clients, seconds)
        early = watched.result()
        late = resident_mb(process.pid)
    yield Row("Errors", many.errors, "", "answers", many.errors / len(many.milliseconds), Bar(0))
    name = f"{clients} clients"
    yield Row(f"{name}: answers per second", len(many.milliseconds) / seconds, "1/s")
    for share in (0.5, 0.99):
        value, alone = many.percentile(share), single.percentile(share)
        label = f"{name}: {'median' if share == 0.5 else 'p99'}"
        yield Row(label, value, "ms", f"one client, {alone:.3g} ms", value / alone)
    yield Row("Memory at the end", late, "MB", "at a sixth of the time", late / early, GROWTH)


def load(port: int, clients: int, seconds: float) -> Load:
    """Ask for some seconds, in a process of its own so that the server's times are its own."""
    command = [sys.executable, "-m", "benchmarks.serving", str(port), str(clients), str(seconds)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found = json.loads(done.stdout)
    return Load(found["milliseconds"], found["errors"])


@contextmanager
def server(index: Path) -> Iterator[tuple[int, subprocess.Popen[str]]]:
    """(the port, the process) of a server of an index."""
    command = [sys.executable, "-m", "fusemix_core.cli", "serve", str(index), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        yield int(line.strip().rstrip("/").rpartition(":")[2]), process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def resident_mb(pid: int) -> float:
    """The resident set of a process, in MB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def _after(seconds: float, pid: int) -> float:
    time.sleep(seconds)
    return resident_mb(pid)


def starter_index(scratch: Path) -> Path:
    """An index of the starter's sample by the starter's model."""
    from fusemix_starter import sample_path

    from fusemix_core.config import DataConfig
    from fusemix_core.runs.models import load_model
    from fusemix_core.search import Collection

    data = DataConfig(source=(str(sample_path()),))
    model = load_model("starter:figures", device="cpu")
    Collection.create(scratch / "index", model, data, to=("image",))
    return scratch / "index"


def _ask(port: int, client: int, until: float) -> Load:
    """What one client measures until a time."""
    found = Load()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    turn = 0
    while not turn or time.perf_counter() < until:
        text = f"a {_WORDS[turn % len(_WORDS)]} of number {client}"
        if (turn + client) % 2:
            path, body = "/v1/embeddings", {"input": text}
        else:
            query = {"modality": "text", "text": text}
            path, body = "/api/search", {"queries": [query], "k": 10}
        start = time.perf_counter()
        try:
            headers = {"Content-Type": "application/json"}
            connection.request("POST", path, json.dumps(body), headers)
            answer = connection.getresponse()
            answer.read()
            found.errors += answer.status != 200
        except (OSError, http.client.HTTPException):
            found.errors += 1
            connection.close()
        found.milliseconds.append((time.perf_counter() - start) * 1000)
        turn += 1
    connection.close()
    return found


def _main(port: int, clients: int, seconds: float) -> None:
    """Clients of one process, each a thread."""
    until = time.perf_counter() + seconds
    with ThreadPoolExecutor(clients) as executor:
        all_of_them = list(executor.map(lambda client: _ask(port, client, until), range(clients)))
    milliseconds = [round(ms, 3) for one in all_of_them for ms in one.milliseconds]
    errors = sum(one.errors for one in all_of_them)
    median = statistics.median(milliseconds)
    print(json.dumps({"errors": errors, "median": median, "milliseconds": milliseconds}))


if __name__ == "__main__":
    _main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
