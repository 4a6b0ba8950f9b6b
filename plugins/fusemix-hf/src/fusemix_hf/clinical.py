"""The presets: text encoders of medicine. Metadata only; imports neither transformers nor torch."""

from __future__ import annotations

from fusemix_core.specs import EncoderSpec

BERT_BASE = 109_482_240


def presets(requires: dict[str, str]) -> list[EncoderSpec]:
    """PubMedBERT, CXR-BERT and BiomedCLIP's text tower.

    Args:
        requires: what each needs.
    """
    common = {"modality": "text", "licence": "MIT", "requires": requires}
    return [
        EncoderSpec(
            name="pubmedbert",
            aliases=("biomedbert",),
            target="fusemix_hf.text:TextEncoder",
            summary="PubMedBERT of abstracts and full texts (mean of the tokens)",
            views=("pooled", "tokens", "layers"),
            dim=768,
            weights="microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract-fulltext",
            revision="e1354b7a3a09615f6aba48dfad4b7a613eef7062",
            parameters=BERT_BASE,
            max_tokens=512,
            paper="https://arxiv.org/abs/2007.15779",
            **common,
        ),
        EncoderSpec(
            name="cxr-bert",
            target="fusemix_hf.clinical_text:CxrBertEncoder",
            summary="CXR-BERT, specialised on reports of chest X-rays (its projection, unit norm)",
            views=("pooled", "tokens", "layers"),
            dim=128,
            normalised=True,
            weights="microsoft/BiomedVLP-CXR-BERT-specialized",
            revision="f1cc2c6b7fac60f3724037746a129a5baf194dbc",
            parameters=BERT_BASE,
            max_tokens=512,
            paper="https://arxiv.org/abs/2204.09817",
            **common,
        ),
        EncoderSpec(
            name="biomedclip-text",
            target="fusemix_hf.clinical_text:BiomedClipTextEncoder",
            summary="BiomedCLIP's text tower, of captions in PubMed Central (unit norm)",
            views=("pooled", "tokens", "layers"),
            dim=512,
            normalised=True,
            weights="microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224",
            revision="9f341de24bfb00180f1b847274256e9b65a3a32e",
            parameters=BERT_BASE,
            max_tokens=256,
            paper="https://arxiv.org/abs/2303.00915",
            **common,
        ),
    ]
