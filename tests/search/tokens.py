"""A text encoder of a few words with a tokenizer and a network that can be exported."""

import json

import torch
from torch import nn

from fusemix_core.interfaces import Encoder, Network
from fusemix_core.specs import EncoderSpec

_NAMES = (
    "red green blue white black yellow pink grey car house bird cup tree boat coat door a number "
    "of the map word"
)
WORDS = (*_NAMES.split(" "), *map(str, range(100)))
MOST = 40
DIM = 12


def tokenizer():
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    words = {word: i for i, word in enumerate(("[UNK]", *WORDS))}
    made = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    return made


class Mean(nn.Module):
    def __init__(self):
        super().__init__()
        draw = torch.Generator().manual_seed(5)
        self.table = nn.Parameter(torch.randn(len(WORDS) + 1, DIM, generator=draw))

    def forward(self, input_ids, attention_mask):
        rows = self.table[input_ids] * attention_mask[:, :, None]
        return torch.tanh(rows.sum(1) / attention_mask.sum(1, keepdim=True) * 2)


class TokenText(Encoder):
    spec = EncoderSpec(
        name="token-text", modality="text", target="search.tokens:TokenText", dim=DIM,
        max_tokens=MOST,
    )  # fmt: skip

    def __init__(self, spec):
        self.spec, self.model = spec, Mean().eval().requires_grad_(False)
        self.tokenizer = tokenizer()

    @classmethod
    def load(cls, spec, device, dtype):
        return cls(spec)

    def collate(self, items):
        rows = [self.tokenizer.encode(item).ids[:MOST] for item in items]
        length = max(map(len, rows))
        padded = torch.tensor([row + [0] * (length - len(row)) for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows])
        return {"input_ids": padded, "attention_mask": mask}

    def encode(self, batch, view="pooled"):
        with torch.no_grad():
            return self.compute(view, **batch)

    def network(self, view):
        return Network(self.model, axes=(0, 1))

    def save_preprocessing(self, folder):
        (folder / "tokenizer.json").write_text(json.dumps(json.loads(self.tokenizer.to_str())))
        return {"tokenizer": "tokenizer.json", "prompt": "", "max_tokens": MOST}
