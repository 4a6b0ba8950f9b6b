"""Finding what is wrong with pairs: mispaired rows, near-duplicates, leaks, outliers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import torch

from fusemix_core.config import DataConfig, Recipe
from fusemix_core.data.dataset import PairedDataset
from fusemix_core.evaluation.mispaired import LIKELY, Fits, fits
from fusemix_core.evaluation.similar import THRESHOLD, centred_rows, similar
from fusemix_core.fused import FusedModel
from fusemix_core.reports.gallery import MOST, Case, CaseGroup, CaseItem, GalleryPage, write_gallery
from fusemix_core.runs.embeddings import SplitEmbeddings
from fusemix_core.runs.encode import Encoded
from fusemix_core.runs.models import embed_for, encode_for
from fusemix_core.runs.notices import Notices
from fusemix_core.runs.reading import read_usable
from fusemix_core.runs.refit import FOLDS, LEAST, HeldOut, out_of_fold, refitted_by
from fusemix_core.runs.reporter import Reporter
from fusemix_core.runs.seen import TrainedOn
from fusemix_core.runs.suspects import (
    DUPLICATE,
    KINDS,
    LEAK,
    MISPAIRED,
    OUTLIER,
    Suspect,
    compared_ids,
    mispaired,
    outliers,
    repeated,
    write_suspects,
)
from fusemix_core.runs.targets import GROUP
from fusemix_core.sections import Share, Tile

MOST_COMPARED = 200_000
"""Items of a modality that are compared with each other; of more, so many at equal distances."""

_TITLES = {
    MISPAIRED: ("Likely mispaired", "Rows whose items fit no better than items of other rows."),
    LEAK: ("In two splits", "Items that are held out here and trained on there, or nearly."),
    DUPLICATE: ("Near-duplicates", "Items of one modality that are almost the same."),
    OUTLIER: ("Unlike all others", "Items far from their nearest neighbours."),
}


@dataclass
class Cleaned:
    """The suspicious rows of some data.

    Attributes:
        suspects: the rows to look at, by kind, the worst first.
        fits: two modalities → how well their items fit in each row of the dataset.
        dataset: the rows.
        judged_by: what scored the rows: `model`, or the recipe that was fitted without them.
        notices: what became of the rows, and warnings.
        config: the data, whose columns are written beside each suspect.
    """

    suspects: list[Suspect]
    fits: dict[tuple[str, str], Fits]
    dataset: PairedDataset
    judged_by: str
    notices: dict[str, Any] = field(default_factory=dict)
    config: DataConfig | None = None

    @property
    def counts(self) -> dict[str, int]:
        """kind → how many suspects."""
        found = Counter(one.kind for one in self.suspects)
        return {kind: found[kind] for kind in KINDS}

    @property
    def shares(self) -> dict[str, float | None]:
        """Two modalities → the estimated share of mispaired rows; see `Fits.share`."""
        return {"-".join(pair): fit.share for pair, fit in self.fits.items()}

    def as_dict(self) -> dict[str, Any]:
        """As plain data, for `--json`."""
        return {
            "counts": self.counts,
            "mispaired_share": self.shares,
            "judged_by": self.judged_by,
            "suspects": [one.as_dict() for one in self.suspects],
            **self.notices,
        }

    def write(self, folder: str | Path) -> tuple[Path, Path]:
        """Write `suspect.csv` and `suspect.html` into a folder, and return their paths."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_suspects(folder / "suspect.csv", self.suspects, self.config)
        return folder / "suspect.csv", write_gallery(folder / "suspect.html", self.page())

    def page(self) -> GalleryPage:
        """The gallery: of each kind the worst."""
        tiles = [Tile(_TITLES[kind][0], count) for kind, count in self.counts.items()]
        known = [share for share in self.shares.values() if share is not None]
        if known:
            share = Tile("mispaired, estimated", Share(100 * max(known)), "at most")
            tiles.insert(0, share)
        by = (
            "Rows are judged by the model."
            if self.judged_by == "model"
            else f"Each row is judged by a fit of {self.judged_by} that left it out."
        )
        return GalleryPage(
            "Rows to look at",
            f"{len(self.dataset):,} rows. {by} suspect.csv lists everything.",
            tiles,
            self.notices.get("warnings", ()),
            groups=[self._group(kind) for kind in KINDS],
        )

    def _group(self, kind: str) -> CaseGroup:
        title, text = _TITLES[kind]
        own = [one for one in self.suspects if one.kind == kind]
        if len(own) > MOST:
            text = f"{text} The first {MOST} of {len(own):,}."
        return CaseGroup(title, text, [self._case(one) for one in own[:MOST]])

    def _case(self, one: Suspect) -> Case:
        labels = [modality for modality, _ in one.at]
        if one.kind == MISPAIRED and len(labels) > 2:
            labels[2] = "fits better"
        shown = [
            CaseItem(label, self.dataset.items[m].show(i))
            for label, (m, i) in zip(labels, one.at, strict=True)
        ]
        return Case(f"{one.file}, row {one.row}", one.reason, shown)


def clean(
    model: FusedModel,
    config: DataConfig,
    *,
    recipe: Recipe | None = None,
    own: bool = False,
    folds: int = FOLDS,
    below: float = LIKELY,
    threshold: float = THRESHOLD,
    seed: int = 0,
    reporter: Reporter | None = None,
) -> Cleaned:
    """Look for rows of paired data that are probably wrong.

    Args:
        model: the fused model, whose encoders give the latents.
        config: the data.
        recipe: that of the model's run. Where rows were trained on, it is fitted again without
            them if it is a closed form; else kernel CCA is.
        own: whether the data are those of the model's run, with the splits of then.
        folds: how many fits; 0 lets the model judge rows that it was trained on.
        below: rows whose items fit worse than this percentage of unpaired items are listed.
        threshold: the similarity of near-duplicates.
        seed: of the splits and folds.
        reporter: gets the progress.

    Returns:
        The suspects.

    Raises:
        FusemixError: the data, or an encoder, can't be used.

    Example:
        found = clean(load("runs/1/model"), DataConfig(("pairs.csv",)), own=True)
        found.write("cleaned")
    """
    reporter = reporter or Reporter()
    takes = {m: info.takes for m, info in model.encoders.items()}
    told = own or bool(config.split_column or config.validation or config.test)
    if not told:
        config = replace(config, validation_fraction=0.0, test_fraction=0.0)
    if config.group_by:
        config = replace(config, facts={**config.facts, GROUP: f"{config.group_by}:class"})
    dataset = read_usable(config, takes, seed, tell=reporter.note, optional=takes)
    encoded = encode_for(model, dataset, reporter, config.max_bad)
    warnings: list[str] = []
    by = _judge(model, encoded, recipe, own, folds, warnings)
    for warning in warnings:
        reporter.note(warning)
    found = _fits(model, encoded, by, folds, seed, reporter)
    suspects = mispaired(encoded.dataset, found, below)
    repeats, unusual = _alike(encoded, threshold, told, reporter)
    suspects += [one for kind in (LEAK, DUPLICATE) for one in repeats if one.kind == kind] + unusual
    notices = Notices.of(encoded.dataset, [*encoded.warnings, *warnings]).as_dict()
    judge = by.name if by else "model"
    return Cleaned(suspects, found, encoded.dataset, judge, notices, config)


def _judge(
    model: FusedModel,
    encoded: Encoded,
    recipe: Recipe | None,
    own: bool,
    folds: int,
    warnings: list[str],
) -> Recipe | None:
    """The recipe that is fitted without the rows it judges; None if the model judges them."""
    seen = TrainedOn.count(model, encoded.dataset, slice(None))
    trained = own or (seen is not None and seen.pairs > 0)
    if not trained:
        return None
    if folds and len(encoded.dataset) >= LEAST:
        return refitted_by(recipe)
    why = "--folds 0" if not folds else f"fewer than {LEAST} rows are too few to fit without some"
    warnings.append(
        f"The model judges rows that it was trained on ({why}): it finds few of those that are "
        "mispaired."
    )
    return None


def _fits(
    model: FusedModel,
    encoded: Encoded,
    by: Recipe | None,
    folds: int,
    seed: int,
    reporter: Reporter,
) -> dict[tuple[str, str], Fits]:
    """How well the items of each row fit, for each two modalities."""
    if by is None:
        reporter.stage("Comparing pairs")
        every = torch.arange(len(encoded.dataset))
        parts = iter([HeldOut(every, embed_for(model, encoded.paired()))])
    else:
        how: dict[str, Any] = {"folds": folds, "seed": seed, "reporter": reporter}
        parts = out_of_fold(encoded, by, device=model.device, **how)
    modalities = encoded.dataset.modalities
    found = {pair: Fits.empty(len(encoded.dataset)) for pair in combinations(modalities, 2)}
    for part in parts:
        for pair, fit in found.items():
            _fill(fit, part, part.embedded, modalities, pair, seed)
    return {pair: fit for pair, fit in found.items() if not fit.cosine.isnan().all()}


def _fill(
    fit: Fits,
    part: HeldOut,
    embedded: SplitEmbeddings,
    modalities: Sequence[str],
    pair: tuple[str, str],
    seed: int,
) -> None:
    """Compare two modalities in the rows that a fit left out."""
    links = embedded.links[:, [modalities.index(m) for m in pair]]
    both = (links >= 0).all(dim=1)
    if both.sum() < 2:
        return
    own = fits(embedded.embeddings, links[both].numpy(), pair, seed)
    for side in range(2):  # from numbers in the part to those in the dataset
        ids = embedded.ids[pair[1 - side]]
        better = own.better[:, side]
        own.better[:, side] = torch.where(better >= 0, ids[better.clamp(min=0)], -1)
    fit.fill(part.rows[both], own)


def _alike(
    encoded: Encoded, threshold: float, splits: bool, reporter: Reporter
) -> tuple[list[Suspect], list[Suspect]]:
    """(near-duplicates and leaks, outliers) of all modalities."""
    repeats: list[Suspect] = []
    unusual: list[Suspect] = []
    for modality, table in _compared(encoded).items():
        reporter.stage(f"Comparing items ({modality})")
        ids = compared_ids(encoded.dataset, modality)
        if len(ids) > MOST_COMPARED:
            reporter.note(
                f"{MOST_COMPARED:,} of {len(ids):,} items of {modality} are looked through for "
                "near-duplicates and outliers, at equal distances. `fusemix dedup` takes all."
            )
            ids = ids[torch.linspace(0, len(ids) - 1, MOST_COMPARED).long()]
        found = similar(centred_rows(table, ids), threshold)
        of = encoded.dataset, modality, ids.numpy()
        repeats += repeated(*of, found, splits)
        unusual += outliers(*of, found)
    return repeats, unusual


def _compared(encoded: Encoded) -> Mapping[str, Any]:
    """The latents of the modalities whose items are things: equal rows of a table may be two."""
    items = encoded.dataset.items
    return {m: t for m, t in encoded.tables.items() if not items[m].medium.joined}
