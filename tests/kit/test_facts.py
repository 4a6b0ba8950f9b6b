"""The kit on what reads facts: a right objective or task passes, a wrong one is found out."""

import numpy as np
from torch.nn.functional import normalize

from fusemix_core.data.facts import Fact
from fusemix_core.objectives.infonce import InfoNCE
from fusemix_core.tasks.regress import Regress
from fusemix_core.testing import check_objective, check_task

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


class Span(Regress):
    """The time from a start to an end: facts that the kit has not."""

    facts = ("start", "end")

    @classmethod
    def learn(cls, facts, **options):
        return cls(**{**Regress.learn(cls.spans(facts)).options, **options})

    def targets(self, facts):
        return super().targets(self.spans(facts))

    @staticmethod
    def spans(facts):
        return {"target": Fact("number", facts["end"].values - facts["start"].values)}


def test_a_task_of_other_facts_is_checked_on_those_it_is_given():
    number = np.arange(40, dtype=np.float32)
    number[::9] = np.nan
    facts = {"start": Fact("number", number), "end": Fact("number", number**1.2)}
    check_task(Span, facts=facts).raise_if_failed()
    assert "facts named start, end" in check_task(Span).failed[-1].detail
