"""The budget of CPU seconds: what is counted, on machines of any speed, and who fails."""

import subprocess
import sys
from types import SimpleNamespace

import budget
import pytest
import started

BUDGETS = {"loop": 0.02, "seconds": {"tests/a": 20, "tests/b": 1}}


@pytest.fixture
def counting(monkeypatch):
    monkeypatch.setattr(budget, "read", lambda: BUDGETS)
    return budget.Budget(SimpleNamespace())


def test_a_folder_fails_above_its_budget_and_a_third():
    assert budget.judged({"tests/a": 25.9}, BUDGETS, 1) == []
    (line,) = budget.judged({"tests/a": 26.1}, BUDGETS, 1)
    assert line.startswith("tests/a took 26.1 CPU seconds of 20.")


def test_a_few_seconds_are_forgiven():
    assert budget.judged({"tests/b": 5.9}, BUDGETS, 1) == []
    assert len(budget.judged({"tests/b": 6.1}, BUDGETS, 1)) == 1


def test_a_new_folder_is_asked_for_its_budget():
    (line,) = budget.judged({"plugins/new": 2.2}, BUDGETS, 1)
    assert line == "plugins/new has no budget: add '\"plugins/new\" = 2' to tests/budget.toml."


def test_many_processes_that_each_import_everything_are_not_judged():
    assert budget.judged({"tests/a": 99}, BUDGETS, budget.PROCESSES + 1) == []


def test_seconds_of_a_slow_machine_are_as_many_of_a_quick_one(counting):
    counting.add({"tests/a": 30.0}, 0.04)
    counting.add({"tests/a": 1.0}, 0.01)
    assert counting.spent == {"tests/a": pytest.approx(17.0)} and counting.processes == 2


def test_children_count_while_they_live_and_after(monkeypatch):
    code = "import time\nwhile time.process_time() < 0.5: pass\nprint(flush=True)\ninput()"
    before = budget.used()
    child = subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1)
    child.stdout.readline()
    if sys.platform == "linux":
        assert budget.used() - before > 0.45
    child.communicate(b"\n")
    assert budget.used() - before > 0.45


def test_processes_forked_by_another_count_when_they_end():
    before = budget.used()
    started.run("-c", "import time\nwhile time.process_time() < 0.5: pass")
    assert budget.used() - before > 0.45


def test_every_folder_of_tests_has_a_budget_and_no_other():
    plugins = [path.parent for path in budget.ROOT.glob("plugins/*/tests")]
    folders = [path for path in (budget.ROOT / "tests").iterdir() if any(path.glob("test_*.py"))]
    found = {path.relative_to(budget.ROOT).as_posix() for path in [*plugins, *folders]}
    found -= {"tests/cuda"}  # not in a default run
    assert set(budget.read()["seconds"]) == {budget.COLLECTING, budget.FORKING, *found}
