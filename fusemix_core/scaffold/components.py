"""The kinds of components that a new plugin may have, and what its package says of each."""

from __future__ import annotations

from typing import Any, NamedTuple


class Template(NamedTuple):
    """The default summary of a kind's example, and its options with their defaults."""

    summary: str
    options: dict[str, Any]


TEMPLATES: dict[str, Template] = {
    "adapter": Template("two thin matrices", {"rank": 16}),
    "mixup": Template("each row with another of the batch", {}),
    "objective": Template("contrast in both directions", {"temperature": 0.1}),
    "optimiser": Template("the sign of a momentum", {"momentum": 0.9}),
    "aligner": Template("directions that all modalities share", {"dim": 64}),
    "scorer": Template("cosine of centred embeddings", {}),
    "correction": Template("a part of the way to the mean", {"share": 0.25}),
    "selector": Template("pairs at random", {}),
    "evaluator": Template("how far apart partners are", {}),
    "reader": Template("files of lines, image and text", {"separator": "\t"}),
    "medium": Template("arrays in NumPy files", {}),
    "recipe": Template("linear adapters, InfoNCE", {}),
    "fuser": Template("one ridge regression of all modalities", {"penalty": 1.0}),
    "reranker": Template("means of tokens, compared", {"width": 32}),
    "task": Template("a count, by a Poisson loss", {"mean": 1.0}),
    "index": Template("all vectors in one file", {}),
    "exporter": Template("what a model is, as a text file", {}),
}
"""Kind → its example, which is in `files/KIND.py.tmpl`."""


def files_of(kind: str, package: str) -> dict[str, str]:
    """Path in the package → the template that it is made from."""
    own = "recipe" if kind == "recipe" else "component"
    return {
        "pyproject.toml": "component_pyproject.toml",
        "README.md": "component_README.md",
        ".gitignore": "gitignore",
        f"src/{package}/__init__.py": f"{own}_init.py",
        f"src/{package}/{kind}.py": f"{kind}.py",
        f"tests/test_{package}.py": f"{own}_test.py",
    }


def facts_of(kind: str) -> str:
    """The lines of the spec after its summary."""
    options = TEMPLATES[kind].options
    if not options:
        return ""
    shown = ", ".join(f'"{name}": {_literal(value)}' for name, value in options.items())
    return f"\n    options={{{shown}}},"


def _literal(value: Any) -> str:
    return repr(value).replace("'", '"')
