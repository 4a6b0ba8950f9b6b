"""Random miniatures of a BERT, a ViT and a HuBERT, each with what prepares its items."""

from __future__ import annotations

import string
from collections.abc import Callable
from typing import Any

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertModel,
    HubertConfig,
    HubertModel,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    ViTConfig,
    ViTImageProcessorPil,
    ViTModel,
    Wav2Vec2FeatureExtractor,
)

WIDTH = 32
MAX_TOKENS = 48
_SMALL = {
    "hidden_size": WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 2 * WIDTH,
}
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def tiny_text() -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """A BERT of two layers over characters, and its tokenizer."""
    tokenizer = character_tokenizer()
    config = BertConfig(vocab_size=len(tokenizer), max_position_embeddings=MAX_TOKENS, **_SMALL)
    return seeded(lambda: BertModel(config)), tokenizer


def tiny_image() -> tuple[PreTrainedModel, Any]:
    """A ViT of two layers over 4 by 4 patches, and its image processor."""
    config = ViTConfig(image_size=32, patch_size=8, **_SMALL)
    processor = ViTImageProcessorPil(size={"height": 32, "width": 32})
    return seeded(lambda: ViTModel(config)), processor


def tiny_audio() -> tuple[PreTrainedModel, Any]:
    """A HuBERT of two layers with convolutions of full stride, and its feature extractor."""
    config = HubertConfig(
        conv_dim=(16,) * 7,
        feat_extract_norm="layer",
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
        **_SMALL,
    )
    return seeded(lambda: HubertModel(config)), Wav2Vec2FeatureExtractor(return_attention_mask=True)


def seeded(make: Callable[[], PreTrainedModel]) -> PreTrainedModel:
    """What `make` gives, with the same random weights each time."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return make()


def character_tokenizer() -> PreTrainedTokenizerFast:
    """A WordPiece tokenizer whose pieces are single ASCII characters."""
    letters = string.ascii_lowercase + string.digits + string.punctuation
    pieces = [*_SPECIAL, *letters, *(f"##{c}" for c in letters)]
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    core = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    core.normalizer = normalizers.BertNormalizer(lowercase=True)
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
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
