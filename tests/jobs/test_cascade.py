"""A cascade encodes the expensive modality only for rows whose cheap prediction is not sure."""

import csv

import numpy as np
import pytest
from toys import ToyText

from fusemix_core import fuse
from fusemix_core.errors import ConfigError, UnknownNameError
from fusemix_core.jobs.cascade import cascade, check_cascade
from fusemix_core.jobs.predict import predict, predicted_data
from fusemix_core.runs.rates import Rates, encode_rate_key

WORDS = ["river", "engine"]


class CountedText(ToyText):
    """A ToyText that counts the items that it encodes."""

    encoded = 0

    def encode(self, batch, view="pooled"):
        type(self).encoded += len(batch)
        return super().encode(batch, view)


def rows(count=160, seed=0):
    """Rows whose class a word tells always, and a number does where it is far from 0."""
    draw = np.random.default_rng(seed)
    kind = draw.integers(0, 2, count)
    far = draw.random(count) < 0.5
    number = np.where(far, (2 * kind - 1) * 3.0, 0.0) + 0.1 * draw.normal(size=count)
    texts = [f"{WORDS[k]} {draw.integers(10**6)}" for k in kind]
    return {"text": texts, "number": number.tolist(), "kind": [f"k{k}" for k in kind]}


@pytest.fixture(scope="module")
def predictor(tmp_path_factory):
    data = {"source": rows(), "columns": {"size": "number"}}
    encoders = {"text": CountedText(CountedText.spec), "size": "columns"}
    out = tmp_path_factory.mktemp("cascade") / "run"
    return fuse(encoders, data, target="kind", out=out, fuser="stack").predictor


@pytest.fixture
def config(tmp_path):
    """Writes rows without their class to a file, and says how it is read."""

    def write(table):
        with open(tmp_path / "new.csv", "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["text", "number"])
            writer.writerows(zip(table["text"], table["number"], strict=True))
        source = (str(tmp_path / "new.csv"),)
        return predicted_data({"source": source, "columns": {"size": "number"}}, {})

    return write


def test_only_rows_that_are_not_sure_are_encoded(predictor, config):
    table = rows(60, seed=7)
    table["number"][0], table["text"][1] = None, None
    before = CountedText.encoded
    found = cascade(predictor, config(table), 0.9, ["size"])
    told, encoded = found.notices["cascade"], CountedText.encoded - before
    used = found.columns["modalities"]
    assert 15 < told["saved"] < 45 and told["cheap"] == ["size"]
    assert encoded == 59 - told["saved"] == sum("text" in one for one in used)
    assert used[0] == "text" and used[1] == "size" and len(found) == 60
    right = [a == b for a, b in zip(found.columns["prediction"], table["kind"], strict=True)]
    assert np.mean(right) > 0.9
    assert told["expected_accuracy"] > 0.9 and 0.2 < told["expected_share"] < 0.8


def test_a_cascade_that_is_never_sure_predicts_as_ever(predictor, config):
    table = rows(30, seed=8)
    found = cascade(predictor, config(table), 1.0, ["size"])
    want = predict(predictor, config(table))
    assert found.notices["cascade"]["saved"] == 0 and found.origin == want.origin
    assert (found.columns["probability_k1"] == want.columns["probability_k1"]).all()


def test_the_slowest_comes_last_and_accuracy_rises_with_the_threshold(predictor, config):
    found = cascade(predictor, config(rows(20, seed=9)), 0.9)
    assert found.notices["cascade"]["cheap"] == ["size"]
    slow = encode_rate_key(predictor.encoders["size"].fingerprint, "cpu")
    fast = encode_rate_key(predictor.encoders["text"].fingerprint, "cpu")
    Rates().record(slow, 1, 10.0)
    Rates().record(fast, 1, 1.0)
    assert check_cascade(predictor, 0.9, ()) == ("text",)
    curve = np.array(predictor.metrics["cascade"]["size"])
    assert (np.diff(curve[:, 1]) <= 0).all() and curve[-1, 2] >= curve[0, 2]


def test_what_can_be_mended_is_said(predictor, config, tmp_path):
    data = config(rows(5))
    with pytest.raises(ConfigError, match="is a probability|--cascade is 1.5"):
        cascade(predictor, data, 1.5)
    with pytest.raises(UnknownNameError, match="sound"):
        cascade(predictor, data, 0.9, ["sound"])
    with pytest.raises(ConfigError, match="not cheap"):
        cascade(predictor, data, 0.9, ["text", "size"])
    table = {"source": rows(60), "columns": {"size": "number"}}
    table["source"]["price"] = np.arange(60.0).tolist()
    encoders = {"text": ToyText, "size": "columns"}
    done = fuse(encoders, table, target="price", out=tmp_path / "run", fuser="stack")
    with pytest.raises(ConfigError, match="does not predict one of several classes"):
        cascade(done.predictor, data, 0.9)
