"""How fast encoders are on this machine, from a few items, before a first run."""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from fusemix_core.data.items import Items
from fusemix_core.devices import resolve_device
from fusemix_core.hub import weights_of
from fusemix_core.latents.encoding import Encoding
from fusemix_core.latents.extraction import extract
from fusemix_core.latents.store import LatentStore
from fusemix_core.runs.plan import EncoderPlan, Plan
from fusemix_core.runs.rates import Rates, encode_rate_key
from fusemix_core.runs.reporter import Reporter

ITEMS = 8
"""As many are encoded to warm up, and as many again are timed."""


def probe(plan: Plan, reporter: Reporter | None = None) -> Plan:
    """The plan with the seconds of encoders whose rate on this machine was unknown.

    Encoders are tried whose weights are on this disk; nothing is fetched, and no latents are kept.
    One that fails stays unknown: its error belongs to the run. Rates are remembered for later
    plans.
    """
    reporter, device = reporter or Reporter(), resolve_device(plan.config.device)
    encoders = {}
    for modality, encoder in plan.encoders.items():
        encoders[modality] = encoder
        missing = encoder.items - (encoder.cached or 0)
        known = encoder.seconds is not None or weights_of(encoder.spec)[0] not in ("here", "own")
        if known or missing < 2 * ITEMS:
            continue
        reporter.stage(f"Trying {encoder.spec.name} on {2 * ITEMS} items")
        items = plan.dataset.items[modality].select(np.arange(2 * ITEMS))
        rate = _rate(
            encoder, items, Encoding(device, batch_size=ITEMS, backend="eager", processes=0)
        )
        if rate is not None:
            encoders[modality] = replace(encoder, seconds=missing / rate)
    return replace(plan, encoders=encoders)


def _rate(encoder: EncoderPlan, items: Items, how: Encoding) -> float | None:
    """Items a second, None if the items can't be encoded."""
    times: list[tuple[int, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        try:
            done = extract(
                encoder.spec,
                items,
                LatentStore(Path(folder)),
                how,
                view=encoder.view,
                progress=lambda done, total: times.append((done, time.monotonic())),
            )
        except Exception:  # whatever a plugin does: the run will tell
            return None
    warm = [(count, at) for count, at in times if 0 < count < 2 * ITEMS]
    if not warm:
        return None
    (before, began), (count, ended) = warm[0], times[-1]
    seconds = max(ended - began, 1e-6)
    Rates().record(encode_rate_key(done.fingerprint, how.devices[0].type), count - before, seconds)
    return (count - before) / seconds
