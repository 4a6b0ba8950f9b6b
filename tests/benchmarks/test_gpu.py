"""`make gpu`: sections that hang, die or find no time left; every line, rehearsed on a CPU."""

import json
import subprocess
import sys
import time

import pytest
import torch

from benchmarks.gpu import child, tests
from benchmarks.gpu.case import Case
from benchmarks.gpu.page import NOT_YET, gpu_section
from benchmarks.gpu.plan import BUDGET, SECTIONS, Section
from benchmarks.gpu.runner import run

ROW = {"name": "a figure", "value": 1.5, "unit": "ms", "reference": "", "ratio": None, "bar": None}
ROW |= {"details": {}}
SAY = f"import json; print('noise'); print(json.dumps({ROW!r}), flush=True)"
SCRIPTS = {
    "well": SAY,
    "dies": f"{SAY}; import os; os._exit(3)",
    "raises": "raise RuntimeError('the last words')",
    "hangs": f"{SAY}; import time; time.sleep(60)",
    "hangs with a child": "import subprocess, sys\n"
    "subprocess.run([sys.executable, '-c', 'import time; time.sleep(60)'])",
    "half": 'print(\'{"failed": "a part", "error": "ValueError: why"}\')',
}


def sections(**seconds):
    return [Section(name.replace("_", " "), own, name) for name, own in seconds.items()]


def command(section):
    return [sys.executable, "-S", "-c", SCRIPTS[section.name]]


def test_a_section_that_hangs_or_dies_costs_itself_alone(tmp_path):
    out, began = tmp_path / "gpu.json", time.monotonic()
    plan = sections(dies=9, raises=9, hangs=0.3, hangs_with_a_child=0.3, half=9, well=9)
    found = run(out, command, sections=plan, budget=30)
    assert time.monotonic() - began < 20
    states = {name: one["state"] for name, one in found["sections"].items()}
    assert states.pop("dies") == "died (exit code 3)"
    assert states.pop("raises") == "died (exit code 1)"
    late = "stopped: it took too long"
    assert states == {"hangs": late, "hangs with a child": late, "half": "done", "well": "done"}
    assert "the last words" in found["sections"]["raises"]["stderr"]
    assert found["sections"]["half"]["failed"][0]["error"] == "ValueError: why"
    assert [row["section"] for row in found["rows"]] == ["dies", "hangs", "well"]
    assert json.loads(out.read_text()) == found


def test_every_figure_is_on_disk_before_the_next_one(tmp_path):
    out, seen = tmp_path / "gpu.json", []
    run(
        out,
        lambda section: [sys.executable, "-S", "-c", f"{SAY}; {SAY}"],
        sections=sections(well=9),
        budget=30,
        tell=lambda line: seen.append(len(json.loads(out.read_text())["rows"])),
    )
    assert seen == [1, 2]


def test_a_section_without_time_left_is_not_begun(tmp_path):
    found = run(tmp_path / "gpu.json", command, sections=sections(well=20), budget=5)
    assert found["sections"] == {"well": {"state": "no time left"}} and not found["rows"]


def test_the_plan_fits_the_budget():
    assert sum(section.seconds for section in SECTIONS) <= BUDGET <= 330


@pytest.mark.parametrize("name", [s.name for s in SECTIONS if s.name != "tests"])
def test_every_line_runs_on_a_cpu(name, tmp_path):
    case = Case(torch.device("cpu"), tmp_path, quick=True)
    found = list(child.lines(name, case))
    assert found and not [line for line in found if "failed" in line]
    json.dumps(found)


def test_tests_that_fail_are_named():
    report = (
        '<testsuites><testsuite><testcase name="good"/><testcase name="bad">'
        '<failure message="assert 1 == 2"/></testcase></testsuite></testsuites>'
    )
    row = tests.passed(report)
    assert (row.value, row.unit, row.ratio) == (1, "of 2", 0.5) and not row.bar.met(row.ratio)
    assert row.details["failed"] == {"bad": "failure: assert 1 == 2"}


def test_the_page_says_what_was_not_measured(tmp_path):
    assert NOT_YET in gpu_section(tmp_path / "none.json")
    out = tmp_path / "gpu.json"
    found = run(out, lambda s: command(Section("well", 9, "")), sections=SECTIONS[:2], budget=30)
    found["machine"] = {"processor": "a processor", "cores": 2, "memory_gb": 9, "torch": "2"}
    out.write_text(json.dumps(found))
    page = "\n".join(gpu_section(out))
    assert NOT_YET not in page and "| a figure | 1.5 ms |" in page
    assert "This part was not finished: not run." in page


@pytest.mark.long
def test_the_rehearsal_as_a_user_runs_it(tmp_path):
    out = tmp_path / "gpu.json"
    line = [sys.executable, "-m", "benchmarks", "gpu", "--quick", "--out", str(out)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(out.read_text())
    assert [one["state"] for one in found["sections"].values()] == ["done"] * len(SECTIONS)
