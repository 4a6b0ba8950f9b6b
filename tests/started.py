"""Processes forked from one that imported torch: `run("-c", code)` is `python -c CODE`.

Importing torch takes seconds of CPU, and many tests start a process. A child finds the libraries
imported, nothing of fusemix, and all that a fresh interpreter takes from its surroundings: the
environment, the folder, the path, the open files. What an interpreter itself reads from the
environment when it starts (`PYTHONHASHSEED`, `PYTHONIOENCODING`) is for `subprocess`.

`serve` is called once, before pytest-xdist starts its workers: they all ask the same servers. A
server imports its libraries when it is first asked.
"""

from __future__ import annotations

import atexit
import contextlib
import faulthandler
import fcntl
import gc
import importlib
import json
import os
import pickle
import resource
import runpy
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from functools import partial
from multiprocessing import util
from pathlib import Path
from types import ModuleType, SimpleNamespace

PATH = "PYTHONPATH"
_SOCKET = "FUSEMIX_TESTS_STARTED_BY"
_NAME = _SOCKET + "_{}"
_ACCOUNT = "PYTEST_XDIST_WORKER"
"""Processes of a worker, and those that they ask for, inherit its name."""
SERVERS: set[int] = set()
"""Processes that fork others, started by this one."""
IMPORTS = "imports"
"""The account of what the servers themselves take."""
_THREADLESS = {"JE_ARROW_MALLOC_CONF": "background_thread:false"}
"""Nothing that the server imports may start a thread: a child would inherit its locks, held by
nobody. PyArrow's allocator starts one."""
LONGEST = 900
"""Seconds after which a child that hangs prints where each of its threads is, and ends; but not one
that serves all tests, as the kit's worker does."""
LIBRARIES = (
    "torch", "torch.distributed", "torch._dynamo", "pyarrow.parquet",
    "matplotlib.backends.backend_svg", "mpl_toolkits.mplot3d", "typer.rich_utils", "rich.progress",
    "jinja2",
)  # fmt: skip
"""What a run imports. torch._dynamo comes with the first optimiser; it alone takes two seconds."""
ENCODERS = (*LIBRARIES, "sentence_transformers", "timm")
"""What a run with the packaged encoders imports. They take from the environment, when they are
imported, whether a hub may be asked: a child is as offline as the tests."""


def run(*arguments, cwd=None, env=None, libraries=LIBRARIES) -> subprocess.CompletedProcess:
    """`subprocess.run([sys.executable, *arguments], capture_output=True, text=True)`."""
    words = [str(word) for word in arguments]
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        with out.open("wb") as stdout, err.open("wb") as stderr:
            process = Popen(
                [sys.executable, *words], stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr,
                cwd=cwd, env=env, libraries=libraries,
            )  # fmt: skip
        code = process.wait()
        printed = [path.read_text(errors="replace") for path in (out, err)]
    return subprocess.CompletedProcess(words, code, *printed)


class Popen:
    """As much of `subprocess.Popen` as tests, `fusemix_core.latents.child` and torchrun use."""

    def __init__(
        self, args, *, stdin=None, stdout=None, stderr=None, pass_fds=(), cwd=None, env=None,
        process_group=None, start_new_session=False, text=False, libraries=LIBRARIES, lasting=False,
    ):  # fmt: skip
        interpreter, *words = [str(word) for word in args if word != "-u"]
        assert interpreter == sys.executable, args
        self.returncode, self._lock = None, threading.Lock()
        theirs = []
        for name, asked in (("stdin", stdin), ("stdout", stdout), ("stderr", stderr)):
            setattr(self, name, _stream(name, asked, theirs, text))
        asked = {
            "arguments": words, "cwd": str(cwd or Path.cwd()), "files": [0, 1, 2, *pass_fds],
            "env": dict(os.environ if env is None else env), "group": process_group,
            "session": start_new_session, "longest": None if lasting else LONGEST,
        }  # fmt: skip
        with tempfile.TemporaryFile("w+") as words:
            json.dump(asked, words)
            words.seek(0)
            self._answers = _asked(libraries, [words.fileno(), *theirs, *pass_fds])
        for file in theirs:
            os.close(file)
        self.pid = _number(self._answers)
        with contextlib.suppress(ProcessLookupError):  # it has ended already
            while start_new_session and os.getsid(self.pid) != self.pid:
                time.sleep(0.001)

    def wait(self, timeout=None):
        if self.returncode is None:
            if not select.select([self._answers], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("", timeout)
            with self._lock:
                if self.returncode is None:
                    self.returncode = _number(self._answers)
        return self.returncode

    def poll(self):
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.wait(0)

    def send_signal(self, number):
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # it ended, and we are yet to hear of it
                os.kill(self.pid, number)

    def terminate(self):
        self.send_signal(signal.SIGTERM)

    def kill(self):
        self.send_signal(signal.SIGKILL)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for stream in (self.stdin, self.stdout, self.stderr):
            if stream:
                stream.close()
        self.wait()


_CALL = """
import pickle, sys
with open(sys.argv[1], "rb") as file:
    sys.path[:] = pickle.load(file)
    function, arguments = pickle.load(file)
function(*arguments)
"""


class Process:
    """As much of `multiprocessing.Process` as tests use."""

    def __init__(self, target, args=(), libraries=LIBRARIES):
        self._called, self._libraries = (target, args), libraries

    def start(self):
        self._folder = tempfile.TemporaryDirectory()
        path = Path(self._folder.name, "called")
        path.write_bytes(pickle.dumps(sys.path) + pickle.dumps(self._called))
        words = [sys.executable, "-c", _CALL, path]
        self._process = Popen(words, libraries=self._libraries)

    def join(self, timeout=None):
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout)
            self._folder.cleanup()

    def is_alive(self):
        return self._process.poll() is None

    def kill(self):
        self._process.kill()

    @property
    def exitcode(self):
        return self._process.poll()


SPAWN = util.spawnv_passfds
"""How multiprocessing itself starts an interpreter. For what can't be loaded in a forked process,
now and then: CTranslate2, whose MKL ends it."""


def fork_spawned() -> None:
    """What multiprocessing spawns in this process is forked as well: the kit's worker."""

    def spawned(path, words, files):
        if "--multiprocessing-fork" not in words:
            return SPAWN(path, words, files)
        words = [sys.executable, *words[words.index("-c") :]]  # without options of the interpreter
        return Popen(words, pass_fds=files, libraries=ENCODERS, lasting=True).pid

    util.spawnv_passfds = spawned


def fork_workers() -> None:
    """The workers of pytest-xdist are forked as well: none imports what another has."""
    from execnet.gateway_base import ThreadExecModel

    popen = partial(Popen, libraries=ENCODERS)
    ThreadExecModel.subprocess = SimpleNamespace(Popen=popen, PIPE=subprocess.PIPE)


forked = SimpleNamespace(
    Popen=Popen, PIPE=subprocess.PIPE, DEVNULL=subprocess.DEVNULL,
    TimeoutExpired=subprocess.TimeoutExpired,
)  # fmt: skip
"""In the place of the module `subprocess`."""


def _stream(name: str, asked, theirs: list[int], text: bool):
    """Our end of a pipe, or None. The child's file is added to `theirs`."""
    if asked == subprocess.PIPE:
        read, write = os.pipe()
        ours, other, mode = (write, read, "w") if name == "stdin" else (read, write, "r")
        theirs.append(other)
        return os.fdopen(ours, mode if text else mode + "b")
    if asked == subprocess.DEVNULL:
        theirs.append(os.open(os.devnull, os.O_RDWR))
    else:
        number = ("stdin", "stdout", "stderr").index(name)
        theirs.append(os.dup(number if asked is None else asked.fileno()))
    return None


def _asked(libraries: tuple[str, ...], files: list[int]) -> socket.socket:
    """Asks the server for a child with these files: JSON that says which child, and those that it
    asks for. What it answers are two numbers."""
    answers = socket.socket(socket.AF_UNIX)
    answers.connect(_server(libraries))
    socket.send_fds(answers, [b"!"], files)
    return answers


def _number(answers: socket.socket) -> int:
    found = answers.recv(4, socket.MSG_WAITALL)
    assert len(found) == 4, "the process that forks others has died"
    return int.from_bytes(found, "little", signed=True)


def _answer(answers: socket.socket, number: int) -> None:
    with contextlib.suppress(BrokenPipeError):
        answers.sendall(number.to_bytes(4, "little", signed=True))


def serve() -> None:
    """Start the servers, for this process and all that it starts. They end with it."""
    if _NAME.format(LIBRARIES[-1]) in os.environ:
        return
    folder = Path(tempfile.mkdtemp(prefix="started"))
    servers, before = [], set()
    for libraries in (LIBRARIES, ENCODERS):
        path = folder / libraries[-1] / "socket"
        path.parent.mkdir()
        servers.append([str(path), *(name for name in libraries if name not in before)])
        before.update(libraries)
    environment = {k: v for k, v in os.environ.items() if k != PATH} | _THREADLESS
    server = subprocess.Popen(
        [sys.executable, __file__, json.dumps(servers)], stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    SERVERS.add(server.pid)
    atexit.register(_end, server, folder)
    assert server.stdout.readline(), "the process that forks others has died"
    os.environ |= {_NAME.format(Path(path).parent.name): path for path, *_ in servers}


def _server(libraries: tuple[str, ...]) -> str:
    """The socket of the server that imports these libraries."""
    serve()
    return os.environ[_NAME.format(libraries[-1])]


def spent(account: str | None = None) -> float:
    """CPU seconds of the processes that a worker asked for and that have ended; of this one's, or
    of the one named."""
    account = account or os.environ.get(_ACCOUNT, "main")
    sockets = [path for name, path in os.environ.items() if name.startswith(_SOCKET)]
    files = [Path(path).with_name(account) for path in sockets]
    return sum(float(file.read_text()) for file in files if file.exists())


def _end(server: subprocess.Popen, folder: Path) -> None:
    server.stdin.close()
    server.wait()
    shutil.rmtree(folder)


# -- the server --------------------------------------------------------------------------------


def _serve() -> None:
    """The servers, a socket and libraries each: this process is the first. When the next is first
    asked, it is forked from this one, of whose libraries it imports none again."""
    servers = json.loads(sys.argv.pop())
    del sys.path[0]  # the folder of this file
    listeners = [socket.socket(socket.AF_UNIX) for _ in servers]
    for listener, (path, *_) in zip(listeners, servers, strict=True):
        listener.bind(path)
        listener.listen(16)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asks
    print("listening", flush=True)
    for path, *libraries in servers:
        listener, *listeners = listeners
        if not _answer_all(listener, libraries, Spending(Path(path).parent), listeners):
            return


def _answer_all(
    listener: socket.socket, libraries: list[str], spending: Spending,
    further: list[socket.socket],
) -> bool:  # fmt: skip
    """Fork a child for each connection; answer its id, and then its exit code, below 0 for a
    signal. False when the input has ended; True in a process that is to be the next server."""
    children, next_server = {}, None
    ended, ending = os.pipe()
    os.set_blocking(ending, False)
    signal.set_wakeup_fd(ending)
    while True:
        ready, _, _ = select.select([0, listener, ended, *further[:1]], [], [])
        if libraries and not {0, ended}.issuperset(ready):
            _import(libraries)
            spending.add(IMPORTS, time.process_time())
        if listener in ready:
            answers, _ = listener.accept()
            _, (words, *theirs), *_ = socket.recv_fds(answers, 1, 64)
            with os.fdopen(words) as file:
                asked = json.load(file)
            ours = [listener, answers, *further, *(one for one, _ in children.values())]
            child = _begin(asked, theirs, ours)
            children[child] = answers, asked["env"].get(_ACCOUNT, "main")
            _answer(answers, child)
        if ended in ready:
            os.read(ended, 4096)
            _tell(children, spending)
        if further and further[0] in ready:
            next_server = os.fork()
            ours = further if next_server else [listener, *(one for one, _ in children.values())]
            for one in ours:
                one.close()
            if not next_server:
                return True
            further.clear()
        if 0 in ready:
            if next_server:
                with contextlib.suppress(ChildProcessError):  # `_tell` has heard that it ended
                    os.waitpid(next_server, 0)
            return False


class Spending:
    """CPU seconds by account, in a file each."""

    def __init__(self, folder: Path):
        self.folder, self.seconds = folder, Counter()

    def add(self, account: str, seconds: float) -> None:
        self.seconds[account] += seconds
        new = self.folder / f"{account}.new"
        new.write_text(str(self.seconds[account]))
        new.replace(self.folder / account)


def _import(libraries: list[str]) -> None:
    """Import these, of which none is left."""
    for name in libraries:
        importlib.import_module(name)
    libraries.clear()
    gc.freeze()  # children need not look at what is imported


def _begin(asked: dict, theirs: list[int], sockets: list[socket.socket]) -> int:
    """Fork a child, which has none of our sockets; its id."""
    assert len(os.listdir("/proc/self/task")) == 1, "what was imported started a thread"
    child = os.fork()
    if not child:
        for ours in sockets:
            ours.detach()  # `_take` closes it, and its number may be another file's then
        _become(theirs, **asked)
    for file in theirs:
        os.close(file)
    return child


def _tell(children: dict[int, tuple[socket.socket, str]], spending: Spending) -> None:
    """The exit code of each child that has ended, to who asked for it."""
    while children:
        child, status, usage = os.wait4(-1, os.WNOHANG)
        if not child:
            return
        if child not in children:  # the next server
            continue
        answers, account = children.pop(child)
        spending.add(account, usage.ru_utime + usage.ru_stime)
        with answers:
            _answer(answers, os.waitstatus_to_exitcode(status))


def _become(
    theirs: list[int], arguments: list[str], cwd: str, env: dict[str, str], files: list[int],
    group: int | None, session: bool, longest: float | None,
) -> None:  # fmt: skip
    """Run as a fresh interpreter with these arguments, to its end."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if session:
        os.setsid()
    elif group is not None:
        os.setpgid(0, group)
    _take(theirs, files)
    os.environ.clear()
    os.environ.update(env)
    if "MPLBACKEND" in env and "matplotlib" in sys.modules:  # which reads it at its import
        sys.modules["matplotlib"].rcParams["backend"] = env["MPLBACKEND"]
    os.chdir(cwd)
    if longest is not None:
        faulthandler.dump_traceback_later(longest, exit=True)
    more = [part for part in env.get(PATH, "").split(os.pathsep) if part]
    kind, *rest = arguments
    first = "" if kind == "-c" else cwd if kind == "-m" else str(Path(kind).parent)
    sys.path[:0] = [first, *more]
    fork_spawned()
    try:
        if kind == "-c":
            source, *sys.argv[1:] = rest
            sys.argv[0] = "-c"
            sys.modules["__main__"] = main = ModuleType("__main__")
            exec(compile(source, "<string>", "exec"), main.__dict__)  # noqa: S102
        elif kind == "-m":
            sys.argv[:] = rest
            runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
        else:
            sys.argv[:] = arguments
            runpy.run_path(kind, run_name="__main__")
    except SystemExit as ended:
        code = ended.code
    except Exception:
        traceback.print_exc()
        code = 1
    else:
        code = 0
    _leave(code)


def _leave(code: object) -> None:
    """As `sys.exit(code)`, but for the libraries that the server imported: to let go of them one by
    one takes longer than most tests."""
    if code is not None and not isinstance(code, int):
        print(code, file=sys.stderr)
        code = 1
    threading._shutdown()  # waits for threads that are not daemons
    atexit._run_exitfuncs()
    if (names := vars(sys.modules["__main__"])) is not globals():
        names.clear()
    gc.collect()  # what is left of the script: files that it did not close
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # closed, or nobody reads it
            stream.flush()
    os._exit((code or 0) & 0xFF)


def _take(theirs: list[int], numbers: list[int]) -> None:
    """Have these files open under these numbers, and no others."""
    above = max(numbers) + 1
    kept = [fcntl.fcntl(file, fcntl.F_DUPFD, above) for file in theirs]
    for file, number in zip(kept, numbers, strict=True):
        os.dup2(file, number)
    wanted = sorted(numbers)
    most = min(resource.getrlimit(resource.RLIMIT_NOFILE)[0], 4096)
    for low, high in zip(wanted, [*wanted[1:], most], strict=True):
        os.closerange(low + 1, high)


if __name__ == "__main__":
    _serve()
