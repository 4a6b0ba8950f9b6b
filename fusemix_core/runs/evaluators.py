"""Which evaluators measure a run."""

from __future__ import annotations

from fusemix_core.config import RunConfig
from fusemix_core.data.dataset import PairedDataset
from fusemix_core.evaluation.running import check_available, evaluators_of
from fusemix_core.interfaces import Evaluator
from fusemix_core.registry import registry


def run_evaluators(config: RunConfig) -> dict[str, Evaluator]:
    """The evaluators of a run by name: core's, the recipe's, and the user's, whose options win."""
    parts = {}
    for part in (*(config.recipe.evaluators or ()), *config.evaluators):
        parts[registry.check("evaluator", part).name] = part
    return evaluators_of(list(parts.values()))


def check_evaluators(config: RunConfig, dataset: PairedDataset) -> None:
    """Raise `ConfigError` for an evaluator that needs what the run does not have."""
    available = ["bank", *(["facts"] if dataset.facts else [])]
    check_available(run_evaluators(config), available)
