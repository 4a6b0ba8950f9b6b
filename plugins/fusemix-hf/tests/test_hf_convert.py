"""`fusemix convert-weights`: .bin in, the same model as safetensors out, nothing run."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
import typer
from fusemix_hf import fusemix_commands
from fusemix_hf.convert import convert, source_of
from fusemix_hf.tiny import tiny_text
from safetensors.torch import load_file
from typer.testing import CliRunner

from fusemix_core.errors import ArtefactError, ConfigError, RunExistsError
from fusemix_core.registry import Registry
from fusemix_core.specs import EncoderSpec


@pytest.fixture(scope="module")
def ready(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("ready")
    for part in tiny_text():
        part.save_pretrained(folder)
    return folder


@pytest.fixture
def pickled(ready, tmp_path) -> Path:
    """The model as an older repository has it, with things that must not be copied."""
    folder = tmp_path / "pickled"
    shutil.copytree(ready, folder)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    (folder / "modeling_evil.py").write_text("raise SystemExit('ran')")
    (folder / "training_args.bin").write_bytes(b"a pickle")
    return folder


def run(*arguments: str):
    app = typer.Typer()
    app.callback()(lambda: None)
    fusemix_commands(app)
    return CliRunner().invoke(app, ["convert-weights", *arguments])


def test_the_command_writes_a_folder_that_loads(pickled, ready, tmp_path, load, texts):
    done = run(f"hf:mine@{pickled}", str(tmp_path / "new"))
    assert done.exit_code == 0, done.output
    name = done.output.splitlines()[0]
    assert name == f"hf:mine@{tmp_path / 'new'}"
    got, wanted = load(tmp_path / "new"), load(ready)
    batch = wanted.collate(texts)
    assert torch.equal(got.encode(batch), wanted.encode(batch))
    held = {path.name for path in (tmp_path / "new").iterdir()}
    assert held == {path.name for path in ready.iterdir()}


def test_help_has_an_example():
    assert "fusemix convert-weights hf:" in run("--help").output


def test_from_the_hub_at_its_pinned_revision(pickled, hub, tmp_path):
    folder = hub(pickled)
    registry = Registry(entry_points=lambda: [])
    spec = {"modality": "text", "target": "a:B", "revision": folder.name}
    registry.add(EncoderSpec(name="old", weights="org/name", **spec))
    for name, base in (
        ("old", "old"),
        ("hf:org/name", "hf:org/name"),
        (f"hf:org/name:{folder.name}", "hf:org/name"),
    ):
        assert source_of(name, registry) == (base, folder)
    assert (convert(folder, tmp_path / "new") / "model.safetensors").is_file()


def test_shards_and_tied_weights(pickled, tmp_path, load, texts, ready):
    state = torch.load(pickled / "pytorch_model.bin", weights_only=True)
    state["tied"] = state["embeddings.word_embeddings.weight"]
    names = sorted(state)
    parts = {"1": names[:20], "2": names[20:]}
    index = {"metadata": {"total_size": 1}, "weight_map": {}}
    for part, held in parts.items():
        file = f"pytorch_model-0000{part}-of-00002.bin"
        torch.save({n: state[n] for n in held}, pickled / file)
        index["weight_map"] |= dict.fromkeys(held, file)
    (pickled / "pytorch_model.bin").unlink()
    (pickled / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    folder = convert(pickled, tmp_path / "new")
    assert sorted(p.name for p in folder.glob("model*")) == [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
    ]
    assert not list(folder.glob("pytorch*"))
    got, wanted = load(folder), load(ready)
    batch = wanted.collate(texts)
    assert torch.equal(got.encode(batch), wanted.encode(batch))


def test_modules_in_folders_of_their_own(pickled, tmp_path):
    """As sentence-transformers' Dense."""
    dense = pickled / "2_Dense"
    dense.mkdir()
    torch.save({"linear.weight": torch.ones(2, 2)}, dense / "pytorch_model.bin")
    (dense / "config.json").write_text("{}")
    folder = convert(pickled, tmp_path / "new")
    assert load_file(folder / "2_Dense" / "model.safetensors")["linear.weight"].sum() == 4
    assert (folder / "2_Dense" / "config.json").is_file()


class Trap:
    """Runs code when unpickled by a careless loader."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


@pytest.mark.parametrize("kind", ["code", "garbage", "not a table"])
def test_what_is_more_than_tensors_is_refused_and_leaves_nothing(pickled, tmp_path, kind):
    file = pickled / "pytorch_model.bin"
    if kind == "code":
        torch.save({"a": Trap(tmp_path / "sprung")}, file)
    elif kind == "garbage":
        file.write_bytes(b"PK no weights")
    else:
        torch.save({"a": torch.zeros(1), "step": 3}, file)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ArtefactError, match="can't be read as weights|not a table of tensors"):
        convert(pickled, tmp_path / "new")
    assert sorted(tmp_path.iterdir()) == before


def test_a_folder_that_holds_something_is_left_alone(pickled, tmp_path):
    (tmp_path / "new").mkdir()
    convert(pickled, tmp_path / "new")  # an empty one is taken
    with pytest.raises(RunExistsError, match="exists already"):
        convert(pickled, tmp_path / "new")
    with pytest.raises(ConfigError, match="lies in"):
        convert(pickled, pickled / "new")


def test_what_needs_no_conversion_or_has_no_hub(ready, tmp_path):
    with pytest.raises(ArtefactError, match=r"no pytorch_model\.bin") as error:
        convert(ready, tmp_path / "new")
    assert "use it as it is" in error.value.hint
    registry = Registry(entry_points=lambda: [])
    spec = {"modality": "text", "target": "a:B"}
    registry.add(EncoderSpec(name="packaged", weights="package/file", sha256="0" * 64, **spec))
    with pytest.raises(ConfigError, match="come from no hub"):
        source_of("packaged", registry)
    with pytest.raises(ArtefactError, match=r"no config\.json"):
        source_of(f"hf:mine@{tmp_path}")
