"""fusemix-hf: names, modalities from the files, pinned revisions, what is refused, fingerprints."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from fusemix_hf.files import Files
from fusemix_hf.resolving import modalities
from fusemix_hf.tiny import tiny_image, tiny_text
from safetensors.torch import load_file, save_file

from fusemix_core.errors import ArtefactError, ConfigError
from fusemix_core.latents.fingerprint import fingerprint

REVISION = "0123456789abcdef0123456789abcdef01234567"  # of conftest.py


@pytest.fixture(scope="module")
def bert(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("bert")
    for part in tiny_text():
        part.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def vit(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("vit")
    for part in tiny_image():
        part.save_pretrained(folder)
    return folder


# -- names and modalities --------------------------------------------------------------------------


def test_listing_and_resolving_import_nothing_heavy(vit):
    code = (
        "import sys, fusemix_hf as p; p.fusemix_encoders()\n"
        "from pathlib import Path\nfrom fusemix_hf.resolving import resolve\n"
        f"print(resolve('any', None, Path({str(vit)!r})).modality)\n"
        "heavy = ('torch', 'transformers', 'numpy', 'PIL', 'safetensors')\n"
        "print([m for m in heavy if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["image", "[]"]


@pytest.mark.parametrize(
    ("config", "processor", "tokenizer", "wanted"),
    [
        ({"model_type": "bert", "vocab_size": 9}, {}, {"model_max_length": 512}, ("text",)),
        ({"model_type": "gpt2", "vocab_size": 9}, {}, {}, ("text",)),
        ({"model_type": "vit"}, {"image_mean": [0.5]}, {}, ("image",)),
        # Older repositories call an image processor so too.
        ({}, {"feature_extractor_type": "ViTFeatureExtractor", "do_resize": True}, {}, ("image",)),
        ({"vocab_size": 32}, {"sampling_rate": 16000}, {"model_max_length": 9}, ("audio",)),
        ({"text_config": {}, "vision_config": {}}, {"image_mean": 1}, {}, ("text", "image")),
        ({"text_config": {}, "audio_config": {}}, {"sampling_rate": 1}, {}, ("text", "audio")),
        ({"model_type": "dinov2"}, {}, {}, ()),
    ],
)
def test_modalities_are_read_from_the_files(config, processor, tokenizer, wanted):
    assert modalities(Files(config, processor, tokenizer)) == wanted


@pytest.mark.parametrize(
    ("modality", "message", "hint"),
    [
        ("text", "reads image, not text", "-e image=hf:tiny"),
        ("video", "reads image, not video", "fusemix-video"),
    ],
)
def test_another_modality_than_the_files_is_refused(vit, registry, modality, message, hint):
    with pytest.raises(ConfigError, match=message) as error:
        registry.encoder(f"hf:tiny@{vit}", modality)
    assert hint in error.value.hint


def test_where_nothing_tells_the_user_must(vit, registry, tmp_path):
    shutil.copy(vit / "config.json", tmp_path)
    with pytest.raises(ConfigError, match="Nothing in hf:tiny tells") as error:
        registry.encoder(f"hf:tiny@{tmp_path}")
    assert "-e image=hf:tiny" in error.value.hint
    assert registry.encoder(f"hf:tiny@{tmp_path}", "image").takes == "image"


@pytest.mark.parametrize("name", ["hf:", "hf: ", "hf::main", "hf:org/name:"])
def test_a_name_without_a_model_or_revision_is_a_config_error(registry, name):
    with pytest.raises(ConfigError, match="names no"):
        registry.encoder(name)


def test_a_folder_without_a_model_is_refused(registry, tmp_path):
    with pytest.raises(ArtefactError, match=r"no config\.json"):
        registry.encoder(f"hf:tiny@{tmp_path}")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ArtefactError, match="is not JSON"):
        registry.encoder(f"hf:tiny@{tmp_path}")


# -- the hub, by its cache on disk -----------------------------------------------------------------


def test_a_name_is_pinned_to_the_commit_in_the_cache(bert, hub, load):
    hub(bert)
    encoder = load("hf:org/name")
    spec = encoder.spec
    assert (spec.weights, spec.revision) == ("org/name", REVISION)
    assert (spec.modality, spec.dim, spec.max_tokens) == ("text", 32, 48)
    assert fingerprint(spec, "float32") is not None
    model, tokenizer = tiny_text()
    with torch.no_grad():
        own = model.eval()(**tokenizer("a text", return_tensors="pt")).last_hidden_state.mean(1)
    torch.testing.assert_close(encoder.encode(encoder.collate(["a text"])), own)


def test_the_user_may_pin_a_revision(vit, hub, registry):
    hub(vit, branch=False)
    spec = registry.encoder(f"hf:org/name:{REVISION}")
    assert (spec.name, spec.revision) == (f"hf:org/name:{REVISION}", REVISION)
    assert spec.weights == "org/name"
    with pytest.raises(ArtefactError, match="hf:org/name can't be had") as error:
        registry.encoder("hf:org/name")
    assert "hf:org/name@FOLDER" in error.value.hint


def test_only_pickled_weights_say_how_to_convert_them(bert, hub, load):
    folder = hub(bert)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    for source, name in (("hf:org/name", "hf:org/name"), (folder, f"hf:tiny@{folder}")):
        with pytest.raises(ArtefactError, match="are pickled") as error:
            load(source)
        assert error.value.hint.endswith(f"fusemix convert-weights {name} FOLDER")


# -- what is refused -------------------------------------------------------------------------------


def test_code_of_a_repository_is_not_run_unasked(bert, tmp_path, load):
    folder = tmp_path / "m"
    shutil.copytree(bert, folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "evil", "auto_map": {"AutoConfig": "evil.C", "AutoModel": "evil.M"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "evil.py").write_text("raise SystemExit('ran')")
    with pytest.raises(ArtefactError, match="needs Python code .* not run unasked") as error:
        load(folder, "text")
    assert f"--trust-remote-code {folder}" in error.value.hint


@pytest.mark.parametrize("fault", ["missing", "shape", "garbage"])
def test_weights_that_do_not_fit_are_refused(vit, tmp_path, load, fault):
    folder = tmp_path / "m"
    shutil.copytree(vit, folder)
    file = folder / "model.safetensors"
    state = load_file(file)
    name = next(n for n in state if n.endswith("query.weight"))
    if fault == "missing":
        del state[name]
    elif fault == "shape":
        state[name] = torch.zeros(3, 3)
    save_file(state, file, metadata={"format": "pt"})
    if fault == "garbage":
        file.write_bytes(b"not weights")
    with pytest.raises(ArtefactError):
        load(folder)


def test_a_model_that_fails_on_any_item_is_refused_at_once(vit, tmp_path, load):
    """Here for pictures of another size than it takes."""
    folder = tmp_path / "m"
    shutil.copytree(vit, folder)
    (folder / "preprocessor_config.json").write_text(
        json.dumps({"image_processor_type": "ViTImageProcessor", "size": {"height": 8, "width": 8}})
    )
    with pytest.raises(ArtefactError, match="can't be used as it is: ViTModel.forward fails"):
        load(folder)


def test_fingerprint_follows_the_weights(vit, registry, tmp_path, monkeypatch):
    monkeypatch.setenv("FUSEMIX_HOME", str(tmp_path / "home"))
    first = fingerprint(registry.encoder(f"hf:tiny@{vit}"), "float32")
    folder = tmp_path / "m"
    shutil.copytree(vit, folder)
    assert fingerprint(registry.encoder(f"hf:tiny@{folder}"), "float32") == first
    state = load_file(folder / "model.safetensors")
    state = {name: value + 1 for name, value in state.items()}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    assert fingerprint(registry.encoder(f"hf:tiny@{folder}"), "float32") != first
