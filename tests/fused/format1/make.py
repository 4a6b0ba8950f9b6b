"""Wrote `model/` and `expected.safetensors` here, at commit 45244df, the last of format 1.

git worktree add old 45244df
cd old && PYTHONPATH=.:tests python ../tests/fused/format1/make.py FOLDER
"""

import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from toys import ToyImage, ToyText

from fusemix_core.adapters.kernel import KernelAdapter
from fusemix_core.adapters.mlp import MlpAdapter
from fusemix_core.config import Part
from fusemix_core.fused import EncoderInfo, FusedModel
from fusemix_core.latents.fingerprint import fingerprint
from fusemix_core.registry import registry
from fusemix_core.scorers.csls import CSLSScorer

SMALL = {"blocks": 1, "expansion": 1.0}
CSLS = {"neighbours": 2, "bank_size": 16}
TEXTS = ["a cat", "two dogs at the sea", "a red hat", "snow"]


def made() -> FusedModel:
    """The model."""
    torch.manual_seed(0)
    text = KernelAdapter(12, 8, landmarks=4)
    text.prepare(torch.randn(9, 12))
    for parameter in text.parameters():
        parameter.data.normal_()
    infos = {}
    for modality, cls in (("image", ToyImage), ("text", ToyText)):
        registry.add(cls)
        infos[modality] = EncoderInfo.of(
            cls.spec,
            modality=modality,
            dim=cls.spec.dim,
            view="pooled",
            fingerprint=fingerprint(cls.spec, "float32", cls(cls.spec).weights_digest),
        )
    scorer = CSLSScorer(**CSLS)
    scorer.fit({m: torch.nn.functional.normalize(torch.randn(20, 8), dim=1) for m in infos})
    return FusedModel(
        {"image": MlpAdapter(16, 8, **SMALL), "text": text},
        infos,
        scorer,
        adapter_parts={"image": Part("mlp", SMALL), "text": Part("kernel", {"landmarks": 4})},
        scorer_part=Part("csls", CSLS),
        recipe={"name": "fusemix", "dim": 8},
        objective={"temperature": 0.1},
        data={"pairs": {"train": 20}, "split": "test"},
        metrics={"retrieval": {"mean_recall": 12.5}},
        device="cpu",
    )


def main() -> None:
    out, model = Path(sys.argv[1]), made()
    model.save_pretrained(out / "model", name="format1")
    generator, pixels = torch.Generator().manual_seed(7), np.random.default_rng(0)
    latents = {
        m: torch.randn(5, info.dim, generator=generator) for m, info in model.encoders.items()
    }
    images = [Image.fromarray(pixels.integers(0, 255, (8, 9, 3), dtype=np.uint8)) for _ in range(3)]
    rows = {m: model.embed(m, latents[m]) for m in latents}
    expected = {
        **{f"latents.{m}": latents[m] for m in latents},
        **{f"embeddings.{m}": rows[m] for m in latents},
        "encoded.text": model.encode("text", TEXTS),
        "encoded.image": model.encode("image", images),
        "scores.text.image": model.similarity(rows["text"], rows["image"], "text", "image"),
        "scores.image.text": model.similarity(rows["image"], rows["text"], "image", "text"),
    }
    save_file(expected, out / "expected.safetensors")


if __name__ == "__main__":
    main()
