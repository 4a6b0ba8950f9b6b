"""fusemix's own notes on disk, when something else has been written in them."""

import json

import pytest

from fusemix_core.cli.console import duration
from fusemix_core.errors import ConfigError
from fusemix_core.jobs.measured_data import measured_data
from fusemix_core.runs.folder import MetricsLog, read_metrics
from fusemix_core.runs.rates import Rates


@pytest.mark.parametrize("rate", [5e-324, float("inf"), float("nan"), -1, 0, "3", None, [], 1e300])
def test_a_rate_that_was_never_measured_estimates_nothing(tmp_path, rate):
    (tmp_path / "rates.json").write_text(json.dumps({"fit r cpu": rate}))
    assert duration(Rates(tmp_path / "rates.json").seconds("fit r cpu", 10)) == "unknown"


def test_rates_that_are_none_are_begun_anew(tmp_path):
    (tmp_path / "rates.json").write_text("[" * 100_000)
    rates = Rates(tmp_path / "rates.json")
    rates.record("a", 10, 2.0)
    assert Rates(tmp_path / "rates.json").seconds("a", 10) == 2.0


@pytest.mark.parametrize(
    "bad",
    [
        "3",
        "{}",
        '{"step": "a", "kind": "train"}',
        '{"step": 1}',
        '{"step": 1, "kind": 3}',
        '{"step": 1, "kind": "a", "loss": "x"}',
        "[" * 9999,
    ],
)
def test_metrics_end_at_a_line_that_is_none(tmp_path, bad):
    path = tmp_path / "metrics.jsonl"
    good = {"kind": "train", "step": 0, "loss": 1.0}
    path.write_bytes(f"{json.dumps(good)}\n{bad}\n".encode() + b"\xff\n")
    assert read_metrics(path) == [good]
    MetricsLog(path).on_step(1, {"loss": 0.5})
    assert [row["step"] for row in read_metrics(path)] == [0, 1]


@pytest.mark.parametrize("text", ["data = 3", 'seed = "x"', "data = {source = 3}"])
def test_a_run_whose_config_is_damaged_is_told(tmp_path, text):
    (tmp_path / "model").mkdir()
    (tmp_path / "config.toml").write_text(text)
    with pytest.raises(ConfigError):
        measured_data(tmp_path, {}, None, None)
