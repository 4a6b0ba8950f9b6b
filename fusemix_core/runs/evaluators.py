"""Which evaluators measure a run."""

from __future__ import annotations

from fusemix_core.config import Part, RunConfig
from fusemix_core.data.dataset import PairedDataset
from fusemix_core.errors import UnknownNameError
from fusemix_core.evaluation.running import check_available, evaluators_of
from fusemix_core.interfaces import Evaluator
from fusemix_core.registry import registry
from fusemix_core.runs.facts import OPTION, USES


def run_evaluators(config: RunConfig) -> dict[str, Evaluator]:
    """The evaluators of a run by name: core's, the recipe's, and the user's, whose options win."""
    return evaluators_of(_parts(config))


def _parts(config: RunConfig) -> list[Part]:
    parts = {}
    for part in (*(config.recipe.evaluators or ()), *config.evaluators):
        parts[registry.check("evaluator", part).name] = part
    return list(parts.values())


def check_evaluators(config: RunConfig, dataset: PairedDataset) -> set[str]:
    """What the evaluators of a run use, of `Evaluator.uses`.

    Raises:
        ConfigError: an evaluator needs what the run does not have.
        UnknownNameError: an evaluator names a fact that the rows do not have.
    """
    evaluators = run_evaluators(config)
    check_available(evaluators, ["bank", *([USES] if dataset.facts else [])])
    for part in _parts(config):
        if (fact := part.options.get(OPTION)) and fact not in dataset.facts:
            raise UnknownNameError.of("fact", fact, dataset.facts, f"--fact {fact}=COLUMN adds it.")
    return {use for evaluator in evaluators.values() for use in evaluator.uses}
