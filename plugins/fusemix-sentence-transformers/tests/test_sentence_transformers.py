"""fusemix-sentence-transformers: names, loading, tokenising as the library does, the contract."""

from __future__ import annotations

import json
import pickle
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import huggingface_hub
import pytest
import torch
from fusemix_sentence_transformers import PRESETS, fusemix_encoders, resolve
from fusemix_sentence_transformers.encoder import (
    MIN_GROUP,
    SentenceTransformerEncoder,
    groups_of_like_length,
    read_model,
)
from fusemix_sentence_transformers.tiny import DIM, MAX_TOKENS, save_tiny
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import StaticEmbedding

from fusemix_core.errors import ArtefactError, ConfigError
from fusemix_core.latents.fingerprint import fingerprint
from fusemix_core.registry import Registry
from fusemix_core.testing.worker import collate_in_worker
from fusemix_core.trust import trust_remote_code

CPU = torch.device("cpu")
REVISION = "0123456789abcdef0123456789abcdef01234567"
TEXTS = [
    "A group of people ascends stairs.",
    "x",
    "",
    "  White space,\n\tlines and a tab  ",
    "Ünïcödé 漢字 🙂 text",
    "word " * 60,
    *(f"Figure {i}" + " shows a cell" * (i % 4) for i in range(20)),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("tiny")
    save_tiny(path)
    return path


@pytest.fixture(scope="module")
def tiny() -> SentenceTransformerEncoder:
    return SentenceTransformerEncoder.tiny(resolve("any/thing"))


@pytest.fixture
def registry() -> Registry:
    registry = Registry(entry_points=lambda: [])
    for spec in fusemix_encoders():
        registry.add(spec)
    return registry


def load(folder: Path, **changes) -> SentenceTransformerEncoder:
    spec = replace(resolve("any/thing"), weights=str(folder), local=True, **changes)
    return SentenceTransformerEncoder.load(spec, CPU, torch.float32)


# -- light import and names ------------------------------------------------------------------------


def test_listing_and_resolving_import_nothing_heavy():
    code = (
        "import sys, fusemix_sentence_transformers as p; list(p.fusemix_encoders()); "
        "p.resolve('a/b'); heavy = ('torch', 'transformers', 'sentence_transformers', 'numpy'); "
        "print([m for m in heavy if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_presets_and_family_resolve(registry):
    assert registry.encoder("bge-large") is registry.encoder("BGE-large-en-v1.5")
    spec = registry.encoder("st:sentence-transformers/all-mpnet-base-v2")
    assert spec.weights == "sentence-transformers/all-mpnet-base-v2" and spec.modality == "text"


def test_local_folder_by_name(registry, folder):
    spec = registry.encoder(f"st:mine@{folder}")
    encoder = registry.target_of(spec).load(spec, CPU, torch.float32)
    assert encoder.encode(encoder.collate(["a text"])).shape == (1, DIM)


def test_empty_name_is_a_config_error(registry):
    with pytest.raises(ConfigError, match="names no model"):
        registry.encoder("st:")


# -- as sentence-transformers itself ---------------------------------------------------------------


@pytest.mark.parametrize("prompt", ["", "query: "])
@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("include_prompt", [True, False])
def test_latents_are_the_librarys(tmp_path, pooling, prompt, include_prompt):
    save_tiny(tmp_path, pooling, include_prompt=include_prompt)
    encoder = load(tmp_path, prompt=prompt)
    own = SentenceTransformer(str(tmp_path), device="cpu")
    wanted = own.encode(TEXTS, prompt=prompt, convert_to_tensor=True)
    got = encoder.encode(encoder.collate(TEXTS))
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(got.norm(dim=1), torch.ones(len(TEXTS)))


def test_prompt_matters(folder):
    plain, prompted = load(folder), load(folder, prompt="query: ")
    first, second = (e.encode(e.collate(TEXTS[:1])) for e in (plain, prompted))
    assert not torch.allclose(first, second, atol=1e-3)


def test_the_models_default_prompt_is_used(folder, tmp_path):
    model = SentenceTransformer(str(folder), device="cpu")
    model.prompts, model.default_prompt_name = {"document": "passage: "}, "document"
    model.save_pretrained(str(tmp_path), create_model_card=False)
    encoder = load(tmp_path)
    assert encoder.prompt == "passage: "
    wanted = model.encode(TEXTS, convert_to_tensor=True)
    torch.testing.assert_close(encoder.encode(encoder.collate(TEXTS)), wanted, rtol=1e-4, atol=1e-5)


def test_tokens_are_the_librarys(tiny):
    rows, features = zip(*tiny.collate(TEXTS), strict=True)
    assert sorted(torch.cat(rows).tolist()) == list(range(len(TEXTS)))
    wanted = tiny.model.preprocess(TEXTS)
    for group, tokens in zip(rows, features, strict=True):
        for name in ("input_ids", "attention_mask"):
            width = tokens[name].shape[1]
            assert torch.equal(tokens[name], wanted[name][group, :width])
            assert not wanted["attention_mask"][group, width:].any()


def test_a_model_without_a_tokenizer_of_ours_reads_texts_itself(tiny, tmp_path):
    module = StaticEmbedding(tiny.tokenizer.backend_tokenizer, embedding_dim=16)
    SentenceTransformer(modules=[module], device="cpu").save_pretrained(
        str(tmp_path), create_model_card=False
    )
    encoder = load(tmp_path)
    wanted = SentenceTransformer(str(tmp_path), device="cpu").encode(TEXTS, convert_to_tensor=True)
    torch.testing.assert_close(encoder.encode(encoder.collate(TEXTS)), wanted)
    assert encoder.truncated(TEXTS) == 0
    assert encoder.encode(encoder.collate([])).shape == (0, 16)
    assert encoder.spec.views == ("pooled",)
    with pytest.raises(TypeError):
        encoder.collate([1])


# -- length ----------------------------------------------------------------------------------------


def test_truncated_counts_texts_that_are_cut(tiny, folder):
    fits = "ab " * ((MAX_TOKENS - 2) // 2)  # two characters each, and [CLS] [SEP]
    assert tiny.truncated([fits]) == 0
    assert tiny.truncated([fits, fits + "c", "x", "word " * 99]) == 2
    assert tiny.truncated([]) == 0
    assert load(folder, prompt="q: ").truncated([fits]) == 1


def test_texts_are_tokenised_once_and_the_batch_is_the_same(tiny, monkeypatch):
    fits = "ab " * ((MAX_TOKENS - 2) // 2)
    texts = [fits, fits + "c", "", "word " * 99, "x"]
    read = Mock(side_effect=tiny.tokenizer._encode_plus)
    monkeypatch.setattr(tiny.tokenizer, "_encode_plus", read)
    batch, cut = tiny.collated(texts)
    assert read.call_count == 1 and cut == 2
    assert cut == tiny.truncated(texts)
    assert torch.equal(tiny.encode(batch), tiny.encode(tiny.collate(texts)))
    assert tiny.collated([])[1] == 0


def test_spec_may_take_less_than_the_model(folder):
    encoder = load(folder, max_tokens=10)
    assert encoder.max_tokens == 10
    assert max(t["input_ids"].shape[1] for _, t in encoder.collate(TEXTS)) == 10
    assert load(folder, max_tokens=10_000).max_tokens == MAX_TOKENS


def test_groups_hold_every_row_once_and_little_padding():
    lengths = [(i * 37) % 200 + 3 for i in range(200)]
    groups = list(groups_of_like_length(lengths))
    assert sorted(row for group in groups for row in group) == list(range(200))
    padded = sum(len(g) * max(lengths[i] for i in g) for g in groups)
    assert padded < 1.2 * sum(lengths) < len(lengths) * max(lengths)
    assert all(len(g) >= MIN_GROUP for g in groups[:-1])
    assert list(groups_of_like_length([])) == []


# -- weights ---------------------------------------------------------------------------------------


def test_hub_weights_at_a_pinned_revision(folder, tmp_path, monkeypatch):
    """From a hub's cache on disk, so the real way of loading, offline."""
    shutil.copytree(folder, tmp_path / "models--org--name" / "snapshots" / REVISION)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    spec = replace(resolve("org/name"), revision=REVISION)
    encoder = SentenceTransformerEncoder.load(spec, CPU, torch.float32)
    own = load(folder)
    wanted, found = (e.encode(e.collate(["a text"])) for e in (own, encoder))
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    pinned = resolve(f"org/name:{REVISION}")
    assert (pinned.revision, pinned.weights) == (REVISION, "org/name")
    assert pinned.normalised and not resolve("org/name").revision
    with pytest.raises(ArtefactError) as refused:
        SentenceTransformerEncoder.load(resolve("org/name"), CPU, torch.float32)
    assert "st:NAME@FOLDER" in refused.value.hint


def test_a_plain_transformer_is_refused(folder):
    with pytest.raises(ArtefactError, match="no modules.json"):
        load(folder / "bert")


def test_pickled_weights_are_refused(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "m")
    weights = tmp_path / "m" / "model.safetensors"
    torch.save({}, tmp_path / "m" / "pytorch_model.bin")
    weights.unlink()
    with pytest.raises(ArtefactError, match="can't be loaded"):
        load(tmp_path / "m")


OPPOSITE = """
import torch

class Opposite(torch.nn.Module):
    def forward(self, features, **_):
        features["sentence_embedding"] = -features["sentence_embedding"]
        return features

    @classmethod
    def load(cls, *_, **__):
        return cls()
"""


def test_code_in_a_folder_is_not_run(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "m")
    listing = tmp_path / "m" / "modules.json"
    modules = json.loads(listing.read_text())
    listing.write_text(
        json.dumps([*modules, {"idx": 3, "name": "3", "path": "", "type": "evil.Module"}])
    )
    (tmp_path / "m" / "evil.py").write_text("raise SystemExit('ran')")
    with pytest.raises(ArtefactError) as error:
        load(tmp_path / "m")
    assert f"--trust-remote-code {tmp_path / 'm'}" in error.value.hint


def test_code_in_a_folder_is_run_where_the_user_names_that_folder(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("fusemix_core.trust._TRUSTED", set())
    for name in "ab":
        shutil.copytree(folder, tmp_path / name)
        listing = tmp_path / name / "modules.json"
        modules = json.loads(listing.read_text())
        more = {"idx": len(modules), "name": "opposite", "path": "", "type": "opposite.Opposite"}
        listing.write_text(json.dumps([*modules, more]))
        (tmp_path / name / "opposite.py").write_text(OPPOSITE)
    trust_remote_code(str(tmp_path / "a"))
    with pytest.raises(ArtefactError):
        load(tmp_path / "b")
    texts = load(tmp_path / "a").collate(["a word", "another"])
    plain = load(folder)
    torch.testing.assert_close(
        load(tmp_path / "a").encode(texts), -plain.encode(plain.collate(["a word", "another"]))
    )


def test_fingerprint_follows_the_weights_and_the_revision(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("FUSEMIX_HOME", str(tmp_path / "home"))
    spec = replace(resolve("any/thing"), weights=str(folder), local=True)
    first = fingerprint(spec, "float32")
    shutil.copytree(folder, tmp_path / "m")
    assert fingerprint(replace(spec, weights=str(tmp_path / "m")), "float32") == first
    model = read_model(str(folder), local=True)
    with torch.no_grad():
        next(model.parameters()).add_(1)
    model.save_pretrained(str(tmp_path / "other"), create_model_card=False)
    assert fingerprint(replace(spec, weights=str(tmp_path / "other")), "float32") != first
    assert load(folder).weights_digest != load(tmp_path / "other").weights_digest
    bge = PRESETS[0]
    assert fingerprint(bge, "float32") != fingerprint(replace(bge, revision="b" * 40), "float32")
    assert fingerprint(resolve("any/thing"), "float32") is None


# -- the contract ----------------------------------------------------------------------------------


def test_rows_are_items_whatever_the_batch(tiny):
    whole = tiny.encode(tiny.collate(TEXTS))
    single = torch.cat([tiny.encode(tiny.collate([text])) for text in TEXTS])
    torch.testing.assert_close(whole, single, rtol=1e-4, atol=1e-5)
    backwards = tiny.encode(tiny.collate(TEXTS[::-1])).flip(0)
    torch.testing.assert_close(whole, backwards, rtol=1e-4, atol=1e-5)
    assert whole.shape == (len(TEXTS), tiny.spec.dim) and whole.isfinite().all()


def test_empty_batch(tiny):
    assert tiny.encode(tiny.collate([])).shape == (0, DIM)


def test_frozen_deterministic_and_float32(tiny):
    batch = tiny.collate(TEXTS)
    first, again = tiny.encode(batch), tiny.encode(batch)
    assert torch.equal(first, again)
    assert first.dtype == torch.float32 and not first.requires_grad
    assert not tiny.model.training and not any(p.requires_grad for p in tiny.model.parameters())


def test_half_precision_still_returns_float32(folder):
    spec = replace(resolve("any/thing"), weights=str(folder), local=True)
    rough = SentenceTransformerEncoder.load(spec, CPU, torch.bfloat16)
    exact = load(folder)
    latents = rough.encode(rough.collate(TEXTS))
    assert latents.dtype == torch.float32
    assert torch.cosine_similarity(latents, exact.encode(exact.collate(TEXTS))).min() > 0.99


@pytest.mark.parametrize("wrong", [b"bytes", 3, None, ["a"], Path("a.txt")])
def test_wrong_type_raises_type_error(tiny, wrong):
    with pytest.raises(TypeError, match="takes str"):
        tiny.collate(["fine", wrong])


def test_unknown_view_is_a_config_error(tiny):
    with pytest.raises(ConfigError, match="no view 'grid'"):
        tiny.encode(tiny.collate(["a"]), "grid")


def test_miniature_is_always_the_same_and_leaves_the_generator_alone(tiny):
    state = torch.random.get_rng_state()
    again = SentenceTransformerEncoder.tiny(resolve("any/thing"))
    assert torch.equal(state, torch.random.get_rng_state())
    assert again.weights_digest == tiny.weights_digest


def test_collate_in_a_spawned_process(tiny):
    assert len(pickle.dumps(tiny)) < 100_000
    there = collate_in_worker(tiny, TEXTS)
    assert torch.equal(tiny.encode(there), tiny.encode(tiny.collate(TEXTS)))
