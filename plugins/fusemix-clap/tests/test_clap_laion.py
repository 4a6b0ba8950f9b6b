"""fusemix-clap[laion]: the guard around the import, and checkpoints; with a stand-in for LAION's
package that reaches for the hub as it does, and with the real one although it is installed."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
import pickle
import socket
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fusemix_clap import LAION
from fusemix_clap.laion import LaionAudioEncoder, LaionTextEncoder, read_state
from fusemix_clap.laion_package import build, import_laion, offline
from fusemix_clap.text import byte_tokenizer
from huggingface_hub import constants
from transformers import BartTokenizer, BertTokenizer, RobertaModel, RobertaTokenizer

from fusemix_core.data.media import Audio
from fusemix_core.errors import ArtefactError, ConfigError, MissingDependencyError
from fusemix_core.project import how_to_install

CPU = torch.device("cpu")
AUDIO, TEXT = LAION
REAL = importlib.util.find_spec("laion_clap") is not None
COMMIT = "0" * 40

STAND_IN = {
    "laion_clap/__init__.py": """
import logging, os, sys, warnings
from transformers import BartTokenizer, BertTokenizer, RobertaTokenizer
BertTokenizer.from_pretrained("bert-base-uncased")
RobertaTokenizer.from_pretrained("roberta-base")
BartTokenizer.from_pretrained("facebook/bart-base")
sys.path.append(os.path.dirname(__file__))
os.environ["LAION_WAS"] = "here"
os.environ.pop("LAION_NOT", None)
logging.info("adds a handler to the root logger")
warnings.simplefilter("always")
OFFLINE = os.environ["HF_HUB_OFFLINE"]
from clap_module.model import CLAP

class CLAP_Module:
    def __init__(self, enable_fusion, device, amodel):
        self.model = CLAP()
        self.tokenize = RobertaTokenizer.from_pretrained("roberta-base")
""",
    "laion_clap/clap_module/__init__.py": "",
    "laion_clap/clap_module/model.py": """
import torch
from transformers import RobertaModel

class CLAP(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.text_branch = RobertaModel.from_pretrained("roberta-base")
        self.audio_branch = torch.nn.Module()
        self.audio_branch.patch_embed = torch.nn.Module()
        self.audio_branch.patch_embed.proj = torch.nn.Conv2d(1, 96, 4)
""",
}
SMALL = {"vocab_size": 300, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("reached for the network")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


@pytest.fixture
def stand_in(tmp_path, monkeypatch) -> Path:
    """The stand-in installed in place of the package; its folder."""
    for name, code in STAND_IN.items():
        file = tmp_path / "site" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    loaded = [m for m in sys.modules if m.partition(".")[0] in ("laion_clap", "clap_module")]
    for module in loaded:
        monkeypatch.delitem(sys.modules, module)
    yield tmp_path
    for module in [m for m in sys.modules if m.partition(".")[0] in ("laion_clap", "clap_module")]:
        del sys.modules[module]


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """An empty hub cache."""
    folder = tmp_path / "hub"
    folder.mkdir()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
    return folder


def fill(cache: Path, *names: str) -> None:
    """Put small tokenizers in the cache, as if they had been downloaded."""
    vocabulary = byte_tokenizer().get_vocab()
    words = {w: i for i, w in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a"])}
    tokenizers = {
        "bert-base-uncased": BertTokenizer(vocab=words),
        "roberta-base": RobertaTokenizer(vocab=vocabulary, merges=[]),
        "facebook/bart-base": BartTokenizer(vocab=vocabulary, merges=[]),
    }
    for name in names or tokenizers:
        repository = cache / f"models--{name.replace('/', '--')}"
        (repository / "refs").mkdir(parents=True)
        (repository / "refs" / "main").write_text(COMMIT)
        tokenizers[name].save_pretrained(repository / "snapshots" / COMMIT)


def local(spec, path: Path):
    return replace(spec, weights=str(path), local=True)


# -- the import ------------------------------------------------------------------------------------


def test_without_the_package_the_hint_is_the_pip_line():
    if REAL:
        pytest.skip("laion-clap is installed")
    with pytest.raises(MissingDependencyError) as error:
        AUDIO.check_requirements()
    assert error.value.hint == how_to_install("fusemix-clap[laion]")


def test_tokenizers_that_are_not_cached_are_named_before_anything_is_imported(stand_in, cache):
    fill(cache, "roberta-base")
    with pytest.raises(ArtefactError) as error:
        import_laion()
    assert "not in the hub's cache: bert-base-uncased, facebook/bart-base" in error.value.message
    assert error.value.hint.count("hf download ") == 2
    assert "hf download facebook/bart-base --include" in error.value.hint
    assert "laion_clap" not in sys.modules


def test_the_import_is_offline_and_leaves_nothing_behind(stand_in, cache, monkeypatch):
    fill(cache)
    monkeypatch.setenv("LAION_NOT", "kept")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    path, environment = list(sys.path), dict(os.environ)
    handlers, filters = list(logging.getLogger().handlers), list(warnings.filters)
    laion = import_laion()
    assert laion.OFFLINE == "1"
    assert (sys.path, dict(os.environ)) == (path, environment)
    assert logging.getLogger().handlers == handlers and warnings.filters == filters
    assert constants.HF_HUB_OFFLINE is False
    assert import_laion() is laion


def test_offline_is_undone_after_an_error(monkeypatch):
    monkeypatch.setenv("TRANSFORMERS_OFFLINE", "0")
    with pytest.raises(RuntimeError), offline():
        assert constants.HF_HUB_OFFLINE and os.environ["TRANSFORMERS_OFFLINE"] == "1"
        raise RuntimeError
    assert constants.HF_HUB_OFFLINE is False and os.environ["TRANSFORMERS_OFFLINE"] == "0"


def test_a_model_is_built_without_robertas_weights(stand_in, cache, monkeypatch):
    fill(cache)
    monkeypatch.setattr("fusemix_clap.laion_package.ROBERTA_BASE", SMALL)
    model, tokenizer = build("HTSAT-tiny", fusion=False)
    assert model.text_branch.config.vocab_size == 300 and tokenizer("a")["input_ids"]
    assert sys.modules["clap_module.model"].RobertaModel is RobertaModel


def test_listing_does_not_import_it(stand_in):
    code = (
        "import sys, fusemix_clap; fusemix_clap.fusemix_encoders(); "
        "print('laion_clap' in sys.modules)"
    )
    env = {**os.environ, "PYTHONPATH": str(stand_in / "site")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert done.stdout.strip() == "False"


# -- checkpoints -----------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", LAION, ids=lambda s: s.name)
def test_a_checkpoint_must_be_given(spec):
    target = {"audio": LaionAudioEncoder, "text": LaionTextEncoder}[spec.modality]
    with pytest.raises(ConfigError, match="needs a checkpoint") as error:
        target.load(spec, CPU, torch.float32)
    assert f"{spec.name}@630k-audioset-best.pt" in error.value.hint


def test_half_precision_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="float32 only"):
        LaionAudioEncoder.load(local(AUDIO, tmp_path / "a.pt"), CPU, torch.bfloat16)


def test_a_checkpoint_is_read_with_numpys_numbers_in_it(tmp_path):
    path = tmp_path / "checkpoint.pt"
    state = {
        "module.audio_branch.x": torch.ones(2),
        "module.text_branch.embeddings.position_ids": torch.arange(3),
    }
    numbers = {"epoch": np.int64(3), "best": np.float64(0.5), "rate": np.float32(1)}
    torch.save({"state_dict": state, "optimizer": {"lr": 0.1}, **numbers}, path)
    assert list(read_state(path)) == ["audio_branch.x"]


class Trap:
    """Runs code when unpickled by a careless loader."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


def test_pickled_code_is_refused_and_not_run(tmp_path):
    path = tmp_path / "checkpoint.pt"
    torch.save({"state_dict": {}, "epoch": Trap(tmp_path / "sprung")}, path)
    with pytest.raises(ArtefactError, match="can't be read as a checkpoint"):
        read_state(path)
    path.write_bytes(pickle.dumps(Trap(tmp_path / "sprung"), protocol=2))
    with pytest.raises(ArtefactError, match="can't be read as a checkpoint"):
        read_state(path)
    assert not (tmp_path / "sprung").exists()


def test_another_checkpoint_is_refused_before_the_package_is_imported(tmp_path):
    path = tmp_path / "checkpoint.pt"
    torch.save({"state_dict": {"encoder.weight": torch.ones(1)}}, path)
    with pytest.raises(ArtefactError, match="is not a CLAP checkpoint of LAION's") as error:
        LaionAudioEncoder.load(local(AUDIO, path), CPU, torch.float32)
    assert "encoder.weight" in error.value.hint


def test_weights_that_do_not_fit_are_refused(stand_in, cache, tmp_path, monkeypatch):
    fill(cache)
    monkeypatch.setattr("fusemix_clap.laion_package.ROBERTA_BASE", SMALL)
    path = tmp_path / "checkpoint.pt"
    model, _ = build("HTSAT-tiny", fusion=False)
    state = model.state_dict()
    del state["audio_branch.patch_embed.proj.bias"]
    torch.save({"state_dict": state}, path)
    with pytest.raises(ArtefactError, match=r"(?s)do not fit LAION's HTSAT-tiny .*proj\.bias"):
        LaionTextEncoder.load(local(TEXT, path), CPU, torch.float32)


@pytest.mark.parametrize("spec", LAION, ids=lambda s: s.name)
def test_the_miniature_needs_no_package(spec):
    target = {"audio": LaionAudioEncoder, "text": LaionTextEncoder}[spec.modality]
    tiny = target.tiny(spec)
    assert tiny.spec.name == spec.name and tiny.spec.dim == 32


# -- the real package ------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.skipif(not REAL, reason="laion-clap is not installed")
@pytest.mark.parametrize(
    ("amodel", "fusion"), [("HTSAT-tiny", False), ("HTSAT-base", False), ("HTSAT-tiny", True)]
)
def test_latents_are_the_packages_own(cache, tmp_path, amodel, fusion):
    """A random checkpoint in the original format. Takes 2 GB of memory."""
    if fusion and importlib.util.find_spec("torchaudio") is None:
        pytest.skip("the package needs torchaudio for fusion")
    fill(cache)
    laion, path = import_laion(), tmp_path / "checkpoint.pt"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, tokenizer = build(amodel, fusion=fusion)
        for parameter in model.parameters():
            parameter.data += 0.02 * torch.randn_like(parameter)
    own = laion.CLAP_Module.__new__(laion.CLAP_Module)
    torch.nn.Module.__init__(own)
    own.model, own.tokenize, own.enable_fusion = model.eval(), tokenizer, fusion
    config = importlib.import_module("clap_module.factory")._MODEL_CONFIGS[amodel]
    own.model_cfg = config
    state = {f"module.{name}": value for name, value in model.state_dict().items()}
    torch.save({"epoch": np.int64(1), "state_dict": state}, path)

    audio = LaionAudioEncoder.load(local(AUDIO, path), CPU, torch.float32)
    random = np.random.default_rng(0)
    clips = [random.normal(0, 0.1 * s, s * 48_000).clip(-1, 1) for s in (1, 3, 10)]
    clips = [clip.astype(np.float32) for clip in clips]
    got = audio.encode(audio.collate([Audio(clip, 48_000) for clip in clips]))
    wanted = np.concatenate([own.get_audio_embedding_from_data([clip]) for clip in clips])
    np.testing.assert_allclose(got, wanted, atol=1e-6)

    text = LaionTextEncoder.load(local(TEXT, path), CPU, torch.float32)
    texts = ["rain on a tin roof", "a dog"]
    got = text.encode(text.collate(texts))
    np.testing.assert_allclose(got, own.get_text_embedding(texts), atol=1e-6)
