"""The kinds of components that a new plugin may have, and what its package says of each."""

from __future__ import annotations

from typing import Any, NamedTuple

_PAIRS = "--a efficientnet-lite0 --b minilm --data sample/pairs.csv"
_MODALITIES = "-e image=efficientnet-lite0 -e text=minilm --data sample/pairs.csv"


class Template(NamedTuple):
    """The default summary of a kind's example, its options with their defaults, and a command that
    uses it, in which `{name}` is its name."""

    summary: str
    options: dict[str, Any]
    use: str


def _set(part: str, options: str = "") -> str:
    setting = f'"{part}={{name}} {options}"' if options else f"{part}={{name}}"
    return f"fusemix align {_PAIRS} --recipe fusemix --set {setting}"


TEMPLATES: dict[str, Template] = {
    "adapter": Template("two thin matrices", {"rank": 16}, _set("adapter", "rank=8")),
    "mixup": Template("each row with another of the batch", {}, _set("mixup")),
    "objective": Template(
        "contrast in both directions",
        {"temperature": 0.1},
        _set("objective", "temperature=0.05"),
    ),
    "optimiser": Template(
        "the sign of a momentum", {"momentum": 0.9}, _set("optimiser", "momentum=0.8")
    ),
    "aligner": Template(
        "directions that all modalities share", {"dim": 64}, _set("aligner", "dim=32")
    ),
    "scorer": Template("cosine of centred embeddings", {}, _set("scorer")),
    "correction": Template(
        "a part of the way to the mean",
        {"share": 0.25},
        'fusemix generate RUN --from text "a red fish" --with GENERATOR --correct {name}',
    ),
    "selector": Template(
        "pairs at random", {}, f"fusemix align {_PAIRS} --select {{name}} --pairs 500"
    ),
    "evaluator": Template(
        "how far apart partners are", {}, "fusemix eval runs/first --evaluator {name}"
    ),
    "reader": Template(
        "files of lines, image and text",
        {"separator": "\t"},
        'fusemix data check FILE --reader "{name} separator=;"',
    ),
    "medium": Template("arrays in NumPy files", {}, "fusemix recipes components --kind medium"),
    "recipe": Template("linear adapters, InfoNCE", {}, f"fusemix align {_PAIRS} --recipe {{name}}"),
    "fuser": Template(
        "a hidden layer that all modalities share",
        {"width": 64, "mix": 0.4, "drop": None, "training": {}},
        f'fusemix fuse {_MODALITIES} --target book --fuser "{{name}} width=128"',
    ),
    "reranker": Template(
        "means of tokens, compared",
        {"width": 32},
        'fusemix rerank runs/first --network "{name} width=64"',
    ),
    "task": Template(
        "a count, by a Poisson loss",
        {"mean": 1.0},
        "fusemix fuse -e text=minilm --data TABLE --target COLUMN --task {name}",
    ),
    "index": Template(
        "all vectors in one file",
        {},
        "fusemix index runs/first --data sample/pairs.csv --kind {name} --out sample.index",
    ),
    "exporter": Template(
        "what a model is, as a text file",
        {},
        "fusemix export runs/first --to {name} --out exported",
    ),
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


def use_of(kind: str, name: str) -> str:
    """A command that uses a component of a kind."""
    return TEMPLATES[kind].use.format(name=name)


def _literal(value: Any) -> str:
    return repr(value).replace("'", '"')
