"""MiniLM in plain torch: what the encoder needs of sentence_transformers, whose import takes longer
than a query. The tensors have the same names; outputs agree within rounding."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple, TypeVar

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn.functional import gelu, normalize, scaled_dot_product_attention

LAYERS, WIDTH, HEADS, INNER = 6, 384, 12, 1536
WORDS, POSITIONS, EPSILON = 30_522, 512, 1e-12
MAX_TOKENS = 256

Features = dict[str, Any]
Span = tuple[int, int]
T = TypeVar("T")


class Encoded(dict[str, list[list[int]]]):
    """Token ids, types and masks of texts, whether each was cut, and the characters of tokens."""

    def __init__(
        self, rows: Sequence[list[int]], cut: Sequence[bool], spans: Sequence[list[Span]]
    ) -> None:
        super().__init__(
            input_ids=list(rows),
            token_type_ids=[[0] * len(row) for row in rows],
            attention_mask=[[1] * len(row) for row in rows],
        )
        self.encodings = [_Encoding(*one) for one in zip(cut, spans, strict=True)]


class _Encoding(NamedTuple):
    overflowing: bool
    offsets: list[Span]


class TextTokenizer:
    """Texts as WordPiece ids between [CLS] and [SEP].

    Its calls are those of transformers' tokenizers that the encoder makes.
    """

    pad_token_id = 0
    all_special_ids = (0, 100, 101, 102, 103)

    def __init__(self, path: Path) -> None:
        self.backend_tokenizer = Tokenizer.from_file(str(path))
        self.backend_tokenizer.no_truncation()
        self.backend_tokenizer.no_padding()

    def __call__(
        self,
        texts: str | list[str],
        truncation: bool = False,
        max_length: int | None = None,
        verbose: bool = True,
    ) -> Any:
        if isinstance(texts, str):
            return {"input_ids": self.backend_tokenizer.encode(texts).ids}
        found = self.backend_tokenizer.encode_batch(texts)
        longest = max((len(one.ids) for one in found), default=0)
        most = max_length if truncation and max_length else longest
        cut = [len(one.ids) > most for one in found]
        kept = [[*range(min(most, len(one.ids)) - 1), len(one.ids) - 1] for one in found]
        rows = [[one.ids[k] for k in own] for one, own in zip(found, kept, strict=True)]
        spans = [[one.offsets[k] for k in own] for one, own in zip(found, kept, strict=True)]
        return Encoded(rows, cut, spans)

    def pad(self, part: dict[str, list[list[int]]], return_tensors: str = "pt") -> Features:
        """Rows of one length, filled with zeros at the right."""
        most = max(len(row) for row in part["input_ids"])
        return {
            name: torch.tensor([row + [0] * (most - len(row)) for row in rows])
            for name, rows in part.items()
        }


def _shortened(rows: Sequence[list[T]], most: int) -> list[list[T]]:
    """Rows of `most` entries or fewer; those that are cut keep their last one, the [SEP]."""
    return [row if len(row) <= most else [*row[: most - 1], row[-1]] for row in rows]


class Embeddings(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        # Of empty tables: to draw one on the device `meta` imports torch's compiler, 1.5 seconds.
        self.word_embeddings, self.position_embeddings, self.token_type_embeddings = (
            nn.Embedding.from_pretrained(torch.empty(rows, WIDTH)) for rows in (WORDS, POSITIONS, 2)
        )
        self.LayerNorm = nn.LayerNorm(WIDTH, eps=EPSILON)

    def forward(self, ids: Tensor, types: Tensor) -> Tensor:
        places = torch.arange(ids.shape[1], device=ids.device)
        words = self.word_embeddings(ids) + self.token_type_embeddings(types)
        return self.LayerNorm(words + self.position_embeddings(places))


class Added(nn.Module):
    """A linear map whose result is added to what came before, then normalised."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, WIDTH)
        self.LayerNorm = nn.LayerNorm(WIDTH, eps=EPSILON)

    def forward(self, x: Tensor, before: Tensor) -> Tensor:
        return self.LayerNorm(self.dense(x) + before)


class Block(nn.Module):
    """Attention and a feed-forward layer; attributes are named as the tensors are."""

    def __init__(self) -> None:
        super().__init__()
        heads = nn.Module()
        for name in ("query", "key", "value"):
            heads.add_module(name, nn.Linear(WIDTH, WIDTH))
        self.attention = nn.Module()
        self.attention.self = heads
        self.attention.output = Added(WIDTH)
        self.intermediate = nn.Module()
        self.intermediate.dense = nn.Linear(WIDTH, INNER)
        self.output = Added(INNER)

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        """`[n, t, d]`; `seen` is bool `[n, 1, 1, t]`."""
        layer: Any = self.attention.self
        query, key, value = (
            part(x).unflatten(2, (HEADS, -1)).transpose(1, 2)
            for part in (layer.query, layer.key, layer.value)
        )
        mixed = scaled_dot_product_attention(query, key, value, attn_mask=seen)
        output: Any = self.attention.output
        x = output(mixed.transpose(1, 2).flatten(2), x)
        inner: Any = self.intermediate.dense
        return self.output(gelu(inner(x)), x)


class Bert(nn.Module):
    """`BertModel` of six layers. Its pooler plays no part in sentence vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.config = SimpleNamespace(output_hidden_states=False)
        self.embeddings = Embeddings()
        self.encoder = nn.Module()
        self.encoder.layer = nn.ModuleList(Block() for _ in range(LAYERS))
        self.pooler = nn.Module()
        self.pooler.dense = nn.Linear(WIDTH, WIDTH)

    def forward(self, ids: Tensor, mask: Tensor, types: Tensor) -> list[Tensor]:
        """The output of each layer, the embeddings first: `[n, t, d]`."""
        seen = mask.bool()[:, None, None, :]
        given = [self.embeddings(ids, types)]
        layers: Any = self.encoder.layer
        for block in layers:
            given.append(block(given[-1], seen))
        return given


class Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.model = Bert()

    def forward(self, features: Features) -> Features:
        ids, mask = features["input_ids"], features["attention_mask"]
        given = self.model(ids, mask, features.get("token_type_ids", torch.zeros_like(ids)))
        found = {**features, "token_embeddings": given[-1]}
        if self.model.config.output_hidden_states:
            found["all_layer_embeddings"] = given
        return found


class Pooling(nn.Module):
    """The mean of the tokens that are not padding, summed in float32 as the library does."""

    def forward(self, features: Features) -> Features:
        tokens = features["token_embeddings"]
        mask = features["attention_mask"][:, :, None].to(tokens.dtype)
        mean = (tokens * mask).sum(1, dtype=torch.float32) / mask.sum(1, dtype=torch.float32)
        return {**features, "sentence_embedding": mean.to(tokens.dtype)}


class Normalize(nn.Module):
    def forward(self, features: Features) -> Features:
        unit = normalize(features["sentence_embedding"], dim=1)
        return {**features, "sentence_embedding": unit}


class MiniLM(nn.Sequential):
    """all-MiniLM-L6-v2, with the attributes of a `SentenceTransformer` that the encoder reads.

    Args:
        path: its safetensors.
    """

    prompts: dict[str, str] = {}
    default_prompt_name = None
    truncate_dim = None
    max_seq_length = MAX_TOKENS

    def __init__(self, path: Path) -> None:
        with torch.device("meta"):
            bert = Transformer()
        state = load_file(path)
        state.pop("embeddings.position_ids", None)
        bert.model.load_state_dict(state, assign=True)
        super().__init__(bert, Pooling(), Normalize())
