"""Imports LAION's own package without letting it reach for the hub.

`import laion_clap` loads three tokenizers from the hub, two of which nothing but training uses, and
building a model loads RoBERTa's weights, which the checkpoint then replaces. Off the network each
of these retries for minutes. Here the tokenizers must be in the hub's cache already, the network is
shut meanwhile, and RoBERTa is built from its configuration.
"""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fusemix_hf.loading import quiet
from huggingface_hub import constants, try_to_load_from_cache
from transformers import RobertaConfig, RobertaModel

from fusemix_core.errors import ArtefactError, MissingDependencyError
from fusemix_core.project import how_to_install

TOKENIZERS = {
    "bert-base-uncased": ("vocab.txt",),
    "roberta-base": ("vocab.json", "merges.txt"),
    "facebook/bart-base": ("vocab.json", "merges.txt"),
}
"""What `import laion_clap` loads, and the files that make it, if there is no tokenizer.json."""

ROBERTA_BASE: dict[str, Any] = {
    "vocab_size": 50_265,
    "max_position_embeddings": 514,
    "type_vocab_size": 1,
    "layer_norm_eps": 1e-5,
}


def import_laion() -> Any:
    """The module `laion_clap`.

    Raises MissingDependencyError if it is not installed, ArtefactError where one of the three
    tokenizers is not in the hub's cache.
    """
    with offline(), undisturbed(), quiet():
        if "laion_clap" not in sys.modules:
            check_tokenizers()
        try:
            import laion_clap  # pyrefly: ignore[missing-import]  # an extra
        except ImportError as error:
            raise MissingDependencyError(
                f"LAION's package can't be imported: {error}", how_to_install("fusemix-clap[laion]")
            ) from error
        return laion_clap


def build(amodel: str, *, fusion: bool) -> tuple[Any, Any]:
    """(model, tokenizer) of a CLAP whose weights are still random, on the CPU."""
    laion = import_laion()
    with offline(), undisturbed(), quiet(), roberta_from_its_configuration():
        module = laion.CLAP_Module(enable_fusion=fusion, device="cpu", amodel=amodel)
    return module.model, module.tokenize


def check_tokenizers() -> None:
    """Raise `ArtefactError` unless the cache contains all three tokenizers.

    By their files: without them transformers makes a tokenizer that knows no word, silently.
    """
    missing = [name for name in TOKENIZERS if not _cached(name)]
    if missing:
        lines = [f"hf download {name} --include '*.json' '*.txt'" for name in missing]
        raise ArtefactError(
            "LAION's package loads three tokenizers when it is imported, "
            f"{', '.join(TOKENIZERS)}; not in the hub's cache: {', '.join(missing)}.",
            "\n".join(["Fetch them once (a few MB):", *lines]),
        )


def _cached(name: str) -> bool:
    forms = (("tokenizer.json",), TOKENIZERS[name])
    return any(all(isinstance(try_to_load_from_cache(name, f), str) for f in fs) for fs in forms)


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
    """Whatever happens inside, sys.path, the environment and the root logger are as before; no
    warnings."""
    path, environment, root = list(sys.path), dict(os.environ), logging.getLogger()
    handlers, level = list(root.handlers), root.level
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        sys.path[:] = path
        root.handlers[:] = handlers
        root.setLevel(level)
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
    module: Any = sys.modules["clap_module.model"]
    before, module.RobertaModel = module.RobertaModel, _Roberta
    try:
        yield
    finally:
        module.RobertaModel = before
