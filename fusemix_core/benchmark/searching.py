"""A method's settings tried on validation, within a budget that is the same for every method."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from fusemix_core.benchmark.fitting import Fitted
from fusemix_core.benchmark.measuring import clock
from fusemix_core.benchmark.space import SearchBudget, Space, candidates
from fusemix_core.config import Recipe
from fusemix_core.errors import FusemixError


def search(
    recipe: Recipe,
    space: Space,
    budget: SearchBudget,
    seed: int,
    device: torch.device,
    fit_one: Callable[[Recipe], Fitted],
    score: Callable[[Fitted], float],
) -> tuple[Fitted, dict[str, Any]]:
    """The best fit by `score`, of the recipe's own settings and of others of its space.

    The own settings come first; the others follow in an order that the seed draws. With a number
    of trials the result is the same on any machine. With a time, another trial begins if the
    longest so far fits into what is left of it; time is counted by `clock`. A trial that fails
    counts as one.

    Returns:
        The fit, and plain data: `chosen` settings, all that was `tried` with its validation score
        (or error) and seconds, `of` how many combinations, and the `seconds` of the whole search.

    Raises:
        Exception: That of the own settings, if no trial succeeds.
    """
    began, longest = clock(device), 0.0
    tried: list[dict[str, Any]] = []
    best: tuple[float, list[str], Fitted] | None = None
    failure: Exception | None = None
    for settings, changed in candidates(recipe, space, seed):
        if tried and not _goes_on(budget, len(tried), clock(device) - began, longest):
            break
        start, trial = clock(device), dict[str, Any](set=settings)
        try:
            found = fit_one(changed)
            value = score(found)
            trial["validation"] = round(value, 3)
            if best is None or value > best[0]:
                best = value, settings, found
        except Exception as error:  # whatever these settings break, others may work
            failure = failure or error
            trial["error"] = error.message if isinstance(error, FusemixError) else f"{error!r}"
        took = clock(device) - start
        longest = max(longest, took)
        tried.append(trial | {"seconds": round(took, 3)})
    if best is None:
        assert failure is not None
        raise failure
    facts = {
        "chosen": best[1],
        "tried": tried,
        "of": sum(1 for _ in candidates(recipe, space, seed)),
        "seconds": round(clock(device) - began, 3),
    }
    return best[2], facts


def _goes_on(budget: SearchBudget, trials: int, spent: float, longest: float) -> bool:
    """Whether one more trial is within the budget."""
    if budget.trials is not None:
        return trials < budget.trials
    return budget.seconds is not None and spent + longest <= budget.seconds
