"""save_pretrained, from_pretrained, push_to_hub: what comes back, and what is left on the disk."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from fusemix_core.config import Part
from fusemix_core.errors import ArtefactError, ConfigError, ContractError
from fusemix_core.fused import FusedModel
from fusemix_core.interfaces import Adapter

ALL = ("image", "text", "audio")


def _load(toys, folder, **more):
    return FusedModel.from_pretrained(folder, registry=toys.registry, device="cpu", **more)


@pytest.mark.parametrize("modalities", [("image", "text"), ("text", "image"), ALL])
def test_a_round_trip_is_exact(toys, items, tmp_path, modalities):
    model = toys.model(modalities, scorer=toys.csls(modalities))
    model.save_pretrained(tmp_path / "model")
    loaded = _load(toys, tmp_path / "model")
    assert loaded.modalities == modalities and loaded.dim == model.dim == 4
    assert loaded.encoders == model.encoders and loaded.scorer_name == "csls"
    rows = {m: model.encode(m, items[m]) for m in modalities}
    for m in modalities:
        assert torch.equal(loaded.encode(m, items[m]), rows[m])
        for other in modalities:
            expected = model.similarity(rows[m], rows[other], m, other)
            assert torch.equal(loaded.similarity(rows[m], rows[other], m, other), expected)


def test_saving_what_was_loaded_gives_the_same_files(toys, tmp_path):
    toys.model(ALL, scorer=toys.csls(ALL), recipe={"name": "r"}).save_pretrained(tmp_path / "a")
    _load(toys, tmp_path / "a").save_pretrained(tmp_path / "b", name="a")
    for name in ("config.json", "model.safetensors", "README.md"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_the_config_holds_names_and_facts_only(toys, tmp_path):
    model = toys.model(
        scorer=toys.csls(),
        recipe={"name": "fusemix", "dim": 4},
        objective={"temperature": np.float32(0.5)},
        metrics={"test": {"mean_r1": torch.tensor(2.0), "map": math.nan}},
        data={"pairs": np.int64(7), "splits": ("train",)},
    )
    model.save_pretrained(tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config["format"] == 2 and config["kind"] == "fused"
    assert config["parts"]["adapter.image"] == {
        "name": "toy",
        "arguments": [5, 4],
        "options": {"hidden": 6, "power": 1.0},
        "dist": "",
        "tensors": {},
    }
    assert config["encoders"]["text"]["name"] == "toy-text"
    assert config["parts"]["scorer"]["tensors"] == {
        "bank.image": "float16 [16, 4]",
        "bank.text": "float16 [16, 4]",
    }
    assert config["objective"] == {"temperature": 0.5}
    assert config["metrics"] == {"test": {"mean_r1": 2.0, "map": None}}
    assert config["data"] == {"pairs": 7, "splits": ["train"]}
    assert sorted(safetensors.torch.load_file(tmp_path / "model" / "model.safetensors")) == sorted(
        [f"adapter.{m}.{k}" for m in ("image", "text") for k in toys.ToyAdapter(5, 4).state_dict()]
        + ["scorer.bank.image", "scorer.bank.text"]
    )
    loaded = _load(toys, tmp_path / "model")
    assert loaded.recipe == {"name": "fusemix", "dim": 4}
    assert loaded.metrics == config["metrics"] and loaded.data == config["data"]


def test_what_json_cannot_hold_is_refused_by_name(toys):
    with pytest.raises(ConfigError, match=r"data.labels\[1\] is a object"):
        toys.model(data={"labels": [1, object()]})


def test_loading_leaves_the_random_numbers_alone(toys, tmp_path):
    toys.model().save_pretrained(tmp_path / "model")
    state = torch.get_rng_state()
    _load(toys, tmp_path / "model").save_pretrained(tmp_path / "again")
    assert torch.equal(torch.get_rng_state(), state)


# -- adapters that could not be built again -------------------------------------------------------


def test_an_unregistered_adapter_is_refused(toys, tmp_path):
    class Stranger(toys.ToyAdapter):
        pass

    adapters = {"image": Stranger(5, 4), "text": toys.ToyAdapter(7, 4)}
    infos = {m: toys.info(m) for m in adapters}
    model = FusedModel(adapters, infos, toys.csls(), registry=toys.registry, device="cpu")
    with pytest.raises(ConfigError, match="Stranger is not registered as adapter"):
        model.save_pretrained(tmp_path / "model")
    assert not (tmp_path / "model").exists() and not list(tmp_path.iterdir())


@pytest.mark.parametrize("options", [{"hidden": 5}, {"power": 2.0}])
def test_a_part_that_builds_something_else_is_refused(toys, tmp_path, options):
    model = toys.model(adapter_parts=Part("toy", options))
    with pytest.raises(ContractError, match="rebuilt"):
        model.save_pretrained(tmp_path / "model")


def test_a_given_part_is_saved(toys, tmp_path):
    class Silent(toys.ToyAdapter):
        def __init__(self, dim_in, dim_out, *, hidden=6):
            super().__init__(dim_in, dim_out, hidden=hidden)
            del self.options

    toys.registry.add_component("adapter", "silent", Silent, hidden=6)
    adapters = {"image": Silent(5, 4, hidden=3), "text": Silent(7, 4)}
    infos = {m: toys.info(m) for m in adapters}
    model = FusedModel(
        adapters,
        infos,
        toys.csls(),
        adapter_parts={"image": Part("silent", {"hidden": 3})},
        registry=toys.registry,
        device="cpu",
    )
    model.save_pretrained(tmp_path / "model")
    rows = torch.randn(3, 5)
    loaded = _load(toys, tmp_path / "model")
    assert torch.equal(loaded.embed("image", rows), model.embed("image", rows))


def test_tied_and_strided_weights_are_saved(toys, tmp_path):
    class Tied(Adapter):
        def __init__(self, dim_in, dim_out):
            super().__init__()
            self.one = nn.Linear(dim_in, dim_out)
            self.two = nn.Linear(dim_in, dim_out)
            self.two.weight = self.one.weight
            self.one.bias.data = torch.arange(2.0 * dim_out)[::2]

        def forward(self, latents):
            return self.one(latents) + self.two(latents)

    toys.registry.add_component("adapter", "tied", Tied)
    adapters = {"image": Tied(5, 4), "text": Tied(7, 4)}
    infos = {m: toys.info(m) for m in adapters}
    model = FusedModel(adapters, infos, toys.csls(), registry=toys.registry, device="cpu")
    model.save_pretrained(tmp_path / "model")
    rows = torch.randn(3, 5)
    loaded = _load(toys, tmp_path / "model")
    assert torch.equal(loaded.embed("image", rows), model.embed("image", rows))


def test_modalities_must_be_fit_for_tensor_names(toys):
    infos = {"a.b": toys.info("image"), "text": toys.info("text")}
    adapters = {"a.b": toys.ToyAdapter(5, 4), "text": toys.ToyAdapter(7, 4)}
    with pytest.raises(ConfigError, match=r"'a\.b'"):
        FusedModel(adapters, infos, toys.csls(), registry=toys.registry, device="cpu")


# -- the folder -----------------------------------------------------------------------------------


def test_a_saved_model_is_replaced_whole(toys, tmp_path):
    folder = tmp_path / "new" / "model"
    toys.model(recipe={"name": "first"}).save_pretrained(folder)
    toys.model(ALL, recipe={"name": "second"}).save_pretrained(folder)
    assert _load(toys, folder).recipe == {"name": "second"}
    assert [p.name for p in folder.parent.iterdir()] == ["model"]
    loaded = _load(toys, folder)
    loaded.save_pretrained(folder)  # onto the file it was read from
    assert torch.equal(
        _load(toys, folder).embed("text", torch.ones(1, 7)), loaded.embed("text", torch.ones(1, 7))
    )


def test_a_folder_with_other_files_is_left_alone(toys, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ArtefactError, match=r"notes\.txt"):
        toys.model().save_pretrained(tmp_path)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ArtefactError, match="is a file"):
        toys.model().save_pretrained(tmp_path / "file")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "notes.txt"]


@pytest.mark.parametrize("at", ["save_file", "rename"])
def test_a_save_that_fails_leaves_the_old_model(toys, tmp_path, monkeypatch, at):
    folder = tmp_path / "model"
    toys.model(recipe={"name": "old"}).save_pretrained(folder)

    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    if at == "save_file":
        monkeypatch.setattr(safetensors.torch, "save_file", fail)
    else:
        rename = type(folder).rename
        monkeypatch.setattr(
            type(folder), "rename", lambda p, to: fail() if p.suffix == ".new" else rename(p, to)
        )
    with pytest.raises(ArtefactError, match="No space left"):
        toys.model(recipe={"name": "new"}).save_pretrained(folder)
    monkeypatch.undo()
    assert _load(toys, folder).recipe == {"name": "old"}
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_a_link_to_a_folder_stays_a_link(toys, tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    toys.model().save_pretrained(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "config.json").is_file()


# -- the hub --------------------------------------------------------------------------------------


def test_a_hub_model_is_fetched_at_its_revision(toys, tmp_path, monkeypatch):
    toys.model().save_pretrained(tmp_path / "model")
    asked = {}

    def snapshot_download(repo_id, **options):
        asked.update(options, repo_id=repo_id)
        return str(tmp_path / "model")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    assert _load(toys, "someone/model", revision="v1").dim == 4
    assert asked == {
        "repo_id": "someone/model",
        "revision": "v1",
        "allow_patterns": ["config.json", "model.safetensors", "README.md"],
    }


def test_a_hub_that_fails_is_an_artefact_error(toys, monkeypatch):
    def snapshot_download(*_, **__):
        raise ConnectionError("no route to host\nand more")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    with pytest.raises(ArtefactError, match="neither a folder here nor .* no route to host"):
        _load(toys, "someone/model")


@pytest.mark.parametrize("source", ["./none", "/none/at/all", "a/b/c", "~nobody/x", "-x", "a b"])
def test_a_path_that_is_no_folder_asks_no_hub(toys, tmp_path, monkeypatch, source):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.snapshot_download", None)
    (tmp_path / "file").write_text("")
    for given in (source, tmp_path / "file"):
        with pytest.raises(ArtefactError, match="is not a folder"):
            _load(toys, given)


def test_a_mistyped_run_is_not_looked_up_on_a_hub(toys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.snapshot_download", None)
    (tmp_path / "runs/first").mkdir(parents=True)
    with pytest.raises(ArtefactError, match="There is no run, model or index runs/fist") as raised:
        _load(toys, "runs/fist")
    assert "Did you mean runs/first?" in raised.value.hint
    with pytest.raises(ArtefactError, match="no run, model or index runs/other") as raised:
        _load(toys, "runs/other")
    assert "Look into runs/" in raised.value.hint


def test_a_folder_has_no_revision(toys, tmp_path):
    toys.model().save_pretrained(tmp_path / "model")
    with pytest.raises(ConfigError, match="no revision"):
        _load(toys, tmp_path / "model", revision="main")


@pytest.mark.parametrize(
    ("source", "hint"), [("nope", "Look into ./"), ("fist.index", "first.index")]
)
def test_a_name_without_a_folder_is_not_looked_up_on_a_hub(
    source, hint, toys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.snapshot_download", None)
    (tmp_path / "first.index").mkdir()
    with pytest.raises(ArtefactError, match=f"no run, model or index {source}") as raised:
        _load(toys, source)
    assert hint in raised.value.hint


def test_push_to_hub_uploads_the_three_files(toys, monkeypatch):
    seen = SimpleNamespace(calls=[], files={})

    class Api:
        def __init__(self, token=None):
            seen.calls.append(("token", token))

        def create_repo(self, repo_id, *, private, exist_ok):
            seen.calls.append(("create", repo_id, private, exist_ok))
            return f"https://huggingface.co/{repo_id}"

        def upload_folder(self, *, repo_id, folder_path, commit_message):
            seen.calls.append(("upload", repo_id))
            seen.files = {p.name: p.read_bytes() for p in folder_path.iterdir()}

    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    url = toys.model().push_to_hub("someone/model", private=True, token="t")
    assert url == "https://huggingface.co/someone/model"
    assert seen.calls == [
        ("token", "t"),
        ("create", "someone/model", True, True),
        ("upload", "someone/model"),
    ]
    assert sorted(seen.files) == ["README.md", "config.json", "model.safetensors"]
    assert b"from_pretrained('someone/model')" in seen.files["README.md"]


def test_a_push_that_is_refused_is_an_artefact_error(toys, monkeypatch):
    class Api:
        def __init__(self, token=None):
            raise PermissionError("401")

    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    with pytest.raises(ArtefactError, match="401") as error:
        toys.model().push_to_hub("someone/model")
    assert "hf auth login" in error.value.hint
