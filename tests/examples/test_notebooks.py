"""Every notebook runs from its first cell to its last, on less data than as it is given."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys

import jupyter_client.launcher
import nbclient
import nbformat
import pytest
import started
from example_runs import EXAMPLES, STARTER, needs

BOOKS = EXAMPLES / "notebooks"
STEP = 16
"""One of so many rows of the sample is used, the same by each notebook: none is encoded twice."""

pytestmark = needs(*STARTER, "ipykernel")


SHORTER = "import pytest, shortened; shortened.shorten(pytest.MonkeyPatch())"


@pytest.fixture
def run(short_home, tmp_path, monkeypatch):
    """Runs a notebook with some of its lines replaced, and cells after its last."""
    startup = tmp_path / "ipython/profile_default/startup"
    startup.mkdir(parents=True)
    (startup / "shorter.py").write_text(SHORTER)
    monkeypatch.setenv("FUSEMIX_HOME", str(short_home))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, import_paths())))
    monkeypatch.setattr(jupyter_client.launcher, "Popen", kernel)

    def call(name, replaced, *further):
        book = nbformat.read(BOOKS / f"{name}.ipynb", as_version=4)
        source = "\n".join(cell.source for cell in book.cells)
        for old, new in replaced.items():
            assert source.count(old) == 1, old
            for cell in book.cells:
                cell.source = cell.source.replace(old, new)
        book.cells += [nbformat.v4.new_code_cell(code) for code in further]
        resources = {"metadata": {"path": str(tmp_path)}}
        nbclient.NotebookClient(book, timeout=600, resources=resources).execute()
        return [printed(cell) for cell in book.cells if cell.cell_type == "code"]

    return call


def kernel(words, *, env, **how):
    """A kernel's process, forked from one that has imported what the packaged encoders take."""
    words = [word for word in words if not word.startswith("-X")]
    env = {k: v for k, v in env.items() if k != "JPY_PARENT_PID"}  # it would end without it
    return started.Popen(words, env=env, libraries=started.ENCODERS, **how)


def import_paths():
    return [path for path in sys.path if path]


def printed(cell):
    return "".join(one.get("text", "") for one in cell.outputs) + "".join(
        f"<{kind}>" for one in cell.outputs for kind in one.get("data", {})
    )


def test_the_notebooks_are_listed_and_have_no_outputs():
    listed = (EXAMPLES / "README.md").read_text()
    for path in BOOKS.glob("*.ipynb"):
        book = json.loads(path.read_text())
        nbformat.validate(nbformat.from_dict(book))
        assert f"notebooks/{path.name}" in listed, path.name
        code = [cell for cell in book["cells"] if cell["cell_type"] == "code"]
        assert code and not any(cell["outputs"] or cell["execution_count"] for cell in code)
        assert path.stat().st_size < 10_000


@pytest.mark.slow
def test_the_tutorial(run, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    from sample import sample_rows, write_csv

    write_csv(tmp_path / "few.csv", sample_rows(10_000)[::STEP])
    read = 'sample_path().open(encoding="utf-8")))'
    few = {
        "PAIRS = 1_000": "PAIRS = 60",
        read: f"{read}[::{STEP}]",
        "[::400]": "[::25]",
        '"source": str(sample_path())': '"allow_outside": True, "source": "few.csv"',
    }
    out = run("tutorial", few)
    assert any("<image/png>" in one for one in out)
    recalls = re.findall(r"R@10 (\d+) \((\d+)–(\d+)\); by chance (\d+)", "".join(out))
    assert len(recalls) == 2
    assert all(int(low) <= int(r10) <= int(high) for r10, low, high, _ in recalls)
    assert (tmp_path / "figures-and-texts" / "model.safetensors").is_file()


@pytest.mark.slow
def test_own_data(run, tmp_path):
    out = run("own_data", {"[::3]": f"[::{STEP}]"})
    assert "'train': " in out[2] and "R@10" in "".join(out)
    assert (tmp_path / "mine.csv").is_file() and "report.html" in "".join(out)
    card = (tmp_path / "my-model" / "README.md").read_text(encoding="utf-8")
    assert 'license: "cc-by-4.0"' in card and '"you/figures"' in card


@pytest.mark.slow
@needs("ipywidgets")
def test_the_search_widget_shows_what_is_asked_for(run, tmp_path):
    from fusemix_starter import sample_path

    (tmp_path / "few").mkdir()
    folder = sample_path().parent / "images" / "world-history"
    for path in sorted(folder.iterdir())[:12]:
        shutil.copy(path, tmp_path / "few")
    out = run(
        "search_widget",
        {'fusemix_starter.sample_path().parent / "images" / "world-history"': 'Path("few")'},
        "words.value = 'a map of Africa'; first = results.children[0]; len(results.children)",
        "first.children[1].click(); print(len(results.children), first.children[0].format)",
        "count.value = 5; print(len(results.children))",
        "del collection",
    )
    assert out[1].startswith("12 images")
    assert "8 jpeg" in out[-3] and "5" in out[-2]
