"""`run("-c", code)` as `python -c CODE` would, in a process forked from one that imported torch.

Importing torch takes seconds of CPU, and many tests start a process. A child finds the libraries
imported, nothing of fusemix, and all that a fresh interpreter takes from its surroundings: the
environment, the folder, the path. What an interpreter itself reads from the environment when it
starts (`PYTHONHASHSEED`, `PYTHONIOENCODING`) is for `subprocess.run`.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import runpy
import subprocess
import sys
import tempfile
import traceback
from functools import cache
from pathlib import Path
from types import ModuleType

PATH = "PYTHONPATH"
LIBRARIES = ("torch", "torch._dynamo", "pyarrow.parquet")
"""torch._dynamo is imported by the first optimiser; it alone takes two seconds."""


def run(*arguments, cwd=None, env=None, libraries=LIBRARIES) -> subprocess.CompletedProcess:
    """`subprocess.run([sys.executable, *arguments], capture_output=True, text=True)`."""
    given = dict(os.environ if env is None else env)
    words = [str(word) for word in arguments]
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        asked = {"arguments": words, "cwd": str(cwd or Path.cwd()), "env": given}
        code = _server(libraries).ask({**asked, "out": str(out), "err": str(err)})
        printed = [path.read_text(errors="replace") for path in (out, err)]
    return subprocess.CompletedProcess(words, code, *printed)


class _Server:
    """The process that imported the libraries. It ends with this one: its input is at its end."""

    def __init__(self, libraries: tuple[str, ...]) -> None:
        environment = {k: v for k, v in os.environ.items() if k != PATH}
        self.process = subprocess.Popen(
            [sys.executable, __file__, *libraries],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip
        atexit.register(self.end)

    def ask(self, asked: dict) -> int:
        print(json.dumps(asked), file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        assert answer, "the process that forks others has died"
        return int(answer)

    def end(self) -> None:
        self.process.stdin.close()
        self.process.wait()


_server = cache(_Server)


def _serve() -> None:
    """Fork a child for each line, and answer with its exit code, below 0 for a signal."""
    libraries, sys.argv[1:] = sys.argv[1:], []
    for name in libraries:
        importlib.import_module(name)
    del sys.path[0]  # the folder of this file
    gc.freeze()  # children need not look at what is imported
    while line := sys.stdin.readline():
        child = os.fork()
        if not child:
            _become(**json.loads(line))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def _become(arguments: list[str], cwd: str, env: dict[str, str], out: str, err: str) -> None:
    """Run as a fresh interpreter with these arguments, to its end."""
    for stream, place in enumerate((os.devnull, out, err)):
        file = os.open(place, os.O_RDONLY if stream == 0 else os.O_WRONLY | os.O_CREAT)
        os.dup2(file, stream)
        os.close(file)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    more = [part for part in env.get(PATH, "").split(os.pathsep) if part]
    kind, *rest = arguments
    first = "" if kind == "-c" else cwd if kind == "-m" else str(Path(kind).parent)
    sys.path[:0] = [first, *more]
    try:
        if kind == "-c":
            code, *sys.argv[1:] = rest
            sys.argv[0] = "-c"
            sys.modules["__main__"] = main = ModuleType("__main__")
            exec(compile(code, "<string>", "exec"), main.__dict__)  # noqa: S102
        elif kind == "-m":
            sys.argv[:] = rest
            runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
        else:
            sys.argv[:] = arguments
            runpy.run_path(kind, run_name="__main__")
    except Exception:
        traceback.print_exc()
        sys.exit(1)
    sys.exit(0)


if __name__ == "__main__":
    _serve()
