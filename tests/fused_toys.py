"""What a fused model of the encoders in `toys` knows of them."""

import torch
from toys import ToyImage, ToySound, ToyText

from fusemix_core.fused import EncoderInfo
from fusemix_core.latents.fingerprint import fingerprint

TOYS = {"text": ToyText, "audio": ToySound, "image": ToyImage}


def info(modality, **changes):
    """What a model knows of a toy encoder."""
    spec = TOYS[modality].spec
    digest = TOYS[modality].load(spec, torch.device("cpu"), torch.float32).weights_digest
    facts = {"modality": modality, "dim": spec.dim, "view": "pooled"}
    facts["fingerprint"] = fingerprint(spec, "float32", digest)
    return EncoderInfo.of(spec, **facts | changes)
