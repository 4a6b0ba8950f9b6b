"""Every error a user can meet: a message that says what is wrong, a hint that says what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence

from fusemix_core.project import how_to_install, plugin_of


def short(text: object, most: int = 120) -> str:
    """A text of the user's as a message shows it: cut in its middle if it is long."""
    shown = str(text)
    half = most // 2
    return shown if len(shown) <= most else f"{shown[:half]}…{shown[-half:]}"


class FusemixError(Exception):
    """Base of all errors raised on purpose.

    `exit_code` is what the command line returns: 2 if the user can mend it, 1 where we must.
    """

    exit_code = 2

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class ConfigError(FusemixError):
    """An option or a config file contains something that can't be used."""


class UnknownNameError(ConfigError):
    """A name that nothing has registered."""

    @classmethod
    def of(cls, kind: str, name: str, known: Iterable[str], note: str = "") -> UnknownNameError:
        """The error for `name`, with how to install the plugin that brings it, or the nearest of
        `known` and an optional note, in its hint."""
        if plugin := plugin_of(kind, name):
            return cls(
                f"The {kind} '{name}' comes with the plugin {plugin}, which is not installed.",
                how_to_install(plugin),
            )
        known = sorted(set(known))
        near = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.5)
        near += [k for k in known if name and name.lower() in k and k not in near][:3]
        if near:
            hint = "Did you mean " + " or ".join(f"'{n}'" for n in near) + "?"
        elif known:
            hint = f"Known: {', '.join(known[:12])}{', …' if len(known) > 12 else ''}."
        else:
            hint = f"Nothing of this kind is installed: a plugin brings each {kind}."
        return cls(
            f"There is no {kind} named '{short(name)}'.", "\n".join(filter(None, [hint, note]))
        )


class PluginError(FusemixError):
    """A plugin could not be loaded, or two plugins claim one name."""


class MissingDependencyError(FusemixError):
    """A package that the named thing needs is not installed; the hint is the pip line."""

    @classmethod
    def of(cls, what: str, module: str, requirement: str) -> MissingDependencyError:
        """The error for `what`, which imports `module`, found in the pip `requirement`."""
        return cls(
            f"'{what}' needs the Python package '{module}', which is not installed.",
            how_to_install(requirement),
        )


class DataError(FusemixError):
    """A dataset can't be read. Give `path` and `row` (1-based, header not counted) where known.

    `reason` is the message without these.
    """

    def __init__(
        self, message: str, hint: str = "", *, path: object = None, row: int | None = None
    ) -> None:
        where = f"{path}" if path is not None else ""
        if row is not None:
            where += f", row {row}"
        super().__init__(f"{where}: {message}" if where else message, hint)
        self.reason, self.path, self.row = message, path, row


class ContractError(FusemixError):
    """A component returned something its interface forbids."""

    exit_code = 1

    def __init__(self, component: str, expected: str, got: str) -> None:
        super().__init__(
            f"{component} broke its contract: expected {expected}, got {got}.",
            "This is a fault of the component, not of your data; report it to its author.",
        )


class DivergedError(FusemixError):
    """The loss of a batch, or a weight, is not a finite number. `items` are those of the batch
    if one is known, modality → ids in the tables it was drawn from."""

    def __init__(
        self, message: str, hint: str = "", items: Mapping[str, Sequence[int]] | None = None
    ) -> None:
        super().__init__(message, hint)
        self.items = items or {}


class ArtefactError(FusemixError):
    """A saved model, checkpoint or shard is missing, damaged or does not fit."""


class RunExistsError(FusemixError):
    """The output folder already contains a run."""
