"""fusemix-ray: the store that a local Ray fills is the one that `fusemix encode` fills."""

from __future__ import annotations

import json
import os
import pickle
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import ray
import torch
import typer
from fusemix_ray import cluster, encode, extraction, fusemix_commands
from fusemix_ray.job import Job, shared_environment
from fusemix_ray.worker import Worker, load
from object_server import serving
from typer.testing import CliRunner

import fusemix_core
import fusemix_core.cli.app
from fusemix_core.errors import ArtefactError, ConfigError, DataError, FusemixError
from fusemix_core.interfaces import Encoder
from fusemix_core.latents.encoding import Encoding
from fusemix_core.runs.reporter import Reporter
from fusemix_core.specs import EncoderSpec

HERE = Path(__file__).parent
LETTERS = f"{HERE}/ray_toys.py:Letters"
README = HERE.parent / "README.md"


@pytest.fixture(scope="module")
def local_ray():
    """One for all: starting takes seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        # Ray's workers are niced to 15, so that other tests running beside them would starve them.
        patch.setenv("RAY_worker_niceness", "0")
        ray.init(
            num_cpus=2,
            include_dashboard=False,
            object_store_memory=100 << 20,
            log_to_driver=False,
            logging_level="ERROR",
        )
        yield
        ray.shutdown()


def with_ray(test):
    return pytest.mark.slow(pytest.mark.usefixtures("local_ray")(test))


@pytest.fixture(autouse=True)
def few_items_a_shard(monkeypatch):
    monkeypatch.setattr(extraction, "shard_size", lambda items: 100)
    monkeypatch.setattr("fusemix_core.latents.extraction.shard_size", lambda items: 100)


@pytest.fixture(autouse=True)
def own_home(tmp_path, monkeypatch):
    monkeypatch.setenv("FUSEMIX_HOME", str(tmp_path / "home"))


@pytest.fixture
def in_process(monkeypatch):
    """Blocks are done in this process, where it matters what a worker does and not that Ray starts
    some, which takes seconds. Gives what Ray would have got for each extraction, pickled."""
    sent = []

    def texts(cluster, job, blocks, cells):
        sent.append(pickle.dumps((replace(job, attempts=""), cells)))
        worker = Worker(job, cells, cluster.given)
        for number in range(blocks):
            (text,) = worker({"block": np.array([number])})["report"]
            yield number, text

    monkeypatch.setattr(extraction._Cluster, "_texts", texts)
    return sent


@pytest.fixture
def loads(tmp_path, monkeypatch):
    """A line for each encoder that was loaded: process, key."""
    monkeypatch.setenv("FUSEMIX_LOADS", str(tmp_path / "loads"))
    monkeypatch.setenv("FUSEMIX_TEST_KEY", "secret")
    return lambda: [line.split() for line in (tmp_path / "loads").read_text().splitlines()]


def manifest(folder: Path, texts: list[str]) -> dict:
    path = folder / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": t}) + "\n" for t in texts))
    return {"source": [str(path)], "max_bad": 1.0}


def texts(n: int, start: int = 0) -> list[str]:
    return [f"text {i} " + "word " * (i * 7919 % 12) for i in range(start, start + n)]


def shards(home: Path) -> dict[str, bytes]:
    """What the store under `home` holds, by path."""
    folder = home / "latents"
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*.safetensors")}


def use_home(monkeypatch, path: Path) -> Path:
    monkeypatch.setenv("FUSEMIX_HOME", str(path))
    return path


class Log(Reporter):
    def __init__(self):
        self.seen, self.notes = [], []

    def encoding(self, name, done, total):
        self.seen.append((done, total))

    def note(self, text):
        self.notes.append(text)


@with_ray
def test_two_workers_of_which_one_is_killed_leave_the_store_that_one_machine_leaves(
    tmp_path, monkeypatch, loads
):
    mark = tmp_path / "killed"
    data = manifest(tmp_path, [*texts(230), f"deadly {mark}", *texts(99, start=230)])
    many = use_home(monkeypatch, tmp_path / "many")
    log = Log()
    got = encode({"text": LETTERS}, data, encode_batch=16, workers=2, reporter=log)
    assert mark.exists(), "a worker was killed at its third block of four"
    assert got.extractions["text"].encoded == 330
    assert log.seen[0] == (0, 330) and log.seen[-1] == (330, 330) and len(log.seen) == 5
    workers = loads()
    assert 2 <= len(workers) <= 3, "an encoder is loaded once a worker, not once a block"
    assert all(pid != str(os.getpid()) and key == "secret" for pid, key in workers)
    (note,) = [note for note in log.notes if "rows seen" not in note]
    assert re.search(r"of (100|30) text items are longer", note) and "4 blocks" in note

    one = use_home(monkeypatch, tmp_path / "one")
    wanted = fusemix_core.encode({"text": LETTERS}, data, encode_batch=16)
    assert len(shards(many)) == 4 and shards(many) == shards(one)
    rows = torch.arange(330)
    assert torch.equal(got.tables["text"].rows(rows), wanted.tables["text"].rows(rows))
    assert not list(many.glob(".ray-*")), "the table of items is gone"

    use_home(monkeypatch, many)
    again = encode({"text": LETTERS}, data, encode_batch=16, workers=2)
    assert (again.extractions["text"].encoded, again.extractions["text"].cached) == (0, 330)
    assert len(loads()) == len(workers) + 1, "the one machine's"


@with_ray
def test_only_what_is_missing_is_encoded_and_bad_items_are_told_with_their_reason(
    tmp_path, monkeypatch, loads, in_process
):
    home = use_home(monkeypatch, tmp_path / "home")
    fusemix_core.encode({"text": LETTERS}, manifest(tmp_path, texts(50)))
    mixed = [*texts(150), *(f"bad {i}" for i in range(120)), *texts(50, start=150)]
    data = manifest(tmp_path, mixed)
    got = encode({"text": LETTERS}, data, workers=1)
    done = got.extractions["text"]
    assert (done.encoded, done.cached) == (150, 50)
    assert done.bad == dict.fromkeys(range(150, 270), "ValueError: a bad text")
    assert {r.reason for r in got.dataset.rejected} == {"ValueError: a bad text"}
    assert len(got.dataset) == 200 and shards(home)

    wanted = fusemix_core.encode({"text": LETTERS}, data)
    rows = torch.arange(320)
    assert torch.equal(got.tables["text"].rows(rows), wanted.tables["text"].rows(rows))

    # Now no block has an item that can be read, and more are bad than may be.
    with pytest.raises(DataError, match="120 of 320 rows .*can't be used"):
        encode({"text": LETTERS}, {**data, "max_bad": 0.1}, workers=1)


@with_ray
@pytest.mark.parametrize("lives", [1, pytest.param(2, marks=pytest.mark.long)])
def test_a_block_that_kills_every_worker_ends_the_run(tmp_path, loads, monkeypatch, lives):
    monkeypatch.setattr(extraction, "_LIVES", lives)
    data = manifest(tmp_path, ["deadly", *texts(20)])
    said = f"21 text items .* 'deadly' killed its worker {lives} times"
    with pytest.raises(FusemixError, match=said):
        encode({"text": LETTERS}, data, workers=1)
    assert len(loads()) == lives and not list((tmp_path / "home").glob(".ray-*"))


@with_ray
def test_an_encoder_that_only_loading_can_tell(tmp_path, monkeypatch, loads, in_process):
    data = manifest(tmp_path, texts(120))
    one = use_home(monkeypatch, tmp_path / "one")
    digested = LETTERS.replace("Letters", "Digested")
    fusemix_core.encode({"text": digested}, data)
    many = use_home(monkeypatch, tmp_path / "many")
    encode({"text": digested}, data, workers=1)
    assert shards(many) == shards(one)


@with_ray
def test_a_class_travels_by_itself_and_one_of_a_module_that_workers_lack_is_refused(
    tmp_path, monkeypatch
):
    class Ones(Encoder):
        spec = EncoderSpec(name="ones", modality="text", target="no:where", dim=4, sha256="ef" * 32)

        @classmethod
        def load(cls, spec, device, dtype):
            return cls()

        def collate(self, items):
            return len(items)

        def encode(self, batch, view="pooled"):
            return torch.ones(batch, 4)

    data = manifest(tmp_path, texts(5))
    got = encode({"text": Ones}, data, workers=1)
    assert torch.equal(got.tables["text"].rows(torch.arange(5)), torch.ones(5, 4))

    with pytest.raises(ConfigError, match="is a loaded object, which can't be sent"):
        encode({"text": Ones()}, data)

    (tmp_path / "elsewhere.py").write_text("class Mine: pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import elsewhere

    class Theirs(Ones):
        spec = EncoderSpec(name="theirs", modality="text", target="no:where", dim=4)
        mine = elsewhere.Mine

    with pytest.raises(ConfigError, match="class of theirs can't be imported: .*elsewhere"):
        encode({"text": Theirs}, data, workers=1)


@with_ray
def test_what_ray_gets_does_not_grow_with_the_items(tmp_path, loads, in_process):
    (tmp_path / "few").mkdir()
    for count, folder in ((30, tmp_path / "few"), (930, tmp_path)):
        encode({"text": LETTERS}, manifest(folder, texts(count)), workers=2)
    few, many = in_process
    assert len(few) == len(many) < 10_000


@with_ray
def test_an_object_store_is_filled_as_one_machine_fills_it(
    tmp_path, monkeypatch, loads, in_process
):
    data = manifest(tmp_path, texts(230))
    with serving() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        url = server.bucket("ray")
        got = encode({"text": LETTERS}, data, workers=2, store=f"{url}/many")
        wanted = fusemix_core.encode({"text": LETTERS}, data, store=f"{url}/one")
        assert server.objects(f"{url}/many") == server.objects(f"{url}/one")
        assert len(server.objects(f"{url}/one")) == 4
    rows = torch.arange(230)
    assert torch.equal(got.tables["text"].rows(rows), wanted.tables["text"].rows(rows))
    spec = EncoderSpec(name="x", modality="text", target="a:B")
    shown, secrets = shared_environment(spec, "/shared", objects=True)
    assert set(server.environment) <= set(secrets) and not set(shown) & set(secrets)
    assert not set(server.environment) & {*shared_environment(spec, "/shared")[1]}


def test_a_file_that_a_worker_does_not_see_is_refused(tmp_path):
    spec = EncoderSpec(name="./toy.py:Toy", modality="text", target="fusemix_user_toy:Toy")
    how, file = Encoding(), str(tmp_path / "toy.py")
    job = Job(spec, how, "pooled", 100, "", file, str(tmp_path), 1, {})
    with pytest.raises(ConfigError, match=r"toy.py, which contains ./toy.py:Toy, does not exist"):
        load(job)


@with_ray
def test_another_version_of_the_encoder_is_refused(tmp_path, monkeypatch, loads, in_process):
    toy = tmp_path / "toy.py"
    toy.write_text((HERE / "ray_toys.py").read_text())
    data = manifest(tmp_path, texts(5))
    real = extraction.fingerprint

    def then_changed(*args):
        known = real(*args)
        toy.write_text(toy.read_text() + "# changed\n")
        return known

    monkeypatch.setattr(extraction, "fingerprint", then_changed)
    with pytest.raises(ArtefactError, match="is not the same encoder on this machine"):
        encode({"text": f"{toy}:Letters"}, data, workers=1)


@with_ray
def test_a_store_that_a_machine_does_not_see_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(cluster.uuid, "uuid4", lambda: type("U", (), {"hex": "x"}))
    real = Path.touch

    def elsewhere(path, *args, **kwargs):
        if not path.name.startswith(".ray-"):
            real(path, *args, **kwargs)

    monkeypatch.setattr(Path, "touch", elsewhere)
    with pytest.raises(ArtefactError, match="is not seen by"):
        cluster.check_machines(tmp_path / "home")


# -- the layout of workers -------------------------------------------------------------------------


def node(cpus: float, gpus: float = 0, alive: bool = True) -> dict:
    return {"Alive": alive, "Resources": {"CPU": cpus, "GPU": gpus}}


@pytest.mark.parametrize(
    ("nodes", "workers", "gpus", "layout"),
    [
        ([node(8), node(4)], None, None, (2, 4, 0)),  # one a machine, as wide as the narrower
        ([node(8), node(8)], 4, None, (4, 4, 0)),
        ([node(16, 4), node(16, 4), node(2)], None, None, (8, 4, 1)),  # the head is left out
        ([node(16, 4)], None, 0.5, (8, 2, 0.5)),
        ([node(16, 4)], None, 0, (1, 16, 0)),
        ([node(16, 4)], 2, 2, (2, 8, 2)),
        ([node(8), node(64, 8, alive=False)], None, None, (1, 8, 0)),
    ],
)
def test_workers_are_laid_out_on_the_machines(nodes, workers, gpus, layout):
    assert cluster.lay_out(nodes, workers, gpus) == cluster.Layout(*layout)


def test_what_the_cluster_has_no_room_for_is_refused():
    with pytest.raises(ConfigError, match="No machine .* has 1 GPUs to give"):
        cluster.lay_out([node(8)], None, 1)
    with pytest.raises(ConfigError, match="room for 4 workers, not 5"):
        cluster.lay_out([node(16, 4)], 5, 1)
    with pytest.raises(ConfigError, match="1 or more"):
        cluster.lay_out([node(8)], 0, None)


def test_keys_do_not_go_where_ray_shows_them(monkeypatch):
    spec = EncoderSpec(name="x", modality="text", target="a:B", environment=("OPENAI_PASS",))
    for name in ("FUSEMIX_KEY_HOST", "FUSEMIX_PLUGINS", "OPENAI_PASS", "HF_TOKEN", "OTHER"):
        monkeypatch.setenv(name, f"its {name}")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    shown, secrets = shared_environment(spec, "/shared")
    assert set(secrets) == {"FUSEMIX_KEY_HOST", "OPENAI_PASS", "HF_TOKEN"}
    assert shown["HF_HUB_OFFLINE"] == "1" and shown["FUSEMIX_HOME"] == "/shared"
    assert "FUSEMIX_PLUGINS" in shown and "OTHER" not in shown and not set(shown) & set(secrets)


# -- the command -----------------------------------------------------------------------------------


def run(*arguments: str):
    app = typer.Typer()
    app.callback()(lambda: None)
    fusemix_commands(app)
    return CliRunner().invoke(app, ["ray-encode", *arguments], env={"COLUMNS": "200"})


@with_ray
def test_the_command_says_what_it_did(tmp_path, loads, in_process):
    manifest(tmp_path, [*texts(150), "bad 1"])
    arguments = ["-e", f"text={LETTERS}", "-d", str(tmp_path / "texts.jsonl"), "--json"]
    planned = run(*arguments, "--dry-run")
    assert json.loads(planned.stdout)[0]["missing"] == 151, planned.output
    done = run(*arguments, "--workers", "2", "--gpus-per-worker", "0")
    assert done.exit_code == 0, done.output
    (row,) = json.loads(done.stdout)
    assert (row["items"], row["encoded"], row["cached"], row["bad"]) == (151, 150, 0, 1)
    assert isinstance(run("-d", "x").exception, ConfigError)


def test_help_has_examples_and_readme_is_held_to_it():
    text = run("--help").output
    assert "fusemix ray-encode --a dinov2" in text
    readme = README.read_text()
    shown = set(re.findall(r"--[a-z-]+", text))
    own = set(re.findall(r"^\| `(--[a-z-]+)", readme, re.MULTILINE))
    encode_help = CliRunner().invoke(
        fusemix_core.cli.app.app, ["encode", "--help"], env={"COLUMNS": "200"}
    )
    theirs = set(re.findall(r"--[a-z-]+", encode_help.output))
    assert own == shown - theirs, "README's table has the options that are not those of encode"
    assert theirs - shown == {"--device"}, "README says so"
    for line in re.findall(r"^fusemix ray-encode (.*)$", readme, re.MULTILINE):
        assert set(re.findall(r"--[a-z-]+", line)) <= shown


def test_listing_imports_neither_ray_nor_torch():
    code = (
        "import sys; from fusemix_core.registry import registry; from fusemix_core.cli.app import "
        "app; from fusemix_core.cli.plugins_app import add_plugin_commands; "
        "add_plugin_commands(app, registry)\n"
        "(mine,) = [p for p in registry.plugins if p.dist == 'fusemix-ray']\n"
        "assert not mine.error\n"
        "assert 'ray-encode' in [c.name for c in app.registered_commands]\n"
        "assert not {'ray', 'torch', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
