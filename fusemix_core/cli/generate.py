"""`fusemix generate`: an item of one modality makes items of another."""

from __future__ import annotations

import re
import webbrowser
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text
from typer.core import TyperCommand

from fusemix_core.cli import options as o
from fusemix_core.cli.console import Notes, out, print_json, print_table
from fusemix_core.cli.groups import OutputOptions, given, grouped
from fusemix_core.config import parse_assignment
from fusemix_core.errors import ConfigError

if TYPE_CHECKING:
    from fusemix_core.jobs.generate import Generated
    from fusemix_core.runs.generating import GeneratePlan, Item

_PAIRED = ("--from", "--not")
"""Options that take a modality and an item."""

_MODALITY = re.compile(r"\w[\w-]*(:\w[\w-]*)?")
_WITH = re.compile(r"\w[\w-]*(:\w[\w-]*)?=")
SOURCE, DRAWING = "What to generate from", "How to generate"
"""Panels of `--help`."""


class GenerateCommand(TyperCommand):
    """Takes `--from MODALITY ITEM`, which typer has no form for."""

    # Typer has no public name for the class of `ctx`.
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, joined(args))


def joined(args: list[str]) -> list[str]:
    """Write `--from MODALITY ITEM` as `--from MODALITY=ITEM`, and `--from ITEM` as
    `--from =ITEM`."""
    found, at = [], 0
    while at < len(args):
        one, rest = args[at], args[at + 1 : at + 3]
        if one not in _PAIRED or not rest:
            found.append(one)
            at += 1
            continue
        pair = len(rest) == 2 and _MODALITY.fullmatch(rest[0]) and not rest[1].startswith("--")
        if pair:
            value = f"{rest[0]}={rest[1]}"
        else:
            value = rest[0] if _WITH.match(rest[0]) else f"={rest[0]}"
        found += [one, value]
        at += 3 if pair else 2
    return found


@dataclass(frozen=True)
class SourceOptions:
    """The items: `--from`, `--weights`, `--not`, `--strip`, `--captions`."""

    from_: Annotated[
        list[str] | None,
        typer.Option(
            "--from",
            metavar="MODALITY ITEM",
            help="A text or a file; several make a mixture.",
            rich_help_panel=SOURCE,
        ),
    ] = None
    weights: Annotated[
        str | None,
        typer.Option(
            metavar="NUMBER,…", help="Of each --from, such as 0.7,0.3.", rich_help_panel=SOURCE
        ),
    ] = None
    avoid: Annotated[
        list[str] | None,
        typer.Option(
            "--not",
            metavar="MODALITY ITEM",
            help="An item that the result should be unlike.",
            rich_help_panel=SOURCE,
        ),
    ] = None
    strip: Annotated[
        int,
        typer.Option(help="Steps from the first item to the second.", rich_help_panel=SOURCE),
    ] = 0
    captions: Annotated[
        str,
        typer.Option(
            metavar="FILE",
            help="Texts, one per line, for a generator of tokens. The nearest one replaces an item "
            "of another modality.",
            rich_help_panel=SOURCE,
        ),
    ] = ""

    def table(self) -> dict[str, Any]:
        """Fields of `GenerateConfig`."""
        return {
            "items": _items(self.from_),
            "weights": _numbers(self.weights),
            "avoid": _items(self.avoid),
            "strip": self.strip,
            "captions": self.captions,
        }


@dataclass(frozen=True)
class DrawingOptions:
    """The generator and its options: `--with`, `--count`, `--seed`, `--steps`, `--guidance`,
    `--size`, `--correct`, `--rerank`, `--set`."""

    with_: Annotated[
        str,
        typer.Option(
            "--with",
            metavar="GENERATOR",
            help="A name of `fusemix generators list`, family:NAME, NAME@PATH or file.py:Class.",
            rich_help_panel=DRAWING,
        ),
    ] = ""
    count: Annotated[
        int, typer.Option("-n", "--count", min=1, help="How many.", rich_help_panel=DRAWING)
    ] = 1
    seed: Annotated[
        int,
        typer.Option(min=0, help="Of the first; the next are one higher.", rich_help_panel=DRAWING),
    ] = 0
    steps: Annotated[
        int | None, typer.Option(min=1, help="Of the sampler.", rich_help_panel=DRAWING)
    ] = None
    guidance: Annotated[
        float | None,
        typer.Option(help="How strictly to keep to the condition.", rich_help_panel=DRAWING),
    ] = None
    size: Annotated[
        int | None, typer.Option(min=1, help="Pixels a side.", rich_help_panel=DRAWING)
    ] = None
    correct: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="How embeddings are brought to the generator's space: none, norm, shift, bank, "
            "prior, or what validation chose.",
            rich_help_panel=DRAWING,
        ),
    ] = "auto"
    rerank: Annotated[
        int,
        typer.Option(
            min=1,
            help="Make so many times --count, and keep those that the model finds to fit best.",
            rich_help_panel=DRAWING,
        ),
    ] = 1
    setting: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Another option of the generator, which `fusemix generators show` lists.",
            rich_help_panel=DRAWING,
        ),
    ] = None

    def table(self) -> dict[str, Any]:
        """Fields of `GenerateConfig`.

        Raises:
            ConfigError: No generator is named.
        """
        if not self.with_:
            raise ConfigError(
                "Which generator?", "Name it: --with NAME. All of them: fusemix generators list"
            )
        named = {"steps": self.steps, "guidance": self.guidance, "size": self.size}
        return {
            "generator": self.with_,
            "count": self.count,
            "seed": self.seed,
            "correct": self.correct,
            "rerank": self.rerank,
            "options": {**dict(map(_setting, self.setting or ())), **given(**named)},
        }


@grouped
def generate(
    source: SourceOptions,
    drawing: DrawingOptions,
    output: OutputOptions,
    model: Annotated[
        str | None,
        typer.Argument(
            help="A run's or model's folder, PLUGIN:NAME of a plugin's model, or a hub id. None is "
            "needed for items of the generator's own space."
        ),
    ] = None,
    to: Annotated[
        Path,
        typer.Option(
            "--out", metavar="DIR", help="The folder for the files.", rich_help_panel=o.OUTPUT
        ),
    ] = Path("generated"),
    open_: Annotated[
        bool, typer.Option("--open", help="Open the page.", rich_help_panel=o.OUTPUT)
    ] = False,
    encoder: o.ModelEncoders = None,
    device: o.Device = None,
) -> None:
    """Generate from an item of any modality: a sound draws an image.

    The model must have been aligned to the encoder that the generator is conditioned by:
    `fusemix align … --fixed`. Each file is named for its item and seed. It says that it was
    generated, by which generator and from which items.

    Examples:

        fusemix generate runs/1 --from audio bark.wav --with emoji

        fusemix generate --from text "a red fish" --with emoji

        fusemix generate runs/1 --from audio bark.wav \\
            --from text "a red car" --weights 0.7,0.3 --with emoji -n 4

        fusemix generate runs/1 --from audio bark.wav --from audio rain.wav \\
            --strip 7 --with emoji --open
    """
    values: dict[str, Any] = {
        **source.table(),
        **drawing.table(),
        "model": model,
        "device": device or "auto",
    }
    from fusemix_core.jobs import generate as job

    plan = job.make_plan(job.GenerateConfig(**values), o.key_values(encoder, "--encoder"))
    if output.dry_run:
        show_plan(plan, output.json)
        return
    from fusemix_core.cli.progress import ConsoleReporter

    with ConsoleReporter(Notes()) as reporter:
        done = job.generate(plan, to, reporter=reporter)
    show(done, output.json)
    if open_:
        webbrowser.open(done.page.absolute().as_uri())


def _items(values: list[str] | None) -> tuple[Item, ...]:
    """The items of `--from` or `--not`, as `joined` gives them."""
    from fusemix_core.runs.generating import Item

    parts = [value.partition("=") for value in values or ()]
    return tuple(Item(modality, item) for modality, _, item in parts)


def _setting(text: str) -> tuple[str, Any]:
    keys, value = parse_assignment(text)
    return ".".join(keys), value


def _numbers(text: str | None) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in (text or "").split(",") if part.strip())
    except ValueError as error:
        raise ConfigError(
            f"--weights {text}: these are not numbers.", "Example: --weights 0.7,0.3"
        ) from error


def show_plan(plan: GeneratePlan, json: bool) -> None:
    """Show the plan."""
    if json:
        print_json(plan.as_dict())
        return
    rows = []
    for key, value in plan.as_dict().items():
        if key in ("from", "not"):
            rows += [[key, f"{one['modality']}: {one['item']}"] for one in value]
        elif value not in (None, "", [], 0):
            rows.append([key, _plain(value)])
    print_table(["", ""], rows)


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k}={v}" for k, v in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def show(done: Generated, json: bool) -> None:
    """Where the files are."""
    if json:
        print_json(done.as_dict())
        return
    for one in done.drawn:
        score = "" if one.score is None else f"  {one.score:.3f}"
        out.print(Text(f"{one.path}{score}"), soft_wrap=True)
    out.print(Text(f"page: {done.page}", style="dim"), soft_wrap=True)
