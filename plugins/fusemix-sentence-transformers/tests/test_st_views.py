"""fusemix-sentence-transformers: presets, what a folder must declare, missing tensors, views."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fusemix_sentence_transformers import PRESETS, resolve
from fusemix_sentence_transformers import encoder as views
from fusemix_sentence_transformers.encoder import SentenceTransformerEncoder
from fusemix_sentence_transformers.presets import OF_ANY_MODEL, VIEWS
from fusemix_sentence_transformers.tiny import DIM, save_tiny
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense

from fusemix_core.errors import ArtefactError
from fusemix_core.interfaces import Padded
from fusemix_core.latents.backends import Work, accelerate, vectors
from fusemix_core.registry import registry as installed
from fusemix_core.testing.encoders import check_encoder

CPU = torch.device("cpu")
TEXTS = ["A dog.", "x", "", "Two cats sleep on a warm red sofa.", "word " * 30, "3 + 4 = 7"]
BY_NAME = {spec.name: spec for spec in PRESETS}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("mean")
    save_tiny(path)
    return path


def load(folder: Path, spec=None, **changes) -> SentenceTransformerEncoder:
    spec = replace(spec or resolve("any/thing"), weights=str(folder), local=True, **changes)
    return SentenceTransformerEncoder.load(spec, CPU, torch.float32)


# -- presets ---------------------------------------------------------------------------------------


def test_presets_are_pinned_and_complete():
    for spec in PRESETS:
        assert re.fullmatch(r"[0-9a-f]{40}", spec.revision), spec.name
        assert spec.normalised and spec.licence and spec.paper and spec.parameters, spec.name
        assert spec.views == (*OF_ANY_MODEL, "layers-middle-last")
        pooling = "cls" if spec.name.startswith("bge") else "mean"
        assert spec.options == {"pooling": pooling}
        assert spec.prompt == ("query: " if "e5" in spec.name else "")
    assert BY_NAME["multilingual-e5-large"].max_tokens == 512
    assert BY_NAME["all-roberta-large"].dim == 1024


def test_no_name_is_anothers():
    names = [n.lower() for s in PRESETS for n in (s.name, *s.aliases)]
    assert len(names) == len(set(names))
    ours = "fusemix-sentence-transformers"
    others = {
        n.lower()
        for dist, spec in installed.all_encoders()
        if dist != ours and hasattr(spec, "aliases")
        for n in (spec.name, *spec.aliases)
    }
    assert not others & set(names)


MINIATURES = [BY_NAME["e5-base"], BY_NAME["bge-small-en-v1.5"], resolve("a/b")]


@pytest.mark.parametrize("spec", MINIATURES)
def test_the_miniature_has_the_pooling_and_the_prompt(spec):
    encoder = SentenceTransformerEncoder.tiny(spec)
    assert encoder.prompt == spec.prompt
    pooling = [m.pooling_mode for m in encoder.model if hasattr(m, "pooling_mode")]
    assert pooling == [spec.options.get("pooling", "mean")]


@pytest.mark.parametrize(
    "spec",
    [MINIATURES[0], *(pytest.param(spec, marks=pytest.mark.long) for spec in MINIATURES[1:])],
)
def test_the_miniature_keeps_the_contract(spec):
    encoder = SentenceTransformerEncoder.tiny(spec)
    report = check_encoder(encoder.spec, encoder=encoder)
    assert not [result for result in report if not result.passed]


@pytest.mark.slow
def test_a_folder_of_the_family_keeps_the_contract(folder):
    spec = installed.encoder(f"st:mine@{folder}")
    assert spec.normalised
    report = check_encoder(f"st:mine@{folder}", device="cpu")
    assert not [result for result in report if not result.passed]


def test_the_prefix_stands_before_every_text(folder):
    encoder = load(folder, replace(BY_NAME["e5-base"], dim=DIM))
    own = SentenceTransformer(str(folder), device="cpu")
    wanted = own.encode([f"query: {text}" for text in TEXTS], convert_to_tensor=True)
    torch.testing.assert_close(encoder.encode(encoder.collate(TEXTS)), wanted, rtol=1e-4, atol=1e-5)


# -- what the folder declares ----------------------------------------------------------------------


def test_another_pooling_than_declared_is_refused(folder):
    spec = replace(BY_NAME["bge-small-en-v1.5"], dim=DIM)
    with pytest.raises(ArtefactError, match="pools by mean, not by cls") as error:
        load(folder, spec)
    assert "st:NAME@FOLDER" in error.value.hint
    load(folder, replace(spec, options={"pooling": "mean"}))


def test_another_width_and_no_unit_norm_are_refused(folder, tmp_path):
    model = SentenceTransformer(str(folder), device="cpu")
    SentenceTransformer(modules=list(model)[:2], device="cpu").save_pretrained(
        str(tmp_path), create_model_card=False
    )
    spec = BY_NAME["e5-base"]
    with pytest.raises(ArtefactError, match="does not normalise.* 32 dimensions, not 768"):
        load(tmp_path, spec)
    encoder = load(tmp_path)  # the family takes it as it is
    assert encoder.encode(encoder.collate(["a text"])).norm() > 1.01


def test_missing_tensors_are_refused(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "m")
    file = tmp_path / "m" / "model.safetensors"
    state = load_file(file)
    gone = next(k for k in state if k.endswith("layer.1.output.dense.weight"))
    save_file({k: v for k, v in state.items() if k != gone}, file, metadata={"format": "pt"})
    with pytest.raises(ArtefactError, match=r"lack 1 tensors .*layer\.1\.output\.dense\.weight"):
        load(tmp_path / "m")


def test_a_pooler_that_plays_no_part_may_be_missing(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "m")
    file = tmp_path / "m" / "model.safetensors"
    state = {k: v for k, v in load_file(file).items() if "pooler" not in k}
    save_file(state, file, metadata={"format": "pt"})
    before = torch.random.get_rng_state()
    got, wanted = load(tmp_path / "m"), load(folder)
    assert torch.equal(before, torch.random.get_rng_state())
    assert got.weights_digest == load(tmp_path / "m").weights_digest
    batch = wanted.collate(TEXTS)
    assert torch.equal(got.encode(batch), wanted.encode(batch))


def test_loading_leaves_transformers_as_it_was(folder):
    from transformers import PreTrainedModel

    before = PreTrainedModel.__dict__["from_pretrained"]
    load(folder)
    assert PreTrainedModel.__dict__["from_pretrained"] is before


# -- views -----------------------------------------------------------------------------------------


def test_tokens_are_the_librarys(folder):
    encoder = load(folder)
    got = encoder.encode(encoder.collate(TEXTS), "tokens")
    own = SentenceTransformer(str(folder), device="cpu")
    wanted = own.encode(TEXTS, output_value="token_embeddings", convert_to_tensor=True)
    assert isinstance(got, Padded) and got.values.dtype == torch.float32
    for row, mask, tokens in zip(got.values, got.mask, wanted, strict=True):
        assert mask.tolist() == [True] * len(tokens) + [False] * (len(mask) - len(tokens))
        torch.testing.assert_close(row[mask], tokens, rtol=1e-4, atol=1e-5)
        assert not row[~mask].any()


@pytest.mark.parametrize("pooling", ["mean", "cls", "max"])
def test_layers_are_pooled_as_the_model_does(tmp_path, pooling):
    save_tiny(tmp_path, pooling)
    encoder = load(tmp_path)
    layers = encoder.encode(encoder.collate(TEXTS), "layers")
    own = SentenceTransformer(str(tmp_path), device="cpu")
    features = own.preprocess(TEXTS)
    inputs = {k: features[k] for k in ("input_ids", "attention_mask")}
    with torch.no_grad():
        hidden = own[0].model(**inputs, output_hidden_states=True).hidden_states[1:]
    mask = features["attention_mask"][:, :, None].bool()
    naive = {
        "mean": lambda h: h.masked_fill(~mask, 0).sum(1) / mask.sum(1),
        "cls": lambda h: h[:, 0],
        "max": lambda h: h.masked_fill(~mask, -torch.inf).amax(1),
    }[pooling]
    wanted = torch.stack([torch.nn.functional.normalize(naive(h), dim=1) for h in hidden], 1)
    torch.testing.assert_close(layers, wanted, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(layers[:, -1], encoder.encode(encoder.collate(TEXTS)))


def test_the_middle_layer_and_the_last(tmp_path):
    save_tiny(tmp_path, layers=5)
    encoder = load(tmp_path, views=VIEWS)
    layers = encoder.encode(encoder.collate(TEXTS), "layers")
    two = encoder.encode(encoder.collate(TEXTS), "layers-middle-last")
    torch.testing.assert_close(two, torch.nn.functional.normalize(layers[:, [2, 4]], dim=2))


def test_tokens_of_several_layers_lie_side_by_side(tmp_path, monkeypatch):
    save_tiny(tmp_path, layers=5)
    encoder = load(tmp_path)
    batch = encoder.collate(TEXTS)
    monkeypatch.setattr(views, "SIDE_BY_SIDE", 3)
    found = encoder.encode(batch, "tokens-layers")
    whole = encoder.encode(batch, "tokens")
    assert torch.equal(found.mask, whole.mask) and found.values.shape[2] == 3 * DIM
    assert torch.equal(found.values[:, :, -DIM:], whole.values)
    means = found.values.sum(dim=1) / found.mask.sum(dim=1, keepdim=True)
    pooled = torch.nn.functional.normalize(means.unflatten(1, (3, DIM)), dim=2)
    torch.testing.assert_close(pooled, encoder.encode(batch, "layers")[:, 2:], rtol=1e-4, atol=1e-5)
    monkeypatch.setattr(views, "MOST_TOKENS", 4)
    cut = encoder.encode(batch, "tokens-layers")
    assert cut.mask.sum(dim=1).tolist() == found.mask.sum(dim=1).clamp(max=4).tolist()
    assert torch.equal(cut.values, found.values[:, :4])


def test_layers_of_a_model_with_a_dense_are_those_before_it(folder, tmp_path):
    model = SentenceTransformer(str(folder), device="cpu")
    with torch.random.fork_rng(devices=[]):
        dense = Dense(DIM, 16)
    SentenceTransformer(
        modules=[model[0], model[1], dense, model[2]], device="cpu"
    ).save_pretrained(str(tmp_path), create_model_card=False)
    plain, encoder = load(folder), load(tmp_path)
    batch = plain.collate(TEXTS)
    assert encoder.encode(batch).shape == (len(TEXTS), 16)
    torch.testing.assert_close(encoder.encode(batch, "layers"), plain.encode(batch, "layers"))


def test_views_do_not_depend_on_the_batch(folder):
    encoder = load(folder)
    batch = encoder.collate(TEXTS)
    tokens, layers = encoder.encode(batch, "tokens"), encoder.encode(batch, "layers")
    for i, text in enumerate(TEXTS):
        one = encoder.collate([text])
        torch.testing.assert_close(
            encoder.encode(one, "layers")[0], layers[i], rtol=1e-4, atol=1e-5
        )
        alone = encoder.encode(one, "tokens").values[0]
        torch.testing.assert_close(alone, tokens.values[i, tokens.mask[i]], rtol=1e-4, atol=1e-5)


def test_a_tokenizer_that_pads_at_the_left(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "m")
    model = SentenceTransformer(str(tmp_path / "m"), device="cpu")
    model.tokenizer.padding_side = "left"
    model.save_pretrained(str(tmp_path / "m"), create_model_card=False)
    encoder = load(tmp_path / "m")
    tokens = encoder.encode(encoder.collate(TEXTS), "tokens")
    lengths = [
        len(ids) for ids in encoder.tokenizer(TEXTS, max_length=48, truncation=True).input_ids
    ]
    assert tokens.mask.sum(1).tolist() == lengths
    assert all(tokens.mask[i, :n].all() for i, n in enumerate(lengths))
    assert not tokens.values[~tokens.mask].any()


def test_views_of_an_empty_batch(folder):
    encoder = load(folder)
    batch = encoder.collate([])
    assert encoder.encode(batch, "layers").shape == (0, 2, DIM)
    tokens = encoder.encode(batch, "tokens")
    assert len(tokens.values) == len(tokens.mask) == 0 and tokens.values.shape[2] == DIM


def test_a_word_is_the_mean_of_its_tokens(folder):
    encoder = load(folder)
    texts = ["ab  cde\nf", "  lead", "", "one" * 20 + " cut"]
    tokens = encoder.encode(encoder.collate(texts), "tokens")
    words = encoder.encode(encoder.collate(texts), "tokens-words")
    first = tokens.values[0, 1:-1]  # a token per character, between two special ones
    wanted = [first[:2].mean(0), first[2:5].mean(0), first[5]]
    torch.testing.assert_close(words.values[0, :3], torch.stack(wanted), rtol=1e-4, atol=1e-5)
    assert words.mask.sum(dim=1).tolist() == [3, 1, 1, 1]
    whole = tokens.values[2, tokens.mask[2]].mean(dim=0)
    torch.testing.assert_close(words.values[2, 0], whole, rtol=1e-4, atol=1e-5)


def test_the_prompt_is_of_no_word(folder):
    prompted = load(folder, prompt="query: ")
    tokens = prompted.encode(prompted.collate(["ab c"]), "tokens").values[0]
    words = prompted.encode(prompted.collate(["ab c"]), "tokens-words")
    assert words.mask.sum() == 2
    torch.testing.assert_close(words.values[0, 1], tokens[-2], rtol=1e-4, atol=1e-5)


LONG = (
    "pooled",
    "layers-middle-last",
    "tokens-words",
)  # the first by real weights: fusemix-starter's tests


@pytest.mark.slow
@pytest.mark.parametrize(
    "view", ["layers", "tokens", *(pytest.param(v, marks=pytest.mark.long) for v in LONG)]
)
def test_openvino_gives_the_same_views_where_items_have_one_shape(folder, tmp_path, view):
    encoder = load(folder, views=VIEWS)
    expected = encoder.encode(encoder.collate(TEXTS), view)
    work, probe = Work(view, "f", tmp_path, 9), encoder.collate(TEXTS[2:5])
    said = accelerate(encoder, work, lambda: probe, "openvino")
    assert (said == "") == (encoder.runtime is not None) == (not view.startswith("tokens"))
    found = encoder.encode(encoder.collate(TEXTS), view)
    torch.testing.assert_close(vectors(found), vectors(expected), rtol=1e-4, atol=1e-4)
