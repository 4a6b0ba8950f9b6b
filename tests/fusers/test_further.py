"""A further modality for a fitted stack."""

import pytest
import torch
from fusers.rows import labelled, latents_of

from fusemix_core.context import FitContext
from fusemix_core.errors import ConfigError
from fusemix_core.fusers.further import with_modality
from fusemix_core.fusers.stack import Stack
from fusemix_core.predictor import Predictor
from fusemix_core.saved.schema import EncoderInfo


def without_table(rows):
    return rows.only(["image", "text"])


@pytest.fixture(scope="module", params=["classify", "regress"])
def grown(request):
    """(a stack of two modalities, the same with the third, the task)."""
    rows, task = labelled(300, request.param, missing=0.2)
    two = without_table(rows)
    former = Stack.fit(two, two, task, FitContext()).fuser
    more, _ = labelled(300, request.param, missing=0.2, seed=1)
    return former, with_modality(former, more, task), task


def test_former_modalities_keep_their_coefficients_bit_for_bit(grown):
    former, larger, _ = grown
    width = former.weights.shape[1]
    assert (larger.weights[:4, :width] == former.weights).all()
    assert (larger.offsets[:4] == former.offsets).all()
    new, _ = labelled(50, seed=3)
    latents, present = latents_of(new), new.present.clone()
    present[:, 2] = False
    assert torch.equal(larger(latents, present), former(latents, present[:, :2]))


def test_all_modalities_are_better_than_the_former_and_the_new_one(grown):
    former, larger, task = grown
    kind = "classify" if task.gives == "classes" else "regress"
    new, _ = labelled(400, kind, seed=4)
    latents = latents_of(new)
    every = task.score(larger(latents, new.present), new.targets)
    alone = torch.tensor([False, False, True]).expand_as(new.present)
    assert task.score(former(latents, new.present[:, :2]), new.targets) < every - 0.02
    assert task.score(larger(latents, alone), new.targets) < every - 0.02
    rows, _ = labelled(300, kind, missing=0.2)
    again = Stack.fit(rows, rows, task, FitContext()).fuser
    assert every > task.score(again(latents, new.present), new.targets) - 0.05


def test_a_predictor_grows_and_is_saved(grown, tmp_path):
    former, larger, task = grown
    info = {
        m: EncoderInfo(name=m, modality=m, dim=d, fingerprint="0" * 32, view="pooled")
        for m, d in larger.inputs.items()
    }
    two = {m: info[m] for m in former.inputs}
    expected = {"expected": {"image": 0.5}, "conformal": {"level": 0.9}}
    predictor = Predictor(two, former, task, metrics=expected, device="cpu")
    kind = "classify" if task.gives == "classes" else "regress"
    rows, _ = labelled(300, kind, missing=0.2, seed=1)
    more = predictor.with_modality(info["table"], rows)
    assert more.modalities == ("image", "text", "table") and predictor.modalities == tuple(two)
    assert more.metrics == {"expected": {"image": 0.5}}
    more.save_pretrained(tmp_path / "model")
    loaded = Predictor.from_pretrained(tmp_path / "model", device="cpu")
    new, _ = labelled(20, kind, seed=5)
    want = more.score(latents_of(new), new.present)
    assert torch.equal(loaded.score(latents_of(new), new.present), want)


def test_other_modalities_are_refused(grown):
    rows, _ = labelled(60)
    with pytest.raises(ConfigError, match="one more comes last"):
        with_modality(grown[0], rows.only(["text", "image", "table"]), grown[2])
