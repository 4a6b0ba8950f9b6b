"""How plans and results look on the terminal."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.text import Text

from fusemix_core.cli.console import duration, out, print_json, print_table, shorten, size
from fusemix_core.runs.facts import facts_table
from fusemix_core.sections import Cell, Section, Share

if TYPE_CHECKING:
    from fusemix_core.evaluation.examples import Retrieved
    from fusemix_core.jobs.run import RunResult
    from fusemix_core.runs.plan import EncoderPlan, Plan

OPENER = {"darwin": "open", "win32": "start"}.get(sys.platform, "xdg-open")
"""The command that opens a page in the browser."""

UNKNOWN = "time unknown on this machine yet"


def show_plan(plan: Plan, json: bool) -> None:
    """What a run will do."""
    from fusemix_core.devices import resolve_device

    if json:
        print_json(plan.as_dict())
        return
    show_encoders(plan.encoders.values())
    pairs = ", ".join(f"{len(rows):,} {name}" for name, rows in plan.dataset.splits.items())
    out.print(f"pairs:   {pairs}; {len(plan.dataset.rejected):,} entries rejected")
    if plan.dataset.unpaired:
        counts = [f"{len(ids):,} {modality}" for modality, ids in plan.dataset.unpaired.items()]
        out.print(f"unpaired: {', '.join(counts)}, for training without pairs")
    if facts := facts_table(plan.dataset.facts, plan.config.data):
        shown = ", ".join(f"{name} ({_in_short(fact)})" for name, fact in facts.items())
        out.print(f"facts:   {shown}", markup=False, highlight=False, soft_wrap=True)
    if (recipe := plan.config.recipe).pairs is not None:
        by = recipe.selector.name if recipe.selector else "uniform"
        out.print(f"chosen:  {recipe.pairs:,} of the training pairs, by {by}")
    time = UNKNOWN if plan.fit_seconds is None else duration(plan.fit_seconds)
    out.print(f"recipe:  {recipe.name} ({time})")
    if plan.config.extends:
        out.print(f"extends: {plan.config.extends}", soft_wrap=True)
    if plan.fixed:
        out.print(f"fixed:   {', '.join(plan.fixed)}")
    by = " (auto)" if plan.config.device == "auto" else ""
    out.print(f"device:  {resolve_device(plan.config.device)}{by}")


def _in_short(fact: Mapping[str, Any]) -> str:
    """The kind of a fact, its classes, and how many rows miss it."""
    classes = [f"{fact['classes']:,} classes"] if "classes" in fact else []
    missing = [f"missing in {fact['missing']:,}"] if fact["missing"] else []
    return ", ".join([fact["kind"], *classes, *missing])


def show_encoders(encoders: Iterable[EncoderPlan]) -> None:
    """What is to be encoded, a row per encoder, and what that costs."""
    encoders = list(encoders)
    if not encoders:
        return
    rows = [
        [
            e.modality,
            e.spec.name if e.view == e.spec.views[0] else f"{e.spec.name} ({e.view})",
            e.items,
            e.cached,
            None if e.cached is None else e.items - e.cached,
            size(e.store_bytes),
            "unknown yet" if e.seconds is None else duration(e.seconds),
        ]
        for e in encoders
    ]
    print_table(["modality", "encoder", "items", "cached", "to encode", "to store", "time"], rows)
    for e in encoders:
        for line in e.learnt:
            out.print(Text(f"{e.modality + ':':<8} {line}"), soft_wrap=True)
        if e.tokens:
            out.print(
                f"cost:    {e.spec.name}: about US${e.cost:,.4f} for about {e.tokens:,} tokens, "
                f"at US${e.spec.price:g} a million and four characters a token",
                highlight=False,
                soft_wrap=True,
            )


def show_sections(sections: Iterable[Section]) -> None:
    """What evaluators show: texts and tables, without figures and folded tables."""
    for section in sections:
        if tables := [t for t in section.tables if not t.folded]:
            out.print()
            out.print(Text(section.title, style="bold"))
        for table in tables:
            if table.caption:
                out.print(table.caption, style="dim")
            rows = [*table.rows, *([] if table.footer is None else [table.footer])]
            right = [
                all(isinstance(cell, int | float | None) for cell in column)
                for column in zip(*rows, strict=True)
            ]
            print_table(table.columns, [[_cell(c) for c in row] for row in rows], right=right)
        for text in (section.text, section.note) if tables else ():
            if text:
                out.print(text, style="dim", soft_wrap=True)


def _cell(cell: Cell) -> str | int | None:
    """A cell of a section as people read it."""
    if isinstance(cell, Share):
        return None if cell.value is None else with_interval(cell.value, cell.interval)
    if isinstance(cell, float) and not float(cell).is_integer():
        return f"{cell:.3f}" if abs(cell) < 10 else f"{cell:.1f}"
    return int(cell) if isinstance(cell, float) else cell


def with_interval(value: float, interval: Sequence[float] | None) -> str:
    """`41.2 [38.0, 44.9]`."""
    return f"{value:.1f}" + (f" [{interval[0]:.1f}, {interval[1]:.1f}]" if interval else "")


def show_result(result: RunResult, json: bool) -> None:
    """What a run gave, where it is, what searching it is like, and how to load it."""
    folder = result.folder
    if json:
        print_json({**result.results, "model": str(folder.model), "report": str(folder.report)})
        return
    results = result.results
    for sections in result.sections.values():
        show_sections(sections)
    if why := results.get("cut_short"):
        out.print(f"The fit was cut short. {why}.", style="yellow")
    if unpaired := results.get("never_paired"):
        out.print(f"Never paired in training: {', '.join(unpaired)}.")
    show_examples(result)
    out.print()
    out.print(f"model:   {folder.model}", soft_wrap=True)
    out.print(f"report:  {folder.report}", soft_wrap=True)
    if rejected := results["rejected"]:
        out.print(f"bad:     {rejected:,} entries set aside in {folder.rejected}", soft_wrap=True)
    out.print()
    out.print("Search it, and look at the report:", style="bold")
    out.print(Text(result.search), soft_wrap=True)
    out.print(Text(f"{OPENER} {shlex.quote(str(folder.report))}"), soft_wrap=True)
    out.print()
    out.print("Load it from Python:", style="bold")
    out.print(Text(result.usage), soft_wrap=True)


def show_examples(result: RunResult, count: int = 3) -> None:
    """Three searches: text queries if there is text, right and wrong as they were drawn."""
    found = result.examples
    of_text = [r for r in found if _is_inline(result, r.query)] or found
    right = [r for r in of_text if r.rank == 1]
    wrong = [r for r in of_text if r.rank > 1]
    for retrieved in (right[: count - 1] + wrong)[:count]:
        _show_search(result, retrieved)


def _show_search(result: RunResult, retrieved: Retrieved) -> None:
    items = result.encoded.dataset.items
    query = items[retrieved.query].describe(retrieved.item)
    out.print()
    out.print(Text.assemble((f"{retrieved.query}: ", "bold"), shorten(query)), soft_wrap=True)
    for place, hit in enumerate(retrieved.hits, 1):
        mark = ("✓ ", "green") if hit.partner else ("  ", "")
        name = _name(result, retrieved.target, hit.item)
        out.print(Text.assemble(f"  {place}. ", mark, f"{hit.score:6.3f}  {name}"), soft_wrap=True)
    if retrieved.rank > len(retrieved.hits):
        out.print(f"     its own {retrieved.target} came at rank {retrieved.rank}")


def _name(result: RunResult, modality: str, item: int) -> str:
    """A text; of a file the end of its path, and the first text that belongs to it."""
    dataset = result.encoded.dataset
    name = dataset.items[modality].describe(item)
    if _is_inline(result, modality):
        return shorten(name)
    name = "/".join(Path(name).parts[-2:])
    text = next((m for m in dataset.modalities if _is_inline(result, m)), None)
    if text is None:
        return name
    own = dataset.links[:, dataset.modalities.index(modality)] == item
    texts = dataset.links[own, dataset.modalities.index(text)]
    texts = texts[texts >= 0]
    return f"{name}  {shorten(dataset.items[text].describe(texts[0]), 60)}" if len(texts) else name


def _is_inline(result: RunResult, modality: str) -> bool:
    return result.encoded.dataset.items[modality].medium.inline
