"""Objectives inside others: what the inner one reads, trains and keeps is all there."""

from dataclasses import replace

import pytest
import torch
from fusemix_hammer.objective import HammerObjective
from fusemix_sotalign.objective import KLOTObjective
from fusemix_structure.objective import StructureObjective
from fusemix_structure.regulariser import structure

from fusemix_core.aligners.gradient import GradientAligner
from fusemix_core.config import Part, Recipe, Training
from fusemix_core.errors import UnknownNameError
from fusemix_core.interfaces import FitContext
from fusemix_core.objectives.infonce import InfoNCE
from fusemix_core.registry import registry
from fusemix_core.testing.pairs import toy_pairs
from fusemix_core.testing.steps import (
    adapters_of,
    embeddings_of,
    latents_of,
    links_of,
    splits_of,
    step_of,
)

DOUBTED = (torch.arange(32) >= 9).float()
"""Nine of 32 rows have no trust."""


def started(objective, rows):
    objective.start(adapters_of(rows), *splits_of(tuple(rows), {}), FitContext())
    return objective


def test_structure_of_hammer_has_hammers_value_by_trust_and_the_regulariser():
    rows, links = embeddings_of(noise=2.0, rows=32), links_of(rows=32)
    told = step_of(rows, links, trust=DOUBTED)
    bare = {
        name: started(HammerObjective(queue=0), rows)(step).item()
        for name, step in (("trust", told), ("all trusted", step_of(rows, links)))
    }
    assert bare["all trusted"] - bare["trust"] > 0.1
    nested = started(
        StructureObjective(objective="hammer", options={"queue": 0}, weight=2.0, warmup=1), rows
    )
    first = nested(told)  # its share of the regulariser is still 0
    assert first.item() == pytest.approx(bare["trust"], abs=1e-6)
    kept = [structure(x, rows[m]) for m, x in latents_of(rows).items()]
    wanted = bare["trust"] + 2.0 * torch.stack(kept).mean().item()
    assert nested(told).item() == pytest.approx(wanted, abs=1e-5)


def test_structure_of_klot_fits_its_teacher():
    rows = embeddings_of(rows=32)
    nested = started(StructureObjective(objective="klot"), rows)
    assert set(nested.objective.teacher) == {"image", "text"}
    alone = started(KLOTObjective(), rows)
    step = step_of(rows, links_of(rows=32))
    assert nested(step).item() == pytest.approx(alone(step).item(), abs=1e-6)
    assert alone(step) > InfoNCE()(step) + 0.01


NESTED = Part(
    "structure",
    {
        "objective": "klot",
        "warmup": 1,
        "options": {
            "objective": "hammer",
            "options": {"queue": 20},
            "teacher_options": {"landmarks": 0},
        },
    },
)


def test_three_levels_use_what_each_of_them_uses():
    assert set(registry.uses("objective", NESTED)) == {"latents", "unpaired", "trust", "adapters"}
    assert set(registry.build("objective", NESTED).uses) == set(registry.uses("objective", NESTED))


def test_three_levels_train_and_log_and_all_their_state_is_in_checkpoints(tmp_path):
    pairs = toy_pairs(train=60)
    train = replace(pairs.train, unpaired={"image": torch.arange(150, 160)})
    recipe = Recipe(
        "nested",
        Part("gradient"),
        dim=8,
        adapter=Part("linear"),
        objective=NESTED,
        training=Training(epochs=2, batch_size=20, unpaired=4),
    )
    objective = registry.build("objective", NESTED)
    GradientAligner().fit(train, pairs.validation, recipe, FitContext(checkpoints=tmp_path))
    from safetensors.torch import load_file

    newest = max(tmp_path.glob("step-*"), key=lambda p: int(p.name[5:]))
    names = {n for n in load_file(newest / "state.safetensors") if n.startswith("objective/")}
    inner = "objective/objective.objective."
    assert {f"{inner}temperature", f"{inner}queue", "objective/calls"} <= names
    assert any(n.startswith(f"{inner}followers.") for n in names)
    assert any(n.startswith("objective/objective.teacher.") for n in names)
    assert set(objective.log()) >= {"temperature"}


def test_a_wrong_option_of_a_wrapped_objective_is_found_before_it_is_built():
    with pytest.raises(UnknownNameError, match="option of objective 'infonce'"):
        registry.check("objective", Part("structure", {"options": {"temprature": 0.1}}))
    with pytest.raises(UnknownNameError, match="no objective named 'hamer'"):
        registry.uses("objective", Part("structure", {"objective": "hamer"}))
