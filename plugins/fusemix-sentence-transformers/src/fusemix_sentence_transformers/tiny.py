"""A random miniature of a sentence-transformers model, as a folder in the hub's layout."""

from __future__ import annotations

import string
from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

DIM = 32
MAX_TOKENS = 48
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def save_tiny(
    folder: Path, pooling: str = "mean", *, include_prompt: bool = True, layers: int = 2
) -> None:
    """Write a BERT over characters, its tokenizer and its pooling to `folder`."""
    tokenizer = _character_tokenizer()
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=DIM,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=2 * DIM,
        max_position_embeddings=MAX_TOKENS,
    )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        bert = BertModel(config)
    plain = folder / "bert"
    bert.save_pretrained(plain)
    tokenizer.save_pretrained(plain)
    model = SentenceTransformer(
        modules=[
            Transformer(str(plain)),
            Pooling(DIM, pooling_mode=pooling, include_prompt=include_prompt),
            Normalize(),
        ],
        device="cpu",
    )
    model.save_pretrained(str(folder), create_model_card=False)


def _character_tokenizer() -> PreTrainedTokenizerFast:
    letters = string.ascii_lowercase + string.digits + string.punctuation
    pieces = [*_SPECIAL, *letters, *(f"##{c}" for c in letters)]
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    core = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    core.normalizer = normalizers.BertNormalizer(lowercase=True)
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    core.decoder = decoders.WordPiece()
    core.post_processor = processors.BertProcessing(
        ("[SEP]", vocabulary["[SEP]"]), ("[CLS]", vocabulary["[CLS]"])
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        model_max_length=MAX_TOKENS,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )
