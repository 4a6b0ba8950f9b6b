"""`fusemix rank`: which encoders suit each other, before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fusemix_core.cli import options as o
from fusemix_core.cli.console import Notes
from fusemix_core.cli.groups import DataOptions, FactOptions, SideOptions, SplitOptions, grouped

if TYPE_CHECKING:
    from fusemix_core.jobs.rank import Pairing, Ranking, RankingPlan

_CORRELATED = 5
"""Pairings from which their rank correlation is shown."""


@dataclass(frozen=True)
class MeasureOptions:
    """How similarity is measured."""

    sample: Annotated[int, typer.Option(help="Pairs that the measures look at.")] = 1000
    shuffles: Annotated[int, typer.Option(help="Random pairings that chance is taken from.")] = 20


Probe = Annotated[
    str | None,
    typer.Option(
        help="Also fit this recipe to each pairing and show its recall: a run's time each."
    ),
]
HeatMap = Annotated[
    Path | None, typer.Option(metavar="SVG", help="Write a heat map of the pairings.")
]


@grouped
def rank(
    sides: SideOptions,
    data: DataOptions,
    splits: SplitOptions,
    facts: FactOptions,
    measures: MeasureOptions,
    view: o.Views = None,
    recipe: Probe = None,
    seed: o.Seed = None,
    device: o.Device = None,
    picture: HeatMap = None,
    dry_run: o.DryRun = False,
    json: o.Json = False,
) -> None:
    """Compare encoders, and layers, on pairs before training: how alike they see the same items.

    Every encoder of --a with every one of --b, best recall first: mutual nearest neighbours, CKA,
    CKNNA and SVCCA above chance, and the validation recall of linear CCA. --recipe is trained on
    each pairing as well: `alignment-probing` of fusemix-sail is made for it.

    Examples:

        fusemix rank --a efficientnet-lite0 --b minilm --data pairs.csv

        fusemix rank --a dinov2,timm:convnext_tiny --b bge-large,minilm \\
            --data pairs.csv

        fusemix rank --a efficientnet-lite0 --b minilm --view text=layers \\
            --data pairs.csv

        fusemix rank --a dinov2,rad-dino --b minilm --data pairs.csv \\
            --recipe alignment-probing
    """
    table = data.table() | splits.table() | facts.table()

    from fusemix_core.jobs.rank_picture import check_name, write_heat_map
    from fusemix_core.runs.config import find_recipe, resolve_encoders

    if recipe is not None:
        find_recipe(recipe)
    if picture is not None:
        check_name(picture)
    encoders, views = sides.sides(), o.key_values(view, "--view")
    for modality, name in [(m, n) for m, names in encoders.items() for n in names]:
        resolve_encoders({modality: name})  # before anything heavy is imported
    from fusemix_core.cli.progress import ConsoleReporter
    from fusemix_core.jobs.rank import plan_ranking, run_ranking

    notes = Notes()
    how = dict[str, Any](views=views, sample=measures.sample, recipe=recipe, tell=notes)
    how |= {"modalities": tuple(encoders), "seed": seed or 0, "device": device or "auto"}
    plan = plan_ranking(*encoders.values(), data=table or None, **how)
    if dry_run:
        _show_plan(plan, json)
        return
    with ConsoleReporter(notes) as reporter:
        found = run_ranking(plan, measures.shuffles, reporter)
    if picture is not None:
        write_heat_map(picture, found)
    _show(found, json)


def _show_plan(plan: RankingPlan, json: bool) -> None:
    from fusemix_core.cli.console import print_json
    from fusemix_core.cli.show import show_encoders

    if json:
        print_json([e.as_dict() for e in plan.encoders()])
    else:
        show_encoders(plan.encoders())


def _show(found: Ranking, json: bool) -> None:
    from fusemix_core.cli.console import out, print_json, print_table

    if json:
        print_json(found.as_dict())
        return
    names = list(found.pairings[0].measures)
    rows = [
        [p.a, p.b, *(_with_doubt(p.measures[n]) for n in names), 100 * p.recall_at_1, 100 * p.score]
        + ([100 * p.probe["recall_at_1"], 100 * p.probe["score"]] if p.probe else [])
        for p in found.pairings
    ]
    recalls = ["R@1", "mean recall"]
    probed = [f"{found.recipe}: {name}" for name in recalls] if found.recipe else []
    print_table([*found.modalities, *names, *recalls, *probed], rows)
    shown = [f"{n} {rho:+.2f}" for n, rho in found.spearman.items() if rho is not None]
    if shown and len(found.pairings) >= _CORRELATED:
        of = f"{found.recipe}'s " if found.recipe else ""
        out.print(
            f"Spearman's correlation with {of}mean recall: {', '.join(shown)}", soft_wrap=True
        )
    out.print(
        f"Measures on {found.sample:,} pairs, less chance; ? is no better than the best of "
        "shuffled items. Recall of linear CCA in percent, mean of both directions.",
        soft_wrap=True,
    )
    out.print()
    out.print(verdict(found), style="bold", soft_wrap=True)


def verdict(found: Ranking) -> str:
    """Which pairing to take, how far the next one is, and whether validation shows it."""
    best, *rest = found.pairings
    taken, pairs = found.taken, f"{found.validation:,} validation pairs"
    of = found.recipe or "linear CCA"
    text = f"Take {_named(taken)}: mean recall {100 * taken.reached:.1f} by {of}"
    if not rest:
        return f"{text}. There was nothing to compare it with."
    if taken is not best:
        speed = (best.seconds or 0.0) / (taken.seconds or 1.0)
        return (
            f"{text}. {_named(best)} has {100 * best.reached:.1f}, which {pairs} don't show to be "
            f"more ({_points(taken)}), and takes {speed:.1f} times as long to encode."
        )
    tied = [p for p in rest if p.tied]
    if not tied:
        return f"{text}, {_points(rest[0])} points above {_named(rest[0])}."
    others = f" and {len(tied) - 1} more" if len(tied) > 1 else ""
    return (
        f"{text}, but {pairs} don't show a difference from {_named(tied[0])} "
        f"({_points(tied[0])}){others}."
    )


def _named(pairing: Pairing) -> str:
    return f"{pairing.a} with {pairing.b}"


def _points(pairing: Pairing) -> str:
    """How far a pairing is behind the first, as `+1.1 [-0.4, 2.5]`."""
    assert pairing.behind is not None
    points, between = pairing.behind["points"], pairing.behind["interval"]
    shown = f"{points:+.1f}"
    return shown if between is None else f"{shown} [{between[0]:.1f}, {between[1]:.1f}]"


def _with_doubt(measure: Mapping[str, float]) -> str:
    return f"{measure['excess']:.3f}{'' if measure['p'] <= 0.05 else ' ?'}"
