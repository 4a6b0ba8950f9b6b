"""The sections, most telling first, and what each may take. No torch."""

from __future__ import annotations

from dataclasses import dataclass

BUDGET = 330.0
"""Seconds for all sections: with the start of Python and torch, six minutes."""

LEAST = 12.0
"""Seconds that must be left for a section to begin."""


@dataclass(frozen=True)
class Section:
    """One part of the measurement: module `name`, about `seconds` long on one H200.

    It is stopped after twice that time, or when the budget is spent.
    """

    name: str
    seconds: float
    title: str


SECTIONS = (
    Section("ceilings", 15, "What the device can do"),
    Section("tests", 60, "Tests that need a GPU"),
    Section("step", 60, "The step of FuseMix as published"),
    Section("loss", 40, "The contrastive loss"),
    Section("feed", 25, "Batches from the device, and from main memory"),
    Section("closed", 35, "Closed forms"),
    Section("ranking", 20, "Ranking"),
    Section("twice", 20, "The same fit twice"),
    Section("small", 20, "Small batches"),
    Section("extraction", 35, "Extraction"),
)
