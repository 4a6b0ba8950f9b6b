"""Molecules as a modality: SMILES strings through ChemNet. Metadata only; imports neither torch nor
rdkit."""

from __future__ import annotations

from collections.abc import Iterable

from fusemix_core.hookspecs import hookimpl
from fusemix_core.specs import EncoderSpec, ModalitySpec

CHEMNET = EncoderSpec(
    name="chemnet",
    modality="molecule",
    target="fusemix_chem.encoder:ChemNetEncoder",
    dim=512,
    views=("pooled", "time"),
    summary="ChemNet, SMILES strings; trained to predict the outcomes of bioassays",
    weights="fcd/ChemNet_v0.13_pretrained.pt",
    sha256="c22e977602b30eeabd7f81e6c790dd3234c7d7788c6c3e7979d8720ccc96951a",
    licence="LGPL-3.0",
    max_tokens=350,
    parameters=1_406_336,
    paper="https://arxiv.org/abs/1803.09518",
    requires={"fcd": "fcd==1.2.2", "rdkit": "rdkit>=2023.9"},
    options={},
)


MOLECULE = ModalitySpec(
    name="molecule",
    medium="text",
    columns=("smiles",),
    prompts=("a molecule that is a {}.", "the molecule is a {}.", "a {} compound.", "{}"),
    example="CCO",
)
"""SMILES strings."""


@hookimpl
def fusemix_modalities() -> Iterable[ModalitySpec]:
    """Molecules."""
    return [MOLECULE]


@hookimpl
def fusemix_encoders() -> Iterable[EncoderSpec]:
    """One encoder of molecules."""
    return [CHEMNET]
