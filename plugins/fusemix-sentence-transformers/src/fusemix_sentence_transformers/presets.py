"""The presets: facts of well-known sentence-transformers models. Metadata only.

`options["pooling"]` and `normalised` are what the model's own folder must declare: loading refuses
weights that say otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass

from fusemix_core.specs import EncoderSpec

REQUIRES = {"sentence_transformers": "sentence-transformers>=6.0"}
TARGET = "fusemix_sentence_transformers.encoder:SentenceTransformerEncoder"
OF_ANY_MODEL = ("pooled", "tokens", "layers", "tokens-layers", "tokens-words")
VIEWS = (*OF_ANY_MODEL, "layers-middle-last")
"""Those of the presets, of which it is known that their last layer is their latent."""

MINILM = 33_360_000
"""Parameters of the 12 layers of width 384 that bge-small, e5-small, gte-small and L12 share."""
BERT_BASE = 109_482_240
BERT_LARGE = 335_141_888


@dataclass(frozen=True)
class _Maker:
    """What the models of one maker have in common."""

    summary: str
    licence: str
    paper: str
    pooling: str = "mean"
    prompt: str = ""
    max_tokens: int = 512

    def __call__(
        self,
        name: str,
        repo: str,
        dim: int,
        parameters: int,
        revision: str,
        *,
        aliases: tuple[str, ...] = (),
        max_tokens: int = 0,
    ) -> EncoderSpec:
        pooled = f"{self.pooling.upper() if self.pooling == 'cls' else self.pooling}, unit norm"
        prompt = f"prompt '{self.prompt.strip()}'" if self.prompt else "no prompt"
        return EncoderSpec(
            name=name,
            aliases=aliases,
            modality="text",
            target=TARGET,
            dim=dim,
            summary=f"{repo.partition('/')[2]}, {self.summary} ({pooled}, {prompt})",
            views=VIEWS,
            weights=repo,
            revision=revision,
            licence=self.licence,
            normalised=True,
            max_tokens=max_tokens or self.max_tokens,
            prompt=self.prompt,
            parameters=parameters,
            paper=self.paper,
            requires=REQUIRES,
            options={"pooling": self.pooling},
        )


def _bge(size: str, dim: int, parameters: int, revision: str) -> EncoderSpec:
    maker = _Maker("English", "MIT", "https://arxiv.org/abs/2309.07597", pooling="cls")
    name = f"bge-{size}-en-v1.5"
    return maker(name, f"BAAI/{name}", dim, parameters, revision, aliases=(f"bge-{size}",))


_E5 = _Maker("English", "MIT", "https://arxiv.org/abs/2212.03533", prompt="query: ")
"""Its model card: "query: " for symmetric tasks and for embeddings used as features."""
_ME5 = _Maker("about 100 languages", "MIT", "https://arxiv.org/abs/2402.05672", prompt="query: ")
_GTE = _Maker("English", "MIT", "https://arxiv.org/abs/2308.03281")
_SBERT = _Maker("English", "Apache-2.0", "https://arxiv.org/abs/1908.10084")


def _e5(size: str, dim: int, parameters: int, revision: str) -> EncoderSpec:
    repo, alias = f"intfloat/e5-{size}-v2", f"e5-{size}-v2"
    return _E5(f"e5-{size}", repo, dim, parameters, revision, aliases=(alias,))


def _me5(size: str, dim: int, parameters: int, revision: str) -> EncoderSpec:
    name = f"multilingual-e5-{size}"
    return _ME5(name, f"intfloat/{name}", dim, parameters, revision)


def _gte(size: str, dim: int, parameters: int, revision: str) -> EncoderSpec:
    return _GTE(f"gte-{size}", f"thenlper/gte-{size}", dim, parameters, revision)


def _sbert(
    name: str, repo: str, dim: int, parameters: int, max_tokens: int, revision: str
) -> EncoderSpec:
    # The starter pack's `minilm` has the alias all-minilm-l6-v2.
    aliases = () if name == "all-minilm-l6" else (repo.lower(),)
    repo = f"sentence-transformers/{repo}"
    return _SBERT(name, repo, dim, parameters, revision, aliases=aliases, max_tokens=max_tokens)


PRESETS = (
    _bge("small", 384, MINILM, "5c38ec7c405ec4b44b94cc5a9bb96e735b38267a"),
    _bge("base", 768, BERT_BASE, "a5beb1e3e68b9ab74eb54cfd186867f64f240e1a"),
    _bge("large", 1024, BERT_LARGE, "d4aa6901d3a41ba39fb536a557fa166f842b0e09"),
    _e5("small", 384, MINILM, "dca8b1a9dae0d4575df2bf423a5edb485a431236"),
    _e5("base", 768, BERT_BASE, "1c644c92ad3ba1efdad3f1451a637716616a20e8"),
    _e5("large", 1024, BERT_LARGE, "b322e09026e4ea05f42beadf4d661fb4e101d311"),
    _me5("small", 384, 117_653_760, "fd1525a9fd15316a2d503bf26ab031a61d056e98"),
    _me5("base", 768, 278_043_648, "d13f1b27baf31030b7fd040960d60d909913633f"),
    _me5("large", 1024, 559_890_432, "ab10c1a7f42e74530fe7ae5be82e6d4f11a719eb"),
    _gte("small", 384, MINILM, "17e1f347d17fe144873b1201da91788898c639cd"),
    _gte("base", 768, BERT_BASE, "c078288308d8dee004ab72c6191778064285ec0c"),
    _gte("large", 1024, BERT_LARGE, "4bef63f39fcc5e2d6b0aae83089f307af4970164"),
    _sbert(
        "all-minilm-l6",
        "all-MiniLM-L6-v2",
        384,
        22_713_216,
        256,
        "8b3219a92973c328a8e22fadcfa821b5dc75636a",
    ),
    _sbert(
        "all-minilm-l12",
        "all-MiniLM-L12-v2",
        384,
        MINILM,
        128,
        "364dd28d28dcd3359b537f3cf1f5348ba679da62",
    ),
    _sbert(
        "all-mpnet-base",
        "all-mpnet-base-v2",
        768,
        109_486_464,
        384,
        "9a3225965996d404b775526de6dbfe85d3368642",
    ),
    _sbert(
        "all-roberta-large",
        "all-roberta-large-v1",
        1024,
        355_359_744,
        256,
        "cf74d8acd4f198de950bf004b262e6accfed5d2c",
    ),
)
