"""Corrections at work: embeddings of a fused model as the conditions of a generator."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor
from torch.nn.functional import normalize

from fusemix_core.corrections.auto import AutoCorrection
from fusemix_core.corrections.bank import BankCorrection
from fusemix_core.corrections.plain import NoCorrection, NormCorrection
from fusemix_core.errors import ConfigError
from fusemix_core.fused import FusedModel
from fusemix_core.interfaces import Correction, Generator

AUTO, BANK, NONE, NORM = "auto", "bank", "none", "norm"


class Corrections:
    """The corrections of one model for one generator.

    Args:
        model: A fused model.
        target: Its fixed modality that the generator is conditioned by.
        generator: Whose bank is used, if it brings one.
        how: The name of a correction, or `auto`.
        note: Is called with each note for the user.

    Raises:
        ConfigError: The model has no such correction.
    """

    def __init__(
        self,
        model: FusedModel,
        target: str,
        generator: Generator,
        how: str = AUTO,
        note: Callable[[str], None] | None = None,
    ) -> None:
        self.model, self.target, self.how = model, target, how
        self.norm = generator.spec.norm
        self.bank = generator.bank()
        self._note = note or (lambda text: None)
        self._names: dict[str, str] = {}
        if how != AUTO:
            self._named(how)

    def __call__(self, rows: Tensor, modality: str, seeds: Sequence[int]) -> Tensor:
        """Unit-norm embeddings `[n, d]` of a modality as conditions, of length 1 if the generator
        wants that; row i from row i and seed i."""
        name = self.name_for(modality)
        correction = self._named(name)
        bank = self.bank if name == BANK or not correction.knows(modality, self.target) else None
        found = correction(rows, modality, self.target, seeds, bank)
        return normalize(found, dim=1) if self.norm == "unit" else found

    def name_for(self, modality: str) -> str:
        """The name of the correction that embeddings of a modality get."""
        if modality not in self._names:
            self._names[modality] = self._name_for(modality)
        return self._names[modality]

    def _name_for(self, modality: str) -> str:
        if modality == self.target:  # these are latents, but for their length
            return NORM if self._has(NORM, modality) else NONE
        if self.how != AUTO:
            return self.how
        auto = self.model.corrections.get(AUTO)
        if isinstance(auto, AutoCorrection):
            found = auto.choice(modality, self.target, self.bank)
            if found is not None and self._has(found, modality):
                return found
        if self.bank is not None:
            self._note(
                f"{self.model.name} has no corrections for {modality}: embeddings are projected on "
                "the generator's own bank. Fit it again to have the best correction chosen."
            )
            return BANK
        name = NORM if self._has(NORM, modality) else NONE
        self._note(
            f"{self.model.name} has no corrections for {modality}, which often makes what is "
            f"generated pale: fit it again with this fusemix, or try --correct. Taken: {name}."
        )
        return name

    def _has(self, name: str, modality: str) -> bool:
        """Whether a correction can be used on a modality."""
        known = self.model.corrections.get(name)
        fitted = known is not None and known.knows(modality, self.target)
        return name == NONE or fitted or (name in (BANK, NORM) and self.bank is not None)

    def _named(self, name: str) -> Correction:
        if (known := self.model.corrections.get(name)) is not None:
            return known
        if name == NONE:
            return NoCorrection()
        if self.bank is not None and name in (BANK, NORM):
            return BankCorrection() if name == BANK else NormCorrection()
        spec = self.model.registry.component("correction", name)
        had = ", ".join(n for n in self.model.corrections if n != AUTO) or "none"
        raise ConfigError(
            f"{self.model.name} contains no correction '{name}'; it contains: {had}.",
            _how_to_get(name, spec.keeps_items, self.target),
        )


def _how_to_get(name: str, keeps_items: bool, target: str) -> str:
    if keeps_items:
        return (
            f"Fit it again: fusemix align … --fixed {target}. A private model keeps no '{name}', "
            "as it is made of training items."
        )
    extra = "" if name in (NORM, "shift") else f" --correction {name}"
    return f"Fit it again: fusemix align … --fixed {target}{extra}"
