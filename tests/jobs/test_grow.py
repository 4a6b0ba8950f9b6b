"""`fuse(extends=…)`: one more modality for a saved predictor, whose others stay as they are."""

import json

import numpy as np
import pytest
from jobs.test_fuse import ENCODERS, rows
from toys import ToyText

from fusemix_core import fuse, load
from fusemix_core.errors import ConfigError

COLUMNS = {"size": "length"}


@pytest.fixture(scope="module")
def former(tmp_path_factory):
    """A predictor from texts and one number."""
    folder = tmp_path_factory.mktemp("former") / "run"
    data = {"source": rows(gaps=0.1), "columns": COLUMNS}
    fuse(ENCODERS, data, target="kind", fuser="stack", out=folder)
    return folder


def grown(former, folder, encoders=None, **how):
    data = {"source": rows(120, seed=5, gaps=0.1), "columns": {"cost": "price"}}
    encoders = encoders or {"text": ToyText, "cost": "columns"}
    return fuse(encoders, data, extends=former, out=folder, **how)


def test_a_predictor_gets_a_modality_and_keeps_its_others(former, tmp_path):
    done = grown(former, tmp_path / "r")
    assert done.predictor.modalities == ("text", "size", "cost")
    assert done.results["single"] == "text + size"
    assert {"no modality", "text", "size", "cost", "text + size", "stack"} == set(
        done.results["candidates"]
    )
    new = rows(40, seed=9)
    items = {"text": new["text"], "size": [{"length": v} for v in new["length"]]}
    before = load(former, encoders={"text": ToyText.spec.name})
    after = done.predictor
    assert np.array_equal(before.predict_proba(items), after.predict_proba(items))
    items["cost"] = [{"price": v} for v in new["price"]]
    right = np.mean([p == k for p, k in zip(after.predict(items), new["kind"], strict=True)])
    assert right > 0.8
    config = (tmp_path / "r" / "config.toml").read_text()
    assert f"extends = {json.dumps(str(former))}" in config


def test_what_is_asked_must_be_one_new_modality_on_a_split(former, tmp_path):
    with pytest.raises(ConfigError, match="One modality is added at a time; none is new"):
        grown(former, tmp_path / "r", {"text": ToyText})
    with pytest.raises(ConfigError, match="cost, more is new"):
        grown(former, tmp_path / "r", {"text": ToyText, "cost": "columns", "more": "columns"})
    with pytest.raises(ConfigError, match="measured on the test split"):
        grown(former, tmp_path / "r", folds=3)
    assert not (tmp_path / "r").exists()


def test_only_a_stack_can_grow(tmp_path):
    data = {"source": rows(), "columns": COLUMNS}
    fuse(ENCODERS, data, target="kind", fuser="block", out=tmp_path / "run")
    with pytest.raises(ConfigError, match="Only the fuser 'stack'"):
        grown(tmp_path / "run", tmp_path / "r")
