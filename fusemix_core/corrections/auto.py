"""The correction `auto`: which one suits each modality, as validation showed."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from fusemix_core.corrections.plain import NoCorrection

Choices = Mapping[str, Mapping[str, str]]
"""modality → fixed modality → the name of a correction."""


class AutoCorrection(NoCorrection):
    """Names the correction to use; by itself it changes nothing.

    Args:
        chosen: which did best on validation.
        with_bank: which did best if the bank also has the validation items: for a generator that
            brings a bank of its own, which may know what the training items lack.
    """

    def __init__(self, chosen: Choices | None = None, with_bank: Choices | None = None) -> None:
        super().__init__()
        self.chosen, self.with_bank = chosen or {}, with_bank or {}
        self.options = {"chosen": self.chosen, "with_bank": self.with_bank}

    def choice(self, source: str, target: str, bank: Tensor | None) -> str | None:
        """The name of the correction for a pair of modalities; None if nothing is known of it."""
        choices = self.chosen if bank is None else self.with_bank
        return choices.get(source, {}).get(target)
