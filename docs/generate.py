"""Writes the reference pages that follow from the code: `python docs/generate.py`.

The command line from its own help, encoders and components from the registry (of the plugins in
this repository), checks from the conformance kit. A test holds the committed pages to what this
makes.
"""

from __future__ import annotations

import inspect
import json
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import brought
import compared
import front
from typer.main import get_command

from fusemix_core.benchmark.lines import read_lines
from fusemix_core.benchmark.page import draw, of_setting, page, settings, slug
from fusemix_core.benchmark.summary import summarise
from fusemix_core.cli.app import app
from fusemix_core.cli.plugins_app import add_plugin_commands
from fusemix_core.jobs.rank import Pairing, Ranking
from fusemix_core.jobs.rank_picture import write_heat_map
from fusemix_core.registry import Registry
from fusemix_core.specs import KINDS, EncoderSpec, FamilySpec
from fusemix_core.testing.adapters import ADAPTER
from fusemix_core.testing.aligners import ALIGNER
from fusemix_core.testing.corrections import CORRECTION
from fusemix_core.testing.encoders import ENCODER
from fusemix_core.testing.evaluators import EVALUATOR
from fusemix_core.testing.exporters import EXPORTER
from fusemix_core.testing.fusers import FUSER
from fusemix_core.testing.generator_case import GENERATOR
from fusemix_core.testing.indexes import INDEX
from fusemix_core.testing.media import MEDIUM
from fusemix_core.testing.mixups import MIXUP
from fusemix_core.testing.objectives import OBJECTIVE
from fusemix_core.testing.optimisers import OPTIMISER
from fusemix_core.testing.readers import READER
from fusemix_core.testing.rerankers import RERANKER
from fusemix_core.testing.scorers import SCORER
from fusemix_core.testing.selectors import SELECTOR
from fusemix_core.testing.tasks import TASK

FOLDER = Path(__file__).parent / "reference"
RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"
COMPARED = {
    "methods": """## Methods

Every recipe on every set:
`fusemix bench --config benchmarks/methods.toml --root DATA --out benchmarks/results/methods`.
`openstax` are textbook figures and alt texts (5,468, split by module), `chebi20` molecules and
descriptions (3,301), `esc10` sounds and the names of their ten classes (320, split by fold),
`clothing10` photos of clothes of ten classes, classified by models of `openstax`.
Settings of `structure`, `sail` and `freeze-align` were chosen on validation pairs that no seed is
tested on ([how](methods/sail.md#at-its-best)). Seconds on `openstax` were measured with one thread,
on a machine that did other work, too: in CPU seconds a fit of `fusemix` takes 426, of `auto` 21, of
`freeze-align` 19, of `sail` 12 and of `structure` 7.
""",
    "few": """## From 500 pairs

`fusemix bench --config benchmarks/few.toml --root DATA --out benchmarks/results/few`.
The published FuseMix adapters are left out, as a fit takes minutes for so few pairs; *small MLP* is
its recipe with one narrow block.
""",
    "views": """## The default, with and without

The gain of the text encoder's middle layer beside the last (`layers-middle-last`, which the
default recipe prefers), and the linear part of the kernel:
`fusemix bench --config benchmarks/views.toml --root DATA --out benchmarks/results/views`.
""",
    "parts": """## Augmentations and objectives

One small network, with one part exchanged:
`fusemix bench --config benchmarks/parts.toml --root DATA --out benchmarks/results/parts`.
The batch is counted after mixing.
""",
}
NOTE = "<!-- Made by docs/generate.py; change the code, then run it. -->\n\n"


def pages(registry: Registry) -> dict[str, str]:
    """File name → text of every generated page."""
    return {
        "cli.md": cli_page(registry),
        "encoders.md": encoders_page(registry),
        "generators.md": generators_page(registry),
        "components.md": components_page(registry),
        "checks.md": checks_page(),
        "../comparison.md": comparison_page(),
        "../../fusemix_core/brought.json": brought.brought(registry),
        **front.pages(registry),
    }


# -- the command line ----------------------------------------------------------------------------


def cli_page(registry: Registry) -> str:
    add_plugin_commands(app, registry)
    parts = [
        "# Command line\n",
        "The texts of `--help`, in one page. `fusemix --debug COMMAND …` shows tracebacks. Exit "
        "codes: 0 done, 2 something for you to mend, 1 a fault of ours, 130 and 143 "
        "interrupted after saving.\n",
    ]
    for name, command in commands(get_command(app), "fusemix"):
        parts.append(command_section(name, command))
    return NOTE + "\n".join(parts)


def commands(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    """(full name, command) of every command that does something, groups' children included and
    earlier names left out."""
    for child_name, child in getattr(command, "commands", {}).items():
        if hasattr(child, "commands"):
            yield from commands(child, f"{name} {child_name}")
        elif not child.hidden:
            yield f"{name} {child_name}", child


def command_section(name: str, command: Any) -> str:
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option"]
    usage = [name, "[OPTIONS]" if options else "", *(argument_usage(p) for p in arguments)]
    text, _, examples = inspect.cleandoc(command.help or "").partition("Example")
    lines = [f"## `{name}`\n", f"`{' '.join(u for u in usage if u)}`\n", text.strip() + "\n"]
    shown = [line for line in examples.splitlines()[1:] if line.strip()]
    if shown:
        lines += ["```text", textwrap.dedent("\n".join(shown)), "```", ""]
    if arguments or options:
        lines += ["| option | what it does |", "|---|---|"]
        lines += [f"| `{argument_usage(p)}` | {cell(p.help or '')} |" for p in arguments]
        panels = dict.fromkeys(p.rich_help_panel for p in options)
        for panel in sorted(panels, key=lambda panel: panel is not None):
            lines += [f"| **{panel}** | |"] if panel else []
            of_panel = [p for p in options if p.rich_help_panel == panel]
            lines += [f"| {option_names(p)} | {cell(p.help or '')} |" for p in of_panel]
        lines.append("")
    return "\n".join(lines)


def argument_usage(parameter: Any) -> str:
    name = parameter.metavar or parameter.name.upper()
    return name if parameter.required else f"[{name}]"


WORDS = {
    "int": "N",
    "int range": "N",
    "float": "NUMBER",
    "float range": "NUMBER",
    "path": "PATH",
    "str": "NAME",
}
"""What an option takes that has no metavar: its type, as `--help` shows it, in a word."""


def option_names(parameter: Any) -> str:
    names = ", ".join(f"`{o}`" for o in (*parameter.opts, *parameter.secondary_opts))
    return (
        names
        if parameter.is_flag
        else f"{names} `{parameter.metavar or WORDS[parameter.type.name]}`"
    )


# -- the registry --------------------------------------------------------------------------------


def encoders_page(registry: Registry) -> str:
    rows = registry.all_encoders()
    encoders = [(d, s) for d, s in rows if isinstance(s, EncoderSpec)]
    families = [(d, s) for d, s in rows if isinstance(s, FamilySpec)]
    parts = [
        "# Encoders\n",
        "The encoders of the plugins of this repository. `fusemix encoders list` shows the "
        "installed ones, `fusemix encoders show NAME` the details of one. How names work: "
        "[encoders](../how-to/encoders.md).\n",
        *family_table(families),
    ]
    for modality in dict.fromkeys(s.modality for _, s in encoders):
        parts += [
            f"## {modality.capitalize()}\n",
            "| name | width | views | licence | plugin | |",
            "|---|---|---|---|---|---|",
        ]
        for dist, s in encoders:
            if s.modality == modality:
                names = ", ".join(f"`{n}`" for n in (s.name, *s.aliases))
                views = ", ".join(s.views)
                what = f"[{cell(s.summary)}]({s.paper})" if s.paper else cell(s.summary)
                parts.append(
                    f"| {names} | {s.dim or ''} | {views} | {cell(s.licence)} | {dist} | {what} |"
                )
        parts.append("")
    return NOTE + "\n".join(parts)


def generators_page(registry: Registry) -> str:
    rows = registry.all_generators()
    families = [(d, s) for d, s in rows if isinstance(s, FamilySpec)]
    parts = [
        "# Generators\n",
        "The generators of the plugins of this repository. `fusemix generators list` shows the "
        "installed ones. How they are used: [generate images](../how-to/generate.md).\n",
        "| name | makes | conditioned by | options | licence | plugin | |",
        "|---|---|---|---|---|---|---|",
    ]
    for dist, s in rows:
        if not isinstance(s, FamilySpec):
            options = ", ".join(f"`{k}={v!r}`" for k, v in s.options.items())
            what = f"[{cell(s.summary)}]({s.paper})" if s.paper else cell(s.summary)
            space = f"`{s.space}`, {s.view}" if s.space else s.condition
            of_spec = f"{s.makes} | {space} | {options} | {cell(s.licence)}"
            parts.append(f"| `{s.name}` | {of_spec} | {dist} | {what} |")
    parts += ["", *family_table(families)] if families else [""]
    return NOTE + "\n".join(parts)


def family_table(families: list[tuple[str, FamilySpec]]) -> list[str]:
    return [
        "## Families\n",
        "| name | opens | example | plugin |",
        "|---|---|---|---|",
        *(
            f"| `{s.prefix}:NAME` | {cell(s.summary)} | `{s.example}` | {dist} |"
            for dist, s in families
        ),
        "",
    ]


def components_page(registry: Registry) -> str:
    parts = [
        "# Components and recipes\n",
        "The parts of a recipe. `fusemix recipes components` lists the installed ones. Options "
        "are given as `--set adapter.blocks=2`, with the default here.\n",
    ]
    for kind in KINDS:
        rows = registry.all_components(kind)
        if not rows:
            continue
        parts += [
            f"## {plural(kind).capitalize()}\n",
            "| name | | options | plugin |",
            "|---|---|---|---|",
        ]
        for dist, s in rows:
            options = ", ".join(f"`{k}={v!r}`" for k, v in s.options.items())
            what = f"[{cell(s.summary)}]({s.paper})" if s.paper else cell(s.summary)
            parts.append(f"| `{s.name}` | {what} | {options} | {dist} |")
        parts.append("")
    return NOTE + "\n".join(parts)


def plural(kind: str) -> str:
    return f"{kind}es" if kind.endswith("x") else f"{kind}s"


# -- the conformance kit -------------------------------------------------------------------------


def checks_page() -> str:
    parts = [
        "# Checks\n",
        "The checks of [the conformance kit](testing.md). *Floor*: so many must have "
        "passed before a run counts as a success.\n",
    ]
    for suite in (
        ENCODER,
        GENERATOR,
        ADAPTER,
        MIXUP,
        OBJECTIVE,
        OPTIMISER,
        ALIGNER,
        SCORER,
        CORRECTION,
        SELECTOR,
        READER,
        MEDIUM,
        EVALUATOR,
        FUSER,
        RERANKER,
        TASK,
        INDEX,
        EXPORTER,
    ):
        parts += [
            f"## {plural(suite.kind).capitalize()}\n",
            f"{len(suite.checks)} checks; floor {suite.least}.\n",
            "| check | passes if |",
            "|---|---|",
            *(f"| `{c.name}` | {cell(c.holds)} |" for c in suite.checks.values()),
            "",
        ]
    return NOTE + "\n".join(parts)


# -- the benchmark of methods --------------------------------------------------------------------


def comparison_page() -> str:
    parts = [
        "# Methods compared\n",
        "Made by `fusemix bench` ([how to](how-to/bench.md)) and `docs/generate.py` from the "
        "results in `benchmarks/results/`. Seconds are of two cores that did other work too: "
        "orders of magnitude.\n",
    ]
    for name, text in COMPARED.items():
        lines = read_lines(RESULTS / name / "results.jsonl")
        entries = summarise(lines)
        plots = {s: f"comparison/{name}-{slug(s)}.svg" for s in settings(entries)}
        if lines:
            parts += [text, *page(entries, lines, plots, level=3)]
    more = [*ranking_section(), *compared.fusers_section(), *compared.rerankers_section()]
    return NOTE + "\n".join([*parts, *more])


RANKING = """## Choosing before training

`fusemix rank` on the layers of the text encoder, with the default recipe fitted to each pairing:
`python -m benchmarks.rank --data DATA`. The table has Spearman's correlation between what is known
before training and the mean recall after it: 1 where the one orders the pairings as the other does.
Few pairings make it rough.
"""


def rankings() -> dict[str, Ranking]:
    """The kept rankings by the name of their set."""
    found = {}
    for path in sorted((RESULTS / "rank").glob("*.json")):
        told = json.loads(path.read_text())
        told.pop("machine")
        told["pairings"] = [Pairing(**p) for p in told["pairings"]]
        found[path.stem] = Ranking(**told)
    return found


def ranking_section() -> list[str]:
    kept = rankings()
    if not kept:
        return []
    heads = [f"{n} ({len(r.pairings)} pairings)" for n, r in kept.items()]
    lines = [RANKING, f"| measure | {' | '.join(heads)} |", f"|---|{'---|' * len(kept)}"]
    for measure in next(iter(kept.values())).spearman:
        values = [r.spearman[measure] for r in kept.values()]
        shown = ["" if v is None else f"{v:+.2f}" for v in values]
        lines.append(f"| `{measure}` | {' | '.join(shown)} |")
    for name, ranking in kept.items():
        best = max(ranking.pairings, key=lambda p: p.reached)
        closed = max(ranking.pairings, key=lambda p: p.score)
        lines += [
            "",
            f"### {name}",
            "",
            f"Best after training: {best.a} with {best.b}, mean recall {100 * best.reached:.1f}%. "
            f"Linear CCA's best, {closed.a} with {closed.b}: {100 * closed.reached:.1f}%.",
            "",
            f"![{name}](comparison/rank-{name}.svg)",
        ]
    return [*lines, ""]


def draw_comparison() -> None:
    """The plots of the comparison, beside its page."""
    for name in COMPARED:
        entries = summarise(read_lines(RESULTS / name / "results.jsonl"))
        for setting in settings(entries):
            path = FOLDER.parent / "comparison" / f"{name}-{slug(setting)}.svg"
            draw(of_setting(entries, setting), path)
    for name, ranking in rankings().items():
        write_heat_map(FOLDER.parent / "comparison" / f"rank-{name}.svg", ranking)


def cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("[", "\\[")


if __name__ == "__main__":
    for file, text in pages(Registry()).items():
        (FOLDER / file).write_text(text.rstrip("\n") + "\n", encoding="utf-8")
        print(FOLDER / file)
    draw_comparison()
    front.draw_chart()
