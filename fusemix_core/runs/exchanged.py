"""How much each column of a run's tables matters."""

from __future__ import annotations

import torch

from fusemix_core.fusion.exchanged import Fall, falls
from fusemix_core.fusion.study import Study
from fusemix_core.predictor import Predictor
from fusemix_core.runs.encode import Encoded


def column_falls(found: Study, encoded: Encoded, predictor: Predictor, seed: int) -> list[Fall]:
    """The fall of the primary metric of test rows if the cells of a column are exchanged, for each
    column of each table, the largest first.

    Args:
        found: the fits.
        encoded: the data, which the test rows of the fits link.
        predictor: has the encoders.
        seed: of the draws.
    """
    tables = {}
    for k, (m, items) in enumerate(encoded.dataset.items.items()):
        if items.medium.joined:
            links = torch.cat([one.test.pairs.links[:, k] for one in found.folds]).unique()
            tables[m] = {i: items.load(i) for i in links.tolist() if i >= 0}

    return falls(found, tables, predictor.latents, seed)
