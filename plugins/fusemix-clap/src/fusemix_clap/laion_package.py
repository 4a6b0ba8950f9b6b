"""Imports LAION's own package without letting it reach for the hub.

`import laion_clap` loads three tokenizers from the hub, all of which are used in training alone, and
building a model loads RoBERTa's weights, which the checkpoint then replaces. Off the network each
of these retries for minutes. Here the tokenizers must be in the hub's cache already, the network is
shut meanwhile, and RoBERTa is built from its configuration.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import transformers
from fusemix_hf.loading import quiet
from huggingface_hub import constants
from torch import nn
from transformers import RobertaConfig, RobertaModel

from fusemix_core.errors import ArtefactError, MissingDependencyError

TOKENIZERS = {
    "bert-base-uncased": "BertTokenizer",
    "roberta-base": "RobertaTokenizer",
    "facebook/bart-base": "BartTokenizer",
}
"""What `import laion_clap` loads, by the class that it loads it with."""

ROBERTA_BASE: dict[str, Any] = {
    "vocab_size": 50_265,
    "max_position_embeddings": 514,
    "type_vocab_size": 1,
    "layer_norm_eps": 1e-5,
}


def import_laion() -> Any:
    """The module `laion_clap`.

    Raises MissingDependencyError where it is not installed, ArtefactError where one of the three
    tokenizers is not in the hub's cache.
    """
    with offline(), undisturbed(), quiet():
        if "laion_clap" not in sys.modules:
            check_tokenizers()
        try:
            import laion_clap
        except ImportError as error:
            raise MissingDependencyError(
                f"LAION's package can't be imported: {error}", "pip install 'fusemix-clap[laion]'"
            ) from error
        return laion_clap


def build(amodel: str, *, fusion: bool) -> tuple[nn.Module, Any]:
    """(model, tokenizer) of a CLAP whose weights are still random, on the CPU."""
    laion = import_laion()
    with offline(), quiet(), roberta_from_its_configuration():
        module = laion.CLAP_Module(enable_fusion=fusion, device="cpu", amodel=amodel)
    return module.model, module.tokenize


def check_tokenizers() -> None:
    """Raise `ArtefactError` unless the cache holds all three tokenizers. Call it offline."""
    missing = [name for name, kind in TOKENIZERS.items() if not _cached(name, kind)]
    if missing:
        lines = [f"hf download {name} --include '*.json' '*.txt'" for name in missing]
        raise ArtefactError(
            "LAION's package loads three tokenizers when it is imported, "
            f"{', '.join(TOKENIZERS)}; not in the hub's cache: {', '.join(missing)}.",
            "\n".join(["Fetch them once (a few MB):", *lines]),
        )


def _cached(name: str, kind: str) -> bool:
    try:
        getattr(transformers, kind).from_pretrained(name, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return True


@contextmanager
def offline() -> Iterator[None]:
    """The hub's clients take all from their cache, and try no network."""
    names = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    before = {name: os.environ.get(name) for name in names}
    # Read once, when huggingface_hub was imported, so that the variable alone comes too late.
    constant, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = constant
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


@contextmanager
def undisturbed() -> Iterator[None]:
    """Whatever is imported inside, sys.path and the environment are as before; no warnings."""
    path, environment = list(sys.path), dict(os.environ)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        sys.path[:] = path
        for name in os.environ.keys() - environment.keys():
            del os.environ[name]
        os.environ.update(environment)


class _Roberta:
    """Stands in for RobertaModel where the package asks the hub for its weights."""

    @staticmethod
    def from_pretrained(name: str) -> RobertaModel:
        return RobertaModel(RobertaConfig(**ROBERTA_BASE))


@contextmanager
def roberta_from_its_configuration() -> Iterator[None]:
    """The package's CLAP is built without RoBERTa's weights."""
    module = sys.modules["clap_module.model"]
    before, module.RobertaModel = module.RobertaModel, _Roberta
    try:
        yield
    finally:
        module.RobertaModel = before
