"""What each process does in test_traffic.py."""

import json
from dataclasses import replace

from distributed.share_fits import BASE, latents
from distributed.traffic import counted

from fusemix_core.aligners.gradient import GradientAligner
from fusemix_core.config import Part
from fusemix_core.gathering import rank
from fusemix_core.interfaces import FitContext
from fusemix_core.objectives import ring

WHOLE = "permuted, which reads whole batches"
"""A mixup that says nothing of its rows."""
RING = "infonce, in a ring"
RECIPES = {
    "infonce": BASE,
    RING: BASE,
    "siglip": replace(BASE, objective=Part("siglip")),
    "multi-positive": replace(BASE, objective=Part("multi-positive")),
    "three modalities with gaps": BASE,
    "gram of three modalities": replace(BASE, objective=Part("gram")),
    "structure, which reads latents": replace(BASE, objective=Part("structure")),
    WHOLE: replace(BASE, mixup=Part("permuted")),
}


def share_traffic(folder):
    """The most calls and bytes of a step of each recipe."""
    most = {}
    for name, recipe in RECIPES.items():
        ring.GATHER_BYTES = 0 if name == RING else 2 << 30
        with counted() as steps:
            GradientAligner().fit(*latents("three modalities" in name), recipe, FitContext())
        assert len(steps) >= 4
        most[name] = {key: max(step[key] for step in steps) for key in ("calls", "bytes")}
    (folder / f"{rank()}.json").write_text(json.dumps(most))
