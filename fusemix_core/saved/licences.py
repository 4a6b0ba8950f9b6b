"""The strictest of several licences."""

from __future__ import annotations

import re
from collections.abc import Iterable

UNKNOWN = "unknown"
"""The identifier of hubs for a licence that nobody has stated."""
OTHER = "other"
"""The identifier of hubs for terms that they have no list of."""

_KINDS = (
    "cc0-1.0 unlicense wtfpl pddl",
    "mit isc zlib bsl-1.0 bsd bsd-2-clause bsd-3-clause apache-2.0 afl-3.0 postgresql ncsa",
    "odc-by cdla-permissive-1.0 cdla-permissive-2.0",
    "cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0",
    "mpl-2.0 epl-1.0 epl-2.0 lgpl lgpl-2.1 lgpl-3.0 eupl-1.1 eupl-1.2",
    "odbl cdla-sharing-1.0 cc-by-sa-3.0 cc-by-sa-4.0",
    "gpl gpl-2.0 gpl-3.0 agpl-3.0",
    "openrail openrail++ bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0",
    "cc-by-nd-4.0",
    "cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0",
    "cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0",
    "cc-by-nc-nd-3.0 cc-by-nc-nd-4.0",
)
"""Identifiers of the Hugging Face Hub, from the freest to the strictest kind."""
_ORDER = {name: i for i, name in enumerate(name for kind in _KINDS for name in kind.split())}
_NONE = "none"
"""How the licence of an encoder begins that has no weights to license."""


def identifier(licence: str) -> str:
    """The hub's identifier of a licence: `other` for a text that it has none for, `unknown` for
    none, and `none` if there is nothing to license."""
    name = " ".join(licence.lower().split())
    if not name or name == "not stated":
        return UNKNOWN
    if name.startswith(_NONE):
        return _NONE
    name = re.sub(r"-(only|or-later)$", "", name)
    return name if name in _ORDER else UNKNOWN if name == UNKNOWN else OTHER


def strictest(licences: Iterable[str]) -> str:
    """The identifier of the strictest of these licences.

    Terms of its own (`other`) come after all known ones, as they may ask for anything. A licence
    that is not stated makes the answer `unknown`: nobody can say what it asks for.

    Example:

        >>> strictest(["MIT", "CC-BY-4.0"])
        'cc-by-4.0'
    """
    names = [name for name in map(identifier, licences) if name != _NONE]
    if not names or UNKNOWN in names:
        return UNKNOWN
    return max(names, key=lambda name: _ORDER.get(name, len(_ORDER)))
