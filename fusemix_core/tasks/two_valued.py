"""Facts of two values, such as an event that came or didn't, a label that applies or doesn't."""

from __future__ import annotations

import numpy as np

from fusemix_core.data.facts import Fact
from fusemix_core.errors import ConfigError, UnknownNameError
from fusemix_core.tasks.coding import labels_of, listed

YES = ("1", "true", "yes", "y", "positive", "present", "event", "dead", "deceased", "died")
NO = ("0", "-1", "false", "no", "n", "negative", "absent", "censored", "alive", "living")
"""Values that say themselves which of two they are, in small letters."""


def counting_value(fact: Fact, given: str, what: str, option: str) -> str:
    """The value of a two-valued fact that counts, as text: the given one, or the one in `YES`.

    Args:
        given: the user's choice, "" if it is for us to see.
        what: names the fact in errors.
        option: the task and its option that takes the choice, such as `survive event_is`.

    Raises:
        ConfigError: there are more than two values, or they don't say which one counts.
    """
    names, _ = labels_of(fact)
    if len(names) > 2:
        raise ConfigError(
            f"The {what} has {len(names)} different values ({listed(names)}); it needs two.",
            "Name another column, or predict one class of several: --task classify",
        )
    if given:
        if given not in names and len(names) == 2:
            raise UnknownNameError.of(f"value of the {what}", given, names)
        return given
    for name in names:
        if name.lower() in YES:
            return name
    if len(names) == 2 and sum(name.lower() in NO for name in names) == 1:
        return next(name for name in names if name.lower() not in NO)
    if len(names) == 1 and names[0].lower() in NO:
        return "true" if names[0].lower() == "false" else "1"
    raise ConfigError(
        f"The {what} has the values {listed(names)}, and neither says that it is the one that "
        "counts.",
        f"Say which: --task '{option}={names[-1]}'",
    )


def flags_of(fact: Fact, value: str) -> tuple[np.ndarray, np.ndarray]:
    """(bool `[n]`: the rows with that value; bool `[n]`: the rows with any)."""
    names, index = labels_of(fact)
    found = np.array([*(name == value for name in names), False])
    return found[index], index >= 0
