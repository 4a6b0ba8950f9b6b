"""A generator that draws emoji from a sentence's embedding, with its weights. Metadata only;
imports no torch."""

from __future__ import annotations

from collections.abc import Iterable

from fusemix_core.hookspecs import hookimpl
from fusemix_core.specs import GeneratorSpec

EMOJI = GeneratorSpec(
    name="emoji",
    target="fusemix_emoji.generator:EmojiGenerator",
    space="minilm",
    dim=384,
    size=128,
    summary="604 things as emoji, drawn at 32 px and enlarged; for a CPU",
    weights="fusemix_emoji/weights",
    sha256="6706a3d75057b803c68229a783e29e4f9e9a389309d62e34ddca926d676f6de9",
    licence="Apache-2.0 AND MIT AND CC-BY-4.0",
    parameters=6_793_771,
    paper="https://arxiv.org/abs/2204.06125",
    requires={
        "fusemix_diffusers": "fusemix-diffusers>=0.2",
        "fusemix_starter": "fusemix-starter>=0.2",
    },
    options={"steps": 25, "guidance": 3.0},
)


@hookimpl
def fusemix_generators() -> Iterable[GeneratorSpec]:
    """The generator `emoji`."""
    return [EMOJI]
