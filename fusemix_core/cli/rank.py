"""`fusemix rank`: which encoders suit each other, before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fusemix_core.cli import options as o
from fusemix_core.cli.groups import DataOptions, FactOptions, SplitOptions, grouped
from fusemix_core.errors import ConfigError

if TYPE_CHECKING:
    from fusemix_core.jobs.rank import Ranking


@grouped
def rank(
    a: Annotated[str, typer.Option("--a", metavar="NAME,NAME,…", help="Encoders of one modality.")],
    b: Annotated[str, typer.Option("--b", metavar="NAME,NAME,…", help="Those of the other.")],
    data: DataOptions,
    splits: SplitOptions,
    facts: FactOptions,
    view: o.Views = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            help="Also fit this recipe to each pairing and show its recall: a run's time each."
        ),
    ] = None,
    sample: Annotated[int, typer.Option(help="Pairs that the measures look at.")] = 1000,
    shuffles: Annotated[int, typer.Option(help="Random pairings that chance is taken from.")] = 20,
    seed: o.Seed = None,
    device: o.Device = None,
    picture: Annotated[
        Path | None, typer.Option(metavar="SVG", help="Write a heat map of the pairings.")
    ] = None,
    json: o.Json = False,
) -> None:
    """Compare encoders, and layers, on pairs before training: how alike they see the same items.

    Every encoder of --a with every one of --b: mutual nearest neighbours, CKA, CKNNA and SVCCA,
    each less what it is by chance, and the validation recall of linear CCA. With --recipe that is
    trained on each pairing as well: `alignment-probing` of fusemix-sail is made for it. Best recall
    first.

    Examples:

        fusemix rank --a efficientnet-lite0 --b minilm --data pairs.csv

        fusemix rank --a dinov2,timm:convnext_tiny --b bge-large,minilm --data pairs.csv

        fusemix rank --a dinov2,rad-dino --b minilm,bge-large --data pairs.csv --picture rank.svg

        fusemix rank --a efficientnet-lite0 --b minilm --view text=layers --data pairs.csv

        fusemix rank --a dinov2,rad-dino --b minilm --data pairs.csv --recipe alignment-probing
    """
    table = data.table() | splits.table() | facts.table()
    if "source" not in table:
        raise ConfigError("No data given.", "Add --data PATH.")
    sides = [[name.strip() for name in side.split(",") if name.strip()] for side in (a, b)]
    views = o.key_values(view, "--view")

    from fusemix_core.jobs.rank_picture import check_name, write_heat_map
    from fusemix_core.runs.config import find_recipe, resolve_encoders

    if recipe is not None:
        find_recipe(recipe)
    if picture is not None:
        check_name(picture)
    for side in sides:  # names are checked before anything heavy is imported
        resolve_encoders({str(i): name for i, name in enumerate(side)})

    from fusemix_core.cli.progress import ConsoleReporter
    from fusemix_core.jobs.rank import rank as ranked

    with ConsoleReporter() as reporter:
        found = ranked(
            *sides,
            table,
            views=views,
            recipe=recipe,
            sample=sample,
            shuffles=shuffles,
            seed=seed or 0,
            device=device or "auto",
            reporter=reporter,
        )
    if picture is not None:
        write_heat_map(picture, found)
    _show(found, json)


def _show(found: Ranking, json: bool) -> None:
    from fusemix_core.cli.console import out, print_json, print_table

    if json:
        print_json(found.as_dict())
        return
    names = list(found.pairings[0].measures)
    rows = [
        [p.a, p.b, *(_said(p.measures[n]) for n in names), 100 * p.recall_at_1, 100 * p.score]
        + ([100 * p.probe["recall_at_1"], 100 * p.probe["score"]] if p.probe else [])
        for p in found.pairings
    ]
    recalls = ["R@1, %", "mean recall, %"]
    probed = [f"{found.recipe}: {name}" for name in recalls] if found.recipe else []
    print_table([*found.modalities, *names, *recalls, *probed], rows)
    told = [f"{n} {rho:+.2f}" for n, rho in found.spearman.items() if rho is not None]
    if told:
        of = f"{found.recipe}'s " if found.recipe else ""
        out.print(f"Spearman's correlation with {of}mean recall: {', '.join(told)}", soft_wrap=True)
    out.print(
        f"Measures on {found.sample:,} pairs, less chance; ? is no better than the best of "
        "shuffled items. Recall of linear CCA, both directions.",
        soft_wrap=True,
    )


def _said(measure: Mapping[str, float]) -> str:
    return f"{measure['excess']:.3f}{'' if measure['p'] <= 0.05 else ' ?'}"
