"""The latents of a run's data, as its plan says."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch

from fusemix_core.config import ComputeDtype
from fusemix_core.data.dataset import PairedDataset
from fusemix_core.disk import explained
from fusemix_core.interfaces import Encoder
from fusemix_core.registry import registry
from fusemix_core.runs.encode import Encoded, Encoding, encode_dataset
from fusemix_core.runs.folder import ADVICE, RunFolder
from fusemix_core.runs.fusing import FusePlan
from fusemix_core.runs.plan import Plan
from fusemix_core.runs.reporter import Reporter
from fusemix_core.runs.reranking import RerankPlan


def encode_plan(
    plan: Plan | FusePlan | RerankPlan,
    device: torch.device,
    folder: RunFolder | None,
    reporter: Reporter,
    objects: Mapping[str, Encoder],
    *,
    dtypes: Mapping[str, ComputeDtype],
    ragged: Collection[str],
    first: bool = True,
    stage: str = "Encoding",
) -> Encoded:
    """Encode what the plan names, and list what can't be used in the run's folder, if it has one.

    Args:
        plan: the run.
        device: where encoders run.
        folder: of the run.
        reporter: gets the progress.
        objects: modality → loaded encoder, in place of the plan's own.
        dtypes: modality → what its encoder computes in, if not as the config says.
        ragged: the modalities whose items may differ in length.
        first: whether this is the process that writes.
        stage: what the reporter calls it.
    """
    config = plan.config
    reporter.stage(stage)
    how = Encoding(
        device,
        config.dtype,
        config.store_dtype,
        config.encode_batch,
        plan.views,
        config.backend,
        dtypes=dtypes,
        processes=config.decode_processes,
        store=config.store,
    )

    def list_rejected(dataset: PairedDataset) -> None:
        if first and folder is not None:
            with explained(f"{folder.rejected}", ADVICE):
                dataset.write_rejected(folder.rejected, reasons=not config.private)

    return encode_dataset(
        plan.dataset,
        plan.specs,
        how,
        reporter,
        objects,
        max_bad=config.data.max_bad,
        rejected=list_rejected,
        ragged=ragged,
    )


def token_modalities(plan: Plan) -> list[str]:
    """The modalities whose items may differ in length: their adapters take tokens.

    With a closed-form start none may that is to be fitted: its maps take rows.
    """
    recipe, found = plan.config.recipe, plan.base.token_modalities()
    for modality in plan.encoders if recipe.start is None else ():
        part = None if modality in plan.fixed else recipe.adapter_of(modality)
        if part is not None and "tokens" in registry.uses("adapter", part):
            found.append(modality)
    return found
