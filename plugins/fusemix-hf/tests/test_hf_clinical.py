"""fusemix-hf: the text encoders of medicine, on random miniatures in the layouts of their hubs."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from fusemix_hf.clinical_text import BiomedClipText, CxrBert
from fusemix_hf.convert import convert
from fusemix_hf.tiny import MAX_TOKENS, WIDTH
from torch.nn.functional import gelu, layer_norm, linear, normalize
from transformers import BertConfig, BertForMaskedLM, BertModel

from fusemix_core.errors import ArtefactError
from fusemix_core.testing.encoders import check_encoder

NEAR = {"rtol": 1e-4, "atol": 1e-5}
NAMES = ("pubmedbert", "cxr-bert", "biomedclip-text")


@pytest.fixture
def config(tokenizer):
    return BertConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=MAX_TOKENS,
        hidden_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=1,
        intermediate_size=2 * WIDTH,
        projection_size=16,
    )


def small(registry, name, folder):
    """The preset whose weights are those of a folder, with the width of a miniature."""
    spec = registry.encoder(f"{name}@{folder}")
    object.__setattr__(spec, "dim", WIDTH if name == "pubmedbert" else 16)
    object.__setattr__(spec, "max_tokens", MAX_TOKENS)
    return registry.target_of(spec).load(spec, torch.device("cpu"), torch.float32)


def hidden(model, encoder, texts):
    batch = encoder.collate(texts)
    with torch.no_grad():
        return model(batch["input_ids"], attention_mask=batch["attention_mask"])[0], batch


def test_presets_say_licence_width_and_a_pinned_commit(registry):
    specs = {name: registry.encoder(name) for name in NAMES}
    assert {s.licence for s in specs.values()} == {"MIT"}
    assert [s.dim for s in specs.values()] == [768, 128, 512]
    assert all(len(s.revision) == 40 for s in specs.values())


def test_pubmedbert_is_the_mean_of_the_tokens(registry, save, tokenizer, config, texts):
    folder, model = save(lambda: BertForMaskedLM(config), tokenizer)
    encoder = small(registry, "pubmedbert", folder)
    states, batch = hidden(model.bert, encoder, texts)
    mask = batch["attention_mask"][..., None]
    wanted = (states * mask).sum(1) / mask.sum(1)
    torch.testing.assert_close(encoder.encode(batch), wanted, **NEAR)


def test_cxr_bert_projects_the_class_token(registry, save, tokenizer, config, texts):
    folder, model = save(lambda: CxrBert(config), tokenizer)
    told = json.loads((folder / "config.json").read_text())
    told |= {"model_type": "cxr-bert", "auto_map": {"AutoModel": "modeling_cxrbert.CXRBertModel"}}
    (folder / "config.json").write_text(json.dumps(told))
    file = folder / "tokenizer_config.json"
    own = {"tokenizer_class": "CXRBertTokenizer", "auto_map": {"AutoTokenizer": ["a.B", None]}}
    file.write_text(json.dumps(json.loads(file.read_text()) | own))
    encoder = small(registry, "cxr-bert", folder)
    states, batch = hidden(model.bert, encoder, texts)
    own = tokenizer(texts, truncation=True, max_length=MAX_TOKENS)["input_ids"]
    assert batch["attention_mask"].sum(1).tolist() == [len(ids) for ids in own]
    assert batch["input_ids"][0, : len(own[0])].tolist() == own[0]
    head = model.cls_projection_head
    x = gelu(linear(states[:, 0], head.dense_to_hidden.weight, head.dense_to_hidden.bias))
    x = layer_norm(x, (16,), head.LayerNorm.weight, head.LayerNorm.bias, 1e-12)
    x = linear(x, head.dense_to_output.weight, head.dense_to_output.bias)
    torch.testing.assert_close(encoder.encode(batch), normalize(x, dim=1), **NEAR)
    assert encoder.encode(batch, "tokens").values.shape[2] == WIDTH


@pytest.fixture
def open_clip(tmp_path, tokenizer, config):
    """(a folder as open_clip has it on the hub, with pickled weights of both towers; the BERT)."""
    torch.manual_seed(0)
    bert = BertModel(config).eval()
    state = {f"text.transformer.{name}": value for name, value in bert.state_dict().items()}
    state |= {"text.proj.0.weight": torch.randn(24, 32), "text.proj.2.weight": torch.randn(16, 24)}
    folder = tmp_path / "open_clip"
    tokenizer.save_pretrained(folder)
    (folder / "open_clip_config.json").write_text("{}")
    torch.save({**state, "logit_scale": torch.ones(())}, folder / "open_clip_pytorch_model.bin")
    return folder, bert, state


def test_biomedclip_gives_what_open_clip_computes(registry, open_clip, tmp_path, texts):
    folder, bert, state = open_clip
    encoder = small(registry, "biomedclip-text", convert(folder, tmp_path / "safe"))
    assert isinstance(encoder.model, BiomedClipText)
    states, batch = hidden(bert, encoder, texts)
    x = gelu(states[:, 0] @ state["text.proj.0.weight"].T) @ state["text.proj.2.weight"].T
    torch.testing.assert_close(encoder.encode(batch), normalize(x, dim=1), **NEAR)


def test_pickled_weights_are_refused_with_the_way_out(registry, open_clip):
    with pytest.raises(ArtefactError, match=r"lacks open_clip_model\.safetensors") as error:
        small(registry, "biomedclip-text", open_clip[0])
    assert "convert-weights biomedclip-text" in error.value.hint


def test_weights_that_are_not_complete_are_refused(registry, open_clip, tmp_path):
    folder, *_ = open_clip
    state = torch.load(folder / "open_clip_pytorch_model.bin", weights_only=True)
    del state["text.transformer.encoder.layer.1.output.dense.bias"]
    torch.save(state, folder / "open_clip_pytorch_model.bin")
    made = convert(folder, tmp_path / "safe")
    with pytest.raises(ArtefactError, match="lack 1 tensors"):
        small(registry, "biomedclip-text", made)
    shutil.rmtree(made)


@pytest.mark.parametrize(
    "name", ["cxr-bert", *(pytest.param(n, marks=pytest.mark.long) for n in NAMES[::2])]
)
def test_kit(name, registry):
    report = check_encoder(name, device="cpu", tiny=True, registry=registry)
    assert not [result for result in report if not result.passed]
