"""fusemix-diffusers: what a folder may name, and what is known of it without loading it."""

from __future__ import annotations

import json
import shutil

import pytest
from fusemix_diffusers import conditions
from fusemix_diffusers.files import Name, fetched, read_folder
from fusemix_diffusers.piped import PipedGenerator
from fusemix_diffusers.resolving import resolve

from fusemix_core.errors import ArtefactError, ConfigError
from fusemix_core.specs import GeneratorSpec, load_target


@pytest.fixture
def changed(stable, kandinsky, tmp_path):
    """A copy of a pipeline's folder, without weights, whose JSON file is changed."""

    def change(name, file="model_index.json", **values):
        source = kandinsky[0] if name == "kandinsky" else stable[name][0]
        folder = tmp_path / "copy"
        shutil.copytree(source, folder, ignore=shutil.ignore_patterns("diffusion_*", "model.*"))
        kept = json.loads((folder / file).read_text()) | values
        (folder / file).write_text(json.dumps(kept))
        return folder

    return change


@pytest.mark.parametrize(
    ("name", "values", "said"),
    [
        ("sd", {"unet": ["os", "system"]}, "os.system as unet"),
        ("sd", {"unet": ["diffusers", "FluxTransformer2DModel"]}, "FluxTransformer2DModel"),
        ("sd", {"vae": ["my_pipeline", "AutoencoderKL"]}, "my_pipeline.AutoencoderKL"),
        ("sd", {"extra": ["diffusers", "UNet2DConditionModel"]}, "as extra"),
        ("sd", {"unet": ["a", "b", "c"]}, "as unet"),
        ("sd", {"_class_name": ["pipeline.py", "Mine"]}, "can't be conditioned"),
        ("sd", {"_class_name": "FluxPipeline"}, "FluxPipeline, which can't be conditioned"),
        ("unclip", {"_class_name": "StableUnCLIPPipeline"}, "StableUnCLIPPipeline"),
        ("kandinsky", {"movq": ["diffusers", "AutoencoderKL"]}, "AutoencoderKL as movq"),
        (
            "kandinsky",
            {"scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"]},
            "FlowMatchEulerDiscreteScheduler as scheduler",
        ),
    ],
)
def test_classes_that_are_not_on_the_list_are_refused(changed, name, values, said):
    with pytest.raises(ArtefactError, match=said) as error:
        resolve("mine", None, changed(name, **values))
    assert error.value.hint


@pytest.mark.parametrize(
    ("file", "values", "said"),
    [
        ("unet/config.json", {"_class_name": "UNet3DConditionModel"}, "UNet3DConditionModel"),
        ("text_encoder/config.json", {"auto_map": {"AutoModel": "x.Y"}}, "code in the repository"),
    ],
)
def test_configs_of_other_classes_and_code_are_refused(changed, file, values, said):
    with pytest.raises(ArtefactError, match=said):
        resolve("mine", None, changed("sd", file, **values))


def test_loading_checks_again_before_diffusers_is_asked(changed, monkeypatch):
    """A folder may have changed since it was resolved."""
    folder = changed("sd", unet=["os", "system"])
    monkeypatch.setattr("fusemix_diffusers.piped.load_pipeline", None)
    spec = GeneratorSpec(name="x", target="a:B", space="s", weights=str(folder), local=True)
    with pytest.raises(ArtefactError, match=r"os\.system"):
        PipedGenerator.load(spec, None, None)


def test_pickled_weights_are_not_read(stable, tmp_path):
    import torch

    folder = tmp_path / "m"
    shutil.copytree(stable["sd"][0], folder)
    (folder / "unet/diffusion_pytorch_model.safetensors").unlink()
    torch.save({}, folder / "unet/diffusion_pytorch_model.bin")
    spec = resolve("mine", None, folder)
    with pytest.raises(ArtefactError, match="can't be loaded") as error:
        load_target(spec.target).load(spec, torch.device("cpu"), torch.float32)
    assert "Only safetensors" in error.value.hint


def test_a_folder_without_a_pipeline_and_damaged_files_are_refused(tmp_path):
    with pytest.raises(ArtefactError, match=r"no model_index\.json"):
        resolve("mine", None, tmp_path)
    (tmp_path / "model_index.json").write_text("[1]")
    with pytest.raises(ArtefactError, match="no JSON object"):
        resolve("mine", None, tmp_path)
    (tmp_path / "model_index.json").write_text("{")
    with pytest.raises(ArtefactError, match="is not JSON"):
        resolve("mine", None, tmp_path)


@pytest.mark.parametrize(
    ("name", "condition", "dim", "space", "view"),
    [
        ("sd", "tokens", 32, "condition:mine#text@", "tokens"),
        ("xl", "tokens", 64, "condition:mine#prompt@", "tokens"),
        ("sd#ip", "pooled", 24, "condition:mine#image@", "pooled"),
        ("xl#guidance", "guidance", None, "", "pooled"),
        ("unclip", "pooled", 24, "condition:mine#image@", "pooled"),
        ("kandinsky#image", "pooled", 16, "minilm", "pooled"),
    ],
)
def test_bridge_space_width_and_size_are_known_from_the_files(
    stable, kandinsky, name, condition, dim, space, view
):
    kind, _, part = name.partition("#")
    folder = kandinsky[0] if kind == "kandinsky" else stable[kind][0]
    spec = resolve(f"mine#{part}" if part else "mine", None, folder)
    assert (spec.condition, spec.dim, spec.view, spec.size) == (condition, dim, view, 16)
    assert spec.space.startswith(space)
    assert spec.norm == ("unit" if kind == "kandinsky" else "raw")
    assert spec.options["steps"] == (4 if kind == "kandinsky" else spec.options["steps"])


@pytest.mark.parametrize(
    ("name", "makes", "said"),
    [
        ("mine#song", None, "by 'song'"),
        ("mine#ip", None, "by 'ip'"),
        ("mine", "audio", "makes images"),
        ("#ip", None, "names no pipeline"),
        ("mine:", None, "names no pipeline"),
    ],
)
def test_names_that_mean_nothing_are_refused(kandinsky, name, makes, said):
    with pytest.raises(ConfigError, match=said):
        resolve(name, makes, kandinsky[0])


def test_a_name_has_a_repository_a_revision_and_a_part():
    assert Name.of("org/repo:abc#ip", "diffusers") == Name("org/repo", "abc", "ip")
    assert Name.of("org/repo", "diffusers") == Name("org/repo")


def test_a_folder_that_does_not_say_its_space_is_refused(kandinsky, tmp_path):
    folder = tmp_path / "m"
    shutil.copytree(kandinsky[0], folder)
    (folder / "generator.json").unlink()
    with pytest.raises(ArtefactError, match="which encoder's embeddings") as error:
        resolve("mine", None, folder)
    assert "generator.json" in error.value.hint
    (folder / "generator.json").write_text('{"space": "minilm", "spacing": 1}')
    with pytest.raises(ArtefactError, match="unknown key 'spacing'"):
        resolve("mine", None, folder)


@pytest.mark.parametrize("what", ["none", "two", "plus", "other"])
def test_ip_adapters_that_do_not_fit_are_refused(stable, tmp_path, what):
    import torch
    from fusemix_diffusers.adapter_file import adapter_file
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "m"
    shutil.copytree(stable["sd"][0], folder)
    file = adapter_file(folder)
    tensors = load_file(file)
    if what == "none":
        file.unlink()
    elif what == "two":
        shutil.copy(file, file.with_name("b.safetensors"))
    elif what == "plus":
        tensors = {k.replace("proj.weight", "latents"): v for k, v in tensors.items()}
        save_file(tensors, file)
    else:
        shutil.copy(next((stable["xl"][0] / "ip_adapter").iterdir()), file)
    wanted = {"none": "0 safe", "two": "2 safe", "plus": "no image vector", "other": "not fit"}
    with pytest.raises(ArtefactError, match=wanted[what]):
        spec = resolve("mine#ip", None, folder)
        load_target(spec.target).load(spec, torch.device("cpu"), torch.float32)


def test_a_hubs_pipeline_with_an_adapter_wants_a_folder(stable, monkeypatch):
    monkeypatch.setattr("fusemix_diffusers.resolving.fetched", lambda *a, **k: stable["sd"][0])
    with pytest.raises(ConfigError, match="copy of the pipeline on disk"):
        resolve("org/repo#ip")
    spec = resolve("org/repo:main")
    assert spec.revision == stable["sd"][0].name and spec.weights == "org/repo"
    assert spec.space == "condition:org/repo:main#text" and not spec.local


def test_kandinskys_decoder_is_conditioned_by_the_image_encoder_of_its_prior(
    kandinsky, monkeypatch, tmp_path
):
    folder = tmp_path / "commit"
    shutil.copytree(kandinsky[0], folder, ignore=shutil.ignore_patterns("generator.json"))
    monkeypatch.setattr("fusemix_diffusers.resolving.fetched", lambda *a, **k: folder)
    spec = resolve("kandinsky-community/kandinsky-2-2-decoder")
    assert spec.space == "condition:kandinsky-community/kandinsky-2-2-prior#image"
    assert (spec.norm, spec.revision, spec.dim) == ("raw", "commit", 16)


def test_only_texts_and_safetensors_of_the_components_are_fetched(stable, monkeypatch, tmp_path):
    import fnmatch

    snapshot = tmp_path / "c0ffee"
    shutil.copytree(stable["sd"][0], snapshot)
    asked = []
    monkeypatch.setattr(
        "huggingface_hub.hf_hub_download", lambda repo, file, revision: str(snapshot / file)
    )

    def download(repo, revision, allow_patterns):
        asked.append((repo, revision, allow_patterns))
        return str(snapshot)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert fetched("org/repo", "main", "mine") == snapshot
    [(repo, revision, patterns)] = asked
    assert (repo, revision) == ("org/repo", "c0ffee")
    taken = ["unet/config.json", "unet/diffusion_pytorch_model.safetensors", "tokenizer/merges.txt"]
    left = ["unet/diffusion_pytorch_model.bin", "v1-5-pruned.safetensors", "pipeline.py"]
    left += [
        "unet/model.py",
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "safety_checker/x.py",
    ]
    for file in (*taken, *left):
        assert any(fnmatch.fnmatch(file, p) for p in patterns) == (file in taken), file


def test_what_is_not_in_the_cache_can_not_be_had_offline():
    with pytest.raises(ArtefactError, match="can't be had"):
        resolve("nobody/nothing")
    with pytest.raises(ArtefactError, match="can't be had"):
        conditions.resolve("nobody/nothing")


def test_switched_off_components_are_left_out(stable):
    files = read_folder(stable["sd"][0], "mine")
    assert "safety_checker" not in files.components
