"""Hostile files given to the command: a message and a hint, exit 2, and no traceback."""

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fuzz.readers import add, furnish, picture
from typer.testing import CliRunner

from fusemix_core.cli.app import app

TOYS = Path(__file__).parents[1] / "toys.py"
SIDES = ["--a", f"{TOYS}:ToyImage", "--b", f"{TOYS}:ToyText", "--device", "cpu"]


@pytest.fixture
def photos(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    return furnish(tmp_path / "data")


def run(*args):
    return CliRunner().invoke(app, [str(a) for a in args], catch_exceptions=False)


def outside(path):
    with tarfile.open(path, "w") as archive:
        add(archive, "../a.png", picture(1))
        add(archive, "/a.txt", b"text")


def terminal(path):
    path.write_bytes(b"image,\x1b[2J\xed\xb2\x80[/red],text\n")


HOSTILE = {
    "nulls.csv": lambda p: p.write_bytes(b"\0" * 5000),
    "utf16.tsv": lambda p: p.write_bytes("image\ttext\n".encode("utf-16")),
    "deep.json": lambda p: p.write_bytes(b"[" * 100_000),
    "lines.jsonl": lambda p: p.write_bytes(b'{"image": "0.png", "text"\n\xff\n[]\n'),
    "tail.parquet": lambda p: p.write_bytes(b"PAR1" + b"\xff" * 99 + b"PAR1"),
    "outside.tar": outside,
    "cut.tar": lambda p: p.write_bytes(b"a.png" + b"\0" * 600),
    "terminal.csv": terminal,
    "links.csv": lambda p: p.write_text("image,text\n../../x.png,a\n/etc/passwd,b\n"),
    "pipe.csv": os.mkfifo,
    "none.csv": lambda p: None,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_data(photos, name):
    HOSTILE[name](photos / name)
    for command in ("align", "encode"):
        result = run(command, *SIDES, "--data", photos / name, "--dry-run")
        assert result.exit_code == 2, result.output
        lines = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
        assert len(lines) == 1 and name in result.stderr
        assert "Traceback" not in result.output and "\x1b" not in result.output


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--config", "deep.toml"], "can't be read as TOML"),
        (["--config", "numbers.toml"], "encoders.image is 1, which is not of type str"),
        (["--set", "dim=" + "[" * 9000], "not of type int"),
        (["--set", "adapter=3", "--set", "adapter.blocks=1"], "no settings inside"),
        (["--data", "{0..99999}{0..99999}.csv"], "names more than"),
        (["--data", "x" * 5000], "no such file"),
        (["-e", "image=x@~nobody/y", "-e", "text=y", "--data", "data"], "does not exist"),
        (["--out", "run", "--resume"], "can't be read as TOML"),
    ],
)
def test_hostile_options(photos, args, says):
    Path("deep.toml").write_bytes(b"a = " + b"[" * 9000)
    Path("numbers.toml").write_text("encoders = {image = 1, text = 2}\ndata = {source = ['a']}")
    Path("run").mkdir()
    Path("run/config.toml").write_bytes(b"\xff\0")
    named = [] if {"--config", "-e", "--resume"} & set(args) else SIDES
    result = run("align", *named, "--recipe", "fusemix", *args)
    assert result.exit_code == 2 and says in result.stderr, result.output


@pytest.mark.parametrize(
    "content",
    [b"[" * 9999, b"{}", b'{"format": 1, "modalities": {"a": {"adapter": "os:x"}}}', b"\0"],
)
def test_hostile_models(photos, content):
    Path("model").mkdir()
    Path("model/config.json").write_bytes(content)
    Path("model/model.safetensors").write_bytes(b"\xff" * 99)
    for args in (["eval", "model"], ["search", "model", "x"]):
        result = run(*args, "--data", photos)
        assert result.exit_code == 2 and "model/config.json" in result.stderr, result.output


def test_the_good_rows_of_a_bad_file_are_fitted_on(photos):
    rows = [f"{i % 6}.png,caption {i}" for i in range(24)]
    rows += ["../x.png,a", "none.png,b", '"open', "0.png,\xff", "1.png"]
    (photos / "a.csv").write_bytes("\n".join(["image,text", *rows]).encode("latin-1", "replace"))
    own = ["--recipe", "fusemix", "--set", "training.epochs=1", "--set", "dim=4"]
    args = ["align", *SIDES, *own, "--data", photos / "a.csv", "--out", "run", "--max-bad"]
    refused = run(*args, 0.01)
    assert refused.exit_code == 2 and "--max-bad" in refused.stderr
    assert run(*args, 0.9).exit_code == 0
    told = [json.loads(line) for line in Path("run/rejected.jsonl").read_text().splitlines()]
    assert all(r["path"].endswith("a.csv") and r["reason"] for r in told)
    assert {25, 26, 27, 28, 29} == {r["row"] for r in told if r["row"] > 24}


def test_no_traceback_from_a_process_of_its_own(photos):
    pq.write_table(pa.table({"image": [b"x"], "text": ["a"]}), photos / "a.parquet")
    data = (photos / "a.parquet").read_bytes()
    (photos / "a.parquet").write_bytes(data[:40] + b"\xff" * 40 + data[80:])
    sides = ["--a", "efficientnet-lite0", "--b", "minilm", "--device", "cpu"]
    done = subprocess.run(
        [sys.executable, "-m", "fusemix_core.cli", "align", *sides, "--data", photos / "a.parquet"],
        capture_output=True, text=True, env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )  # fmt: skip
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert "a.parquet" in done.stderr
