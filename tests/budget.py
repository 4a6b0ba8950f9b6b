"""CPU seconds of each folder's tests against its budget: `pytest --budget`, as `make test` runs it.

CPU seconds count this process and all that it started; what else the machine does meanwhile costs
no budget. How fast the machine is, is measured in the same run: every few seconds by a loop of
which `budget.toml` has the seconds on the machine that its numbers come from.
"""

from __future__ import annotations

import os
import statistics
import time
import tomllib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import started

ROOT = Path(__file__).parents[1]
BUDGETS = Path(__file__).with_name("budget.toml")
COLLECTING = "collecting, each process"
FORKING = "imports of what tests fork"
MOST = 1.3
"""A folder may take so many times its budget, and always `LEAST` seconds more than it."""
LEAST = 5.0
PROCESSES = 4
"""Imports and shared fixtures are made in each process: more of them than that are not judged."""
_EVERY = 5.0
_TICK = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


def pytest_addoption(parser):
    parser.addoption("--budget", action="store_true", help="hold folders to tests/budget.toml")


def pytest_configure(config):
    if config.getoption("budget"):
        config.pluginmanager.register(Budget(config), "fusemix-budget")


class Budget:
    """Counts in each process that runs tests; judges in the one that was started."""

    def __init__(self, config):
        self.output = getattr(config, "workeroutput", None)
        self.spent, self.loops, self.processes, self.over = Counter(), [], 0, []

    def pytest_collection_modifyitems(self, items):
        """Costly folders come first, so that no process is left with one of them at the end."""
        seconds = read()["seconds"]
        items.sort(key=lambda item: -seconds.get(folder_of(item.path), 0))

    def pytest_collection_finish(self):
        self.spent[COLLECTING] = used()
        self.looked = -_EVERY

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item):
        before = used()
        result = yield
        after = used()
        self.spent[folder_of(item.path)] += max(after - before, 0)
        if after - self.looked > _EVERY:
            self.looked = after
            self.loops.append(loop())
        return result

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node):
        own = getattr(node, "workeroutput", {}).get("budget")
        if own:
            self.add(*own)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session):
        speed = statistics.median(self.loops) if self.loops else None
        self.spent[FORKING] = started.spent(started.IMPORTS)
        if self.output is not None:
            self.output["budget"] = dict(self.spent), speed
            return
        if speed:
            own, self.spent = self.spent, Counter()
            self.add(own, speed)
        self.over = judged(self.spent, read(), self.processes)
        if self.over and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def add(self, spent: Mapping[str, float], speed: float | None):
        """Count a process, in seconds of the machine that the budgets come from."""
        if speed is None:
            return
        self.processes += 1
        for name, seconds in spent.items():
            seconds *= read()["loop"] / speed
            if name in (COLLECTING, FORKING):
                self.spent[name] = max(self.spent[name], seconds)
            else:
                self.spent[name] += seconds

    def pytest_terminal_summary(self, terminalreporter):
        if not self.spent or self.output is not None:
            return
        budgets = read()["seconds"]
        terminalreporter.section("CPU seconds (budget)")
        for name, seconds in sorted(self.spent.items(), key=lambda one: -one[1]):
            terminalreporter.line(f"{seconds:7.1f} ({budgets.get(name, '-'):>4})  {name}")
        terminalreporter.line(f"{self.spent.total():7.1f} ({sum(budgets.values()):>4})  in all")
        for line in self.over:
            terminalreporter.line(line, red=True)


def judged(spent: Mapping[str, float], budgets: Mapping, processes: int) -> list[str]:
    """A line for each folder that took too long, or has no budget."""
    if processes > PROCESSES:
        return []
    found = []
    for name, seconds in spent.items():
        budget = budgets["seconds"].get(name)
        if budget is None:
            found.append(
                f"{name} has no budget: add '\"{name}\" = {seconds:.0f}' to tests/budget.toml."
            )
        elif seconds > max(MOST * budget, budget + LEAST):
            found.append(
                f"{name} took {seconds:.1f} CPU seconds of {budget}. `--durations=25` names the "
                f"slow tests; if they are worth it, raise the budget in tests/budget.toml."
            )
    return found


def read() -> dict:
    """`loop`: seconds; `seconds`: folder → CPU seconds."""
    return tomllib.loads(BUDGETS.read_text())


def folder_of(path: Path) -> str:
    """`tests/cli`, `plugins/fusemix-hf`."""
    return "/".join(path.relative_to(ROOT).parts[:2])


def loop() -> float:
    """CPU seconds of a little of all that tests do: objects, products, memory."""
    began = time.thread_time()
    words = {str(i): i for i in range(30_000)}
    sum(words[key] for key in sorted(words))
    square = np.ones((256, 256))
    for _ in range(4):
        square = square @ square / 256
    np.arange(1_000_000, dtype=np.float64).cumsum()
    return time.thread_time() - began


def used() -> float:
    """CPU seconds of this process and of all processes under it, those that ended too."""
    times = os.times()
    own = times.user + times.system + times.children_user + times.children_system
    return own + _under("self") + started.spent()


def _under(process: str) -> float:
    """CPU seconds of the living processes under one, and of those that they waited for."""
    seconds = 0.0
    for child in _children(process):
        try:
            fields = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        seconds += sum(map(int, fields[11:15])) / _TICK + _under(child)
    return seconds


def _children(process: str) -> list[str]:
    found = []
    try:
        for thread in os.listdir(f"/proc/{process}/task"):
            found += Path(f"/proc/{process}/task/{thread}/children").read_text().split()
    except OSError:  # it has ended, or there is no /proc
        pass
    return [one for one in found if int(one) not in started.SERVERS]  # `spent` counts theirs
