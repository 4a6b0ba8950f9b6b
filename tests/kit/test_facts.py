"""The kit on an objective that reads a fact: a right one passes, a wrong one is found out."""

import numpy as np
from torch.nn.functional import normalize

from fusemix_core.data.facts import Fact
from fusemix_core.objectives.infonce import InfoNCE
from fusemix_core.testing import check_objective

FACTS = {"lean": Fact("number", np.linspace(-1, 1, 7, dtype=np.float32))}


class Leaning(InfoNCE):
    """InfoNCE, with embeddings that lean as far as the row's fact says."""

    uses = ("facts",)

    def forward(self, step):
        lean = self.fact(step) * step.present.T
        first = [normalize(x, dim=1)[:, 0] for x in step.embeddings.values()]
        return super().forward(step) + 0.1 * sum(
            x @ w.to(x) for x, w in zip(first, lean, strict=True)
        )

    def fact(self, step):
        return step.facts["lean"].mean(dim=1)


class ByPlace(Leaning):
    def fact(self, step):
        return step.facts["lean"].mean(dim=1).roll(1)


def test_an_objective_of_facts_passes():
    assert not check_objective(Leaning, facts=FACTS).failed


def test_facts_of_other_rows_are_found_out():
    failed = [r.name for r in check_objective(ByPlace, facts=FACTS).failed]
    assert failed == ["order_of_rows"]
