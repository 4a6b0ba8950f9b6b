"""Other augmentations of latents than FuseMix's. Metadata only; imports no torch."""

from __future__ import annotations

from collections.abc import Iterable

from fusemix_core.hookspecs import hookimpl
from fusemix_core.specs import ComponentSpec

MIXUP = "https://arxiv.org/abs/1710.09412"


@hookimpl
def fusemix_components() -> Iterable[ComponentSpec]:
    """Five mixups."""
    return [
        ComponentSpec(
            kind="mixup",
            name="per-sample",
            target="fusemix_mixups.mixing:PerSampleMixup",
            summary="first half of the batch with the second, a lambda for each row",
            options={"alpha": 1.0},
            paper=MIXUP,
        ),
        ComponentSpec(
            kind="mixup",
            name="permuted",
            target="fusemix_mixups.mixing:PermutedMixup",
            summary="each row with another of the batch, which is not halved",
            options={"alpha": 1.0},
            paper=MIXUP,
        ),
        ComponentSpec(
            kind="mixup",
            name="geodesic",
            target="fusemix_mixups.mixing:GeodesicMixup",
            summary="halves mixed along the great circle between their directions",
            options={"alpha": 1.0},
            paper="https://arxiv.org/abs/2203.03897",
        ),
        ComponentSpec(
            kind="mixup",
            name="gaussian",
            target="fusemix_mixups.noise:GaussianNoise",
            summary="Gaussian noise in units of each modality's root mean square",
            options={"scale": 0.1},
        ),
        ComponentSpec(
            kind="mixup",
            name="quantised",
            target="fusemix_mixups.noise:RandomQuantisation",
            summary="each feature in bins with edges drawn at random",
            options={"bins": 16},
            paper="https://arxiv.org/abs/2212.08663",
        ),
    ]
