"""Whose Python code may run: of model repositories none, but those that the user names."""

from __future__ import annotations

_TRUSTED: set[str] = set()


def trust_remote_code(repository: str) -> None:
    """Let the Python code of this one model repository (a hub id, or a folder) run, in this
    process. What `fusemix --trust-remote-code REPOSITORY` does.

    Nothing else can: no data file, no saved model and no plugin has a say.
    """
    _TRUSTED.add(repository)


def trusts_code_of(repository: str) -> bool:
    """Whether the user has named the repository; for plugins, where they load it."""
    return repository in _TRUSTED
