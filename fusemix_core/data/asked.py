"""Which modality a query is of, by how it looks."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from fusemix_core.data.media import medium
from fusemix_core.errors import ConfigError, short
from fusemix_core.registry import registry


def modality_of(query: str, takes: Mapping[str, str], given: str | None = None) -> str:
    """The modality of a query: as given, else text unless it is the path of a file.

    A path is of the modality that takes such files.

    Args:
        query: A text, or the path of a file.
        takes: The modalities of queries → their medium.
        given: The modality, if the user said so.

    Raises:
        ConfigError: That is not clear, or the query looks like the name of a file that isn't there.
    """
    if given is not None:
        if given not in takes:
            raise ConfigError(
                f"The model has no modality '{given}'.", f"It has {', '.join(takes)}."
            )
        return given
    is_file = Path(query).is_file()
    if not is_file:
        _check_typed(query)
    wanted = {media_of(query)} if is_file else {"text"}
    fitting = [m for m, how in takes.items() if how in wanted]
    if not fitting and is_file:
        fitting = [m for m, how in takes.items() if how == "file"]
    if len(fitting) != 1:
        ids = all(how == "id" for how in takes.values())
        what = "a file" if is_file else "an id" if ids else "a text"
        raise ConfigError(
            f"'{query}' is {what}; this model's modalities are {', '.join(takes)}.",
            "Say which it is with --from MODALITY, or mend the path.",
        )
    return fitting[0]


def _check_typed(query: str) -> None:
    """Raise `ConfigError` if a query that is not a file looks like the name of one."""
    path = Path(query)
    if query.split() != [query] or media_of(query) == "file" or medium(media_of(query)).inline:
        return
    folder = path.parent
    with suppress(OSError):
        near = [one.name for one in folder.iterdir()]
        lower = {name.lower(): name for name in near}
        found = difflib.get_close_matches(path.name.lower(), list(lower), n=3)
        close = [str(folder / lower[name]) for name in found]
        hint = f"Did you mean {' or '.join(close)}?\n" if close else ""
        raise _no_file(query, "There is no such file.", hint)
    raise _no_file(query, f"There is no folder {folder}.", "")


def _no_file(query: str, why: str, hint: str) -> ConfigError:
    return ConfigError(
        f"'{short(query)}' looks like the name of a file. {why}",
        f"{hint}If it is a text: --from text",
    )


def media_of(path: str) -> str:
    """The medium of a file by its suffix: `image`, `audio`, …, or `file`."""
    suffix = Path(path).suffix.lower()
    return next((m.medium for m in registry.all_modalities() if suffix in m.suffixes), "file")
