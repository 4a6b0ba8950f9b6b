"""fusemix-hf: texts, value for value what transformers' own models and tokenizers give."""

from __future__ import annotations

import pytest
import torch
from fusemix_hf.text import TextEncoder
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModel,
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    GPT2Config,
    GPT2Model,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaModel,
    T5Config,
    T5ForConditionalGeneration,
)

from fusemix_core.errors import ArtefactError
from fusemix_core.latents.backends import Work, accelerate
from fusemix_core.specs import EncoderSpec
from fusemix_core.testing.encoders import check_encoder

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
BERT = {**SMALL, "intermediate_size": 64, "vocab_size": 150, "max_position_embeddings": 48}
TYPES = {
    "bert": lambda: BertModel(BertConfig(**BERT)),
    "roberta": lambda: RobertaModel(RobertaConfig(**{**BERT, "max_position_embeddings": 60})),
    "distilbert": lambda: DistilBertModel(
        DistilBertConfig(dim=32, n_layers=2, n_heads=2, hidden_dim=64, vocab_size=150)
    ),
    "t5": lambda: T5ForConditionalGeneration(
        T5Config(d_model=32, d_kv=16, d_ff=64, num_layers=2, num_heads=2, vocab_size=150)
    ),
}


def by_hand(folder, texts: list[str]) -> list[torch.Tensor]:
    """Hidden states `[L + 1, t, 32]` of each text alone, by transformers' own classes."""
    model = AutoModel.from_pretrained(folder).eval()
    model = model.get_encoder() if model.config.is_encoder_decoder else model
    tokenizer = AutoTokenizer.from_pretrained(folder)
    found = []
    for text in texts:
        ids = tokenizer(text, truncation=True, max_length=48, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            output = model(ids, output_hidden_states=True)
        found.append(torch.stack([*output.hidden_states[:-1], output.last_hidden_state])[:, 0])
    return found


@pytest.mark.parametrize("kind", TYPES)
def test_latents_are_the_masked_mean_of_transformers_own(save, load, tokenizer, texts, kind):
    folder, _ = save(TYPES[kind], tokenizer)
    encoder = load(folder)
    hidden = by_hand(folder, texts)
    batch = encoder.collate(texts)
    near = {"rtol": 1e-4, "atol": 1e-5}
    pooled = encoder.encode(batch)
    torch.testing.assert_close(pooled, torch.stack([h[-1].mean(0) for h in hidden]), **near)
    layers = encoder.encode(batch, "layers")
    torch.testing.assert_close(layers, torch.stack([h[1:].mean(1) for h in hidden]), **near)
    torch.testing.assert_close(layers[:, -1], pooled)
    tokens = encoder.encode(batch, "tokens")
    for row, mask, wanted in zip(tokens.values, tokens.mask, hidden, strict=True):
        torch.testing.assert_close(row[: len(wanted[-1])], wanted[-1], **near)
        assert mask.sum() == len(wanted[-1]) and not row[len(wanted[-1]) :].any()
    assert encoder.spec.dim == 32 and encoder.spec.max_tokens == encoder.max_tokens == 48


def test_tokens_are_the_librarys(save, load, tokenizer, texts):
    encoder = load(save(TYPES["bert"], tokenizer)[0])
    got = encoder.collate(texts)
    wanted = tokenizer(texts, truncation=True, max_length=48, padding=True, return_tensors="pt")
    assert torch.equal(got["input_ids"], wanted["input_ids"])
    assert torch.equal(got["attention_mask"], wanted["attention_mask"])


def test_a_decoder_without_padding_or_special_tokens(save, load, texts):
    """As GPT-2's: it has no token to pad with, and gives none for an empty text."""
    pieces = {chr(c): c - 32 for c in range(32, 127)} | {"<|endoftext|>": 95}
    core = Tokenizer(models.WordLevel(pieces, unk_token="<|endoftext|>"))
    core.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    own = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|endoftext|>")
    config = GPT2Config(n_embd=32, n_layer=2, n_head=2, vocab_size=96, n_positions=40)
    folder, model = save(lambda: GPT2Model(config), own)
    encoder = load(folder)
    assert encoder.max_tokens == 40
    whole = encoder.encode(encoder.collate(texts))
    ids = own(texts[0], return_tensors="pt")["input_ids"]
    with torch.no_grad():
        wanted = model(ids).last_hidden_state.mean(1)
    torch.testing.assert_close(whole[:1], wanted, rtol=1e-4, atol=1e-5)
    alone = encoder.encode(encoder.collate([""]))
    torch.testing.assert_close(alone[0], whole[2], rtol=1e-4, atol=1e-5)
    assert whole.isfinite().all()


def test_a_missing_pooler_is_no_matter_but_a_missing_layer_is(save, load, tokenizer, texts):
    folder, _ = save(lambda: BertForMaskedLM(BertConfig(**BERT)), tokenizer)
    state = torch.random.get_rng_state()
    encoder, again = load(folder), load(folder)
    assert torch.equal(state, torch.random.get_rng_state())
    assert encoder.weights_digest == again.weights_digest
    batch = encoder.collate(texts)
    assert torch.equal(encoder.encode(batch), again.encode(batch))
    config = BertConfig(**{**BERT, "num_hidden_layers": 3})
    config.save_pretrained(folder)
    with pytest.raises(ArtefactError, match=r"lack 16 tensors of BertModel .*encoder\.layer\.2"):
        load(folder)


def test_truncated_counts_texts_that_are_cut(save, load, tokenizer):
    encoder = load(save(TYPES["bert"], tokenizer)[0])
    fits = "ab " * 23
    assert encoder.truncated([fits, fits + "c", "x", "word " * 99]) == 2
    assert encoder.collate([fits + "c"])["input_ids"].shape == (1, 48)
    batch, cut = encoder.collated([fits, fits + "c", "x", "word " * 99])
    assert cut == 2 and batch["input_ids"].shape == (4, 48)
    assert encoder.collated([])[1] == 0


def test_a_tokenizer_without_a_limit_takes_the_models(save, load, tokenizer):
    from fusemix_hf.tiny import character_tokenizer

    own = character_tokenizer()
    own.model_max_length = int(1e30)
    encoder = load(save(TYPES["roberta"], own)[0])
    assert encoder.spec.max_tokens is None
    assert encoder.max_tokens == 60 - 2  # positions begin behind that of the padding, 1
    encoder.encode(encoder.collate(["word " * 99]))


def test_any_name_for_what_is_a_text(save, load, tokenizer):
    folder, _ = save(TYPES["bert"], tokenizer)
    encoder = load(folder, "molecule")
    assert (encoder.spec.modality, encoder.spec.takes) == ("molecule", "text")
    assert encoder.encode(encoder.collate(["CCO"])).shape == (1, 32)


@pytest.mark.parametrize("tiny", [False, pytest.param(True, marks=pytest.mark.long)])
def test_kit(save, tokenizer, registry, tiny):
    folder, _ = save(TYPES["bert"], tokenizer)
    report = check_encoder(f"hf:tiny@{folder}", device="cpu", tiny=tiny, registry=registry)
    assert not [result for result in report if not result.passed]


def test_a_tokenizer_without_its_files_is_refused(save, load, tokenizer):
    folder, _ = save(TYPES["bert"], tokenizer)
    for file in folder.glob("*token*"):
        file.unlink()
    with pytest.raises(ArtefactError, match="knows no word"):
        load(folder)


@pytest.mark.slow
@pytest.mark.parametrize("view", ["pooled", pytest.param("layers", marks=pytest.mark.long)])
def test_openvino_gives_the_same_views(tmp_path, view):
    spec = EncoderSpec(name="it", modality="text", target="fusemix_hf.text:TextEncoder")
    encoder = TextEncoder.tiny(spec)
    texts = ["a dog", "x", "two cats sleep on a sofa", "3 + 4"]
    expected = encoder.encode(encoder.collate(texts), view)
    probe = encoder.collate(texts[:2])
    assert accelerate(encoder, Work(view, "f", tmp_path, 9), lambda: probe, "openvino") == ""
    assert encoder.runtime is not None
    found = encoder.encode(encoder.collate(texts), view)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
