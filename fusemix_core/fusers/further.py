"""A further modality for a fitted `stack`, whose former modalities stay as they are."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor

from fusemix_core.errors import ConfigError
from fusemix_core.fuser import Labelled
from fusemix_core.fusers.block import whole
from fusemix_core.fusers.blocks import Blocks
from fusemix_core.fusers.linear import RANK, number_of, subsets
from fusemix_core.fusers.stack import Stack, non_negative
from fusemix_core.prediction import Task


@torch.no_grad()
def with_modality(fuser: Stack, rows: Labelled, task: Task) -> Stack:
    """The stack with one more modality, the last of the rows'.

    Only the new modality and the weights of subsets that contain it are fitted. Every former subset
    keeps its coefficients bit for bit.

    Args:
        fuser: is not changed.
        rows: have the former modalities, in their order, and the new one. The fuser should not have
            been fitted to them: otherwise the former modalities get too much weight.
        task: of the fuser.

    Raises:
        ConfigError: the modalities are not these, or too many.
    """
    *former, new = rows.modalities
    if former != list(fuser.inputs):
        raise ConfigError(
            f"The rows have {', '.join(rows.modalities)}; the fuser takes "
            f"{', '.join(fuser.inputs)}, and one more comes last."
        )
    count = len(former)
    own = rows.only([new])
    there = rows.present[:, count].nonzero()[:, 0]
    blocks = Blocks(own, task, fuser.options.get("rank", RANK))
    found = blocks.fit([0], [blocks.choice([0]).together()])
    known = own.targets.rows.nonzero()[:, 0]
    calibration = task.calibrate(found.scores[known], own.targets[known])
    scores = torch.zeros(len(rows), task.outputs, dtype=torch.float64)
    scores[there] = calibration(found.scores)

    former_fuser = copy.deepcopy(fuser).cpu()
    singles = [_single(former_fuser, rows, k) for k in range(count)]
    weights = [*(one[0] for one in singles), calibration.scale * found.weights]
    offsets = [*(one[1] for one in singles), calibration(found.offsets[None])[0]]
    each = [*(one[2] for one in singles), scores]
    made = _widened(former_fuser, new, rows.pairs.dims[new], blocks)
    for subset in [(), *subsets(count)]:
        subset = (*subset, count)
        complete = whole(rows, subset)
        shares, shift = non_negative(
            task, [each[k][complete] for k in subset], rows.targets[complete]
        )
        mixed = [a * weights[k] for a, k in zip(shares, subset, strict=True)]
        shift = shift + sum(a * offsets[k] for a, k in zip(shares, subset, strict=True))
        made.set(subset, torch.cat(mixed), shift)
    return made.eval()


def _single(fuser: Stack, rows: Labelled, k: int) -> Sequence[Tensor]:
    """(coefficients, offsets, scores of rows) of one modality by itself, float64."""
    name, number = rows.modalities[k], number_of((k,))
    weights = fuser.weights[number, fuser.blocks()[name]].double()
    features = fuser.features[k](rows.latents(name), rows.present[:, k]).double()
    offsets = fuser.offsets[number].double()
    return weights, offsets, features @ weights + offsets


def _widened(fuser: Stack, modality: str, width: int, blocks: Blocks) -> Stack:
    """The fuser with room for a further modality, whose features are given."""
    options = {name: value for name, value in fuser.options.items() if name != "ranks"}
    ranks = {**fuser.ranks, modality: blocks.ranks[0]}
    made = Stack({**fuser.inputs, modality: width}, fuser.outputs, **options, ranks=ranks)
    made.features = torch.nn.ModuleList([*fuser.features, *blocks.features])
    # The new modality has the highest bit and the last columns: the others keep their places.
    made.weights[: len(fuser.weights), : fuser.weights.shape[1]] = fuser.weights
    made.offsets[: len(fuser.offsets)] = fuser.offsets
    return made
