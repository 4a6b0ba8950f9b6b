"""A plugin's own media, from the data to the report and the search, and files of one's own."""

import csv
import json
import sqlite3
from types import SimpleNamespace

import numpy as np
import pytest
from kit.broken_readers import Signal
from pairs import COLOURS, write_world
from toys import ToyImage, ToyText
from typer.testing import CliRunner

from fusemix_core.cli.app import app
from fusemix_core.cli.base import plugins_first
from fusemix_core.config import DataConfig, Part, read_toml
from fusemix_core.data import pairs_from, read_pairs
from fusemix_core.discovery import installed
from fusemix_core.errors import ConfigError, PluginError, UnknownNameError
from fusemix_core.registry import Registry, registry
from fusemix_core.runs.config import resolve_encoders
from fusemix_core.specs import ComponentSpec, EncoderSpec, ModalitySpec

TABLES = '''
"""A plugin in one file: rows of numbers as a modality."""
import json

import torch

from fusemix_core import ComponentSpec, Encoder, EncoderSpec, Medium, ModalitySpec
from fusemix_core.errors import DataError


def fusemix_modalities():
    return [ModalitySpec(name="measures", medium="figures", prompts=("a row of {}.", "{}"))]


def fusemix_components():
    summary = "columns of numbers"
    target = f"{__name__}:Figures"
    return [ComponentSpec(kind="medium", name="figures", target=target, summary=summary)]


class Figures(Medium):
    name, inline, joined, costly = "figures", True, True, False

    def cell(self, value):
        try:
            row = {name: float(cell) for name, cell in sorted(value.items()) if cell is not None}
        except (TypeError, ValueError, AttributeError) as error:
            raise DataError(f"not a row of numbers: {error}") from error
        return json.dumps(row) if row else ""

    def decode(self, value, sample_rate=None):
        try:
            row = json.loads(value) if isinstance(value, str) else dict(value)
            return {name: float(cell) for name, cell in row.items()}
        except (TypeError, ValueError, AttributeError) as error:
            raise DataError(f"not a row of numbers: {error}") from error

    def cells(self):
        return [{"red": 1, "blue": "2"}, {"red": 0.5, "blue": 3}]


class Measures(Encoder):
    spec = EncoderSpec(name="measures", modality="measures", target=f"{__name__}:Measures", dim=8)
    mix = torch.randn(3, 8, generator=torch.Generator().manual_seed(5))

    def __init__(self, spec):
        self.spec, self.device = spec, torch.device("cpu")

    @classmethod
    def load(cls, spec, device, dtype):
        return cls(spec)

    @property
    def weights_digest(self):
        return "made up"

    def collate(self, items):
        names = ("red", "green", "blue")
        return torch.tensor([[item.get(name, 0.0) for name in names] for item in items])

    def encode(self, batch, view="pooled"):
        return torch.tanh(batch / 100 @ self.mix)
'''
SQLITE = """
import sqlite3
from contextlib import closing

from fusemix_core import Reader, Row
from fusemix_core.errors import DataError


class SqliteReader(Reader):
    def __init__(self, *, table="pairs"):
        self.table = table

    def matches(self, path):
        return path.suffix == ".sqlite"

    def rows(self, path):
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as base:
            try:
                found = base.execute(f'SELECT * FROM "{self.table}"')
                names = [column[0] for column in found.description]
                for number, cells in enumerate(found, start=1):
                    yield Row(str(path), number, dict(zip(names, cells)))
            except sqlite3.Error as error:
                raise DataError(f"can't be read: {error}", path=path) from error
"""
SMALL = ["--recipe", "cca", "--device", "cpu", "--seed", "1"]


pytestmark = pytest.mark.usefixtures("own_registry")


def run(*args):
    return CliRunner().invoke(app, list(map(str, args)))


def ran(*args):
    done = run(*args)
    assert done.exit_code == 0, f"{done.output}\n{done.exception!r}"
    return done.stdout


@pytest.fixture
def measured(tmp_path):
    """A file of one's own, and a table whose columns are numbers."""
    write_world(tmp_path / "w", count=80)
    with open(tmp_path / "w/pairs.csv") as file:
        rows = list(csv.DictReader(file))
    for i, row in enumerate(rows):
        colour = COLOURS[row["text"].split()[1]]
        row |= {n: str(c + i / 100) for n, c in zip(("red", "green", "blue"), colour, strict=True)}
    rows[5]["green"] = ""
    rows[6]["green"] = "much"
    with open(tmp_path / "w/pairs.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    (tmp_path / "tables.py").write_text(TABLES)
    return tmp_path


def test_a_table_is_aligned_reported_and_searched(measured):
    data = ["--data", measured / "w/pairs.csv", "--column", "measures=red,green,blue"]
    common = ["-e", "measures=measures", "-e", "text=toy-text", *data, *SMALL, "--max-bad", "0.1"]
    registry.add(ToyText)
    out = measured / "run"
    plugin = ["--plugin", measured / "tables.py"]
    ran("align", *common, "--out", out, *plugin)
    saved = json.loads((out / "model/config.json").read_text())
    assert saved["encoders"]["measures"]["takes"] == "figures"
    assert read_toml(out / "config.toml")["plugins"] == [str(measured / "tables.py")]
    report = (out / "report.html").read_text()
    assert "&#34;red&#34;" in report or "&quot;red&quot;" in report
    assert "not a row of numbers" in (out / "rejected.jsonl").read_text()
    card = (out / "model/README.md").read_text()
    assert "model.encode('measures'" in card
    hits = json.loads(ran(*plugin, "search", out, "a blue car", "--to", "measures", *data,
                          "--json", "--max-bad", "0.1"))  # fmt: skip
    assert len(hits) == 10 and set(json.loads(hits[0]["item"])) == {"red", "green", "blue"}
    query = json.dumps({"red": 30, "green": 40, "blue": 220})
    found = ran("search", out, query, "--from", "measures", "--to", "text", *plugin,
                "--data", measured / "w/pairs.csv", "-k", "3")  # fmt: skip
    assert "items searched" in found
    with_gap = json.loads(ran(*plugin, "search", out, "a pink car", "--to", "measures", *data,
                              "-k", "100", "--json", "--max-bad", "0.1"))  # fmt: skip
    assert any("green" not in json.loads(hit["item"]) for hit in with_gap)


def test_a_run_says_which_files_it_needs_and_runs_none_by_itself(measured):
    data = ["--data", measured / "w/pairs.csv", "--column", "measures=red,green,blue"]
    common = ["-e", "measures=measures", "-e", "text=toy-text", *data, *SMALL, "--max-bad", "0.1"]
    registry.add(ToyText)
    out = measured / "run"
    ran("align", *common, "--out", out, "--plugin", measured / "tables.py")
    registry.files.clear()
    (measured / "tables.py").write_text("raise SystemExit('it was run')")
    for again in (["--out", out, "--resume"], ["--config", out / "config.toml"]):
        done = run("align", *again)
        assert done.exit_code == 2 and f"--plugin {measured / 'tables.py'}" in done.stderr


def test_a_reader_of_a_file_with_options_reads_the_data(tmp_path):
    registry.add(ToyText)
    registry.add(ToyImage)
    write_world(tmp_path / "w", count=80)
    with open(tmp_path / "w/pairs.csv") as file:
        rows = [(row["image"], row["text"]) for row in csv.DictReader(file)]
    path = tmp_path / "w/pairs.sqlite"
    with sqlite3.connect(path) as base:
        base.execute("CREATE TABLE figures (image TEXT, text TEXT)")
        base.executemany("INSERT INTO figures VALUES (?, ?)", rows)
    base.close()
    (tmp_path / "sql.py").write_text(SQLITE)
    encoders = ["--a", "toy-image", "--b", "toy-text", "--data", path, *SMALL]
    done = run("align", *encoders)
    assert done.exit_code == 2 and "Parquet" in done.stderr and "--reader" in done.stderr
    reader = ["--reader", f"{tmp_path / 'sql.py'}:SqliteReader table=figures"]
    ran("align", *encoders, *reader, "--out", tmp_path / "a")
    recorded = read_toml(tmp_path / "a/config.toml")["data"]["reader"]
    assert recorded["options"] == {"table": "figures"}
    assert json.loads((tmp_path / "a/results.json").read_text())["pairs"]["train"] == 64
    for again in (["--out", tmp_path / "a", "--resume"], ["--config", tmp_path / "a/config.toml"]):
        done = run("align", *again)
        assert done.exit_code == 2 and "--reader" in done.stderr.replace("\n", " ")
    ran("align", "--out", tmp_path / "a", "--resume", *reader)
    done = run("align", *encoders, "--reader", f"{tmp_path / 'sql.py'}:SqliteReader tabel=figures")
    assert done.exit_code == 2 and "table" in done.stderr


def test_the_place_of_plugin_in_the_command_line():
    assert plugins_first(["align", "--plugin", "a.py", "--a", "x"]) == [
        "--plugin", "a.py", "align", "--a", "x",
    ]  # fmt: skip
    assert plugins_first(["--plugin=a.py", "x", "--", "--plugin", "b"]) == [
        "--plugin=a.py", "x", "--", "--plugin", "b",
    ]  # fmt: skip
    assert run("align", "--plugin", "./absent.py").exit_code == 2


def test_arrays_of_a_file_are_a_medium(tmp_path, monkeypatch):

    registry.add(ComponentSpec(kind="medium", name="signal", target="kit.broken_readers:Signal"))
    registry._classes["medium signal"] = Signal
    registry.add(ModalitySpec(name="signal", medium="signal", suffixes=(".npy",)))
    for i in range(8):
        np.save(tmp_path / f"{i}.npy", np.full(4, i, np.float32))
        (tmp_path / f"{i}.txt").write_text(f"signal {i}")
    data = read_pairs(DataConfig((str(tmp_path),)), {"signal": "signal", "text": "text"})
    items = data.items["signal"]
    assert len(data) == 8 and items.load(3).tolist() == [3.0] * 4
    assert items.show(3).note.endswith("3.npy")
    in_python = pairs_from(
        {"signal": [np.full(4, i, np.float32) for i in range(8)], "text": list("abcdefgh")},
        {"signal": "signal", "text": "text"},
    )
    assert in_python.items["signal"].load(2).tolist() == [2.0] * 4


def plugins(*declared):
    """A registry of core and of plugins that declare modalities."""

    class Point:
        dist = None

        def __init__(self, number, specs):
            self.name = self.value = f"plugin-{number}"
            self.load = lambda: SimpleNamespace(fusemix_modalities=lambda: specs)

    core = [p for p in installed() if p.dist.name == "fusemix"]
    return Registry(lambda: [*core, *(Point(i, specs) for i, specs in enumerate(declared))])


def test_what_plugins_declare_of_a_modality_is_united():
    own = plugins(
        [ModalitySpec(name="molecule", columns=("smiles",))],
        [ModalitySpec(name="molecule", columns=("inchi", "smiles"), prompts=("a {}.",))],
        [ModalitySpec(name="image", medium="image", suffixes=(".exr",))],
    )
    assert own.modality("molecule").columns == ("smiles", "inchi")
    assert own.modality("molecule").prompts == ("a {}.",)
    assert {".exr", ".jpg"} <= set(own.modality("image").suffixes)
    assert own.modality("unheard of") is None


def test_two_media_for_one_modality_are_an_error_that_names_both():
    own = plugins([ModalitySpec(name="scan", medium="image")],
                  [ModalitySpec(name="scan", medium="dicom")])  # fmt: skip
    with pytest.raises(PluginError, match="image .plugin-0. and dicom|dicom .plugin-1. and image"):
        own.modality("scan")
    own.add(ModalitySpec(name="scan", medium="dicom"))
    assert own.modality("scan").medium == "dicom"


def test_an_encoder_of_an_unknown_medium_is_refused_with_the_likely_name():
    registry.add(EncoderSpec(name="odd", modality="x", takes="imgae", target="nowhere:X"))
    with pytest.raises(UnknownNameError) as error:
        resolve_encoders({"x": "odd"})
    assert "imgae" in error.value.message and "image" in error.value.hint


def test_an_undeclared_modality_is_text():
    registry.add(EncoderSpec(name="odd", modality="protein", target="nowhere:X"))
    assert registry.encoder("odd").takes == "text"


def test_core_names_no_molecule():
    """Neither its code nor what it declares: that is the plugin's."""
    core = plugins()
    assert core.modality("molecule") is None
    assert registry.modality("molecule").columns == ("smiles",)
    with pytest.raises(ConfigError):
        core.check("adapter", Part("linear", {"no-option": 1}))
