"""Devices by name."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from fusemix_core.devices import resolve_device
from fusemix_core.errors import ConfigError


@pytest.fixture
def machine(monkeypatch):
    """A machine with so many accelerators of a kind."""

    def have(kind: str | None, count: int = 0) -> None:
        fake = SimpleNamespace(
            is_available=lambda: kind is not None,
            current_accelerator=lambda: torch.device(kind),
            device_count=lambda: count,
        )
        monkeypatch.setattr(torch, "accelerator", fake)

    return have


def test_auto_is_the_accelerator_or_the_cpu(machine):
    machine(None)
    assert resolve_device() == torch.device("cpu")
    machine("mps", 1)
    assert resolve_device("auto") == torch.device("mps")


def test_devices_that_are_there_are_given(machine):
    machine("cuda", 2)
    assert resolve_device("cuda:1") == torch.device("cuda:1")
    assert resolve_device("cuda") == torch.device("cuda")
    assert resolve_device("cpu") == resolve_device(torch.device("cpu")) == torch.device("cpu")


@pytest.mark.parametrize("name", ["cuda:2", "mps", "meta", "gpu", "", "cuda:x"])
def test_other_devices_are_refused_with_those_that_are_there(machine, name):
    machine("cuda", 2)
    with pytest.raises(ConfigError) as error:
        resolve_device(name)
    assert "auto, cpu, cuda, cuda:0, cuda:1" in error.value.hint
