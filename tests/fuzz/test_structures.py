"""Tables that are well formed and wrong: a config, a saved model's, and the like."""

import json
import tomllib

import pytest
from fuzz import artefacts, configs, readers
from fuzz.structures import altered, search
from fuzz.target import Target, check

from fusemix_core.benchmark.config import bench_config
from fusemix_core.runs.config import build_config

COUNT = 15


def run_config(data, folder):
    build_config(table_in(data))


def bench(data, folder):
    checked = bench_config(table_in(data), folder)
    for paired in checked.sets:
        checked.combinations(paired)


def table_in(data):
    """The table that a TOML file gives, which is one always."""
    value = json.loads(data)
    return value if isinstance(value, dict) else {}


CASES = {
    "run-config": (lambda: tomllib.loads(configs.run_config().decode()), run_config),
    "bench-config": (lambda: tomllib.loads(configs.bench_table().decode()), bench),
    "model-config": (
        lambda: json.loads(artefacts.model_files()["config.json"]),
        artefacts.model("config.json")[1],
    ),
    "saved-info": (
        lambda: json.loads(readers.saved_files()["dataset_info.json"]),
        readers.saved("dataset_info.json")[1],
    ),
    "saved-state": (
        lambda: json.loads(readers.saved_files()["state.json"]),
        readers.saved("state.json")[1],
    ),
    "karpathy": (lambda: json.loads(readers.karpathy()), readers.manifest("a.json")),
    "rates": (lambda: {"encode f cpu": 12.5, "fit r cpu": 3}, artefacts.rate),
    "hf-folder": (lambda: artefacts.HF, artefacts.folder_of("hf:x", "config.json")),
    "st-folder": (lambda: artefacts.ST, artefacts.folder_of("st:x", "modules.json")),
}


def alter(name, folder, count):
    good, read = CASES[name]
    target = Target(name, lambda: [json.dumps(good()).encode()], read)
    for seed in target.seeds():
        assert check(target, seed, folder), "a good input is refused"

    def changed(value):
        check(target, json.dumps(value).encode(), folder)

    search(changed, count, value=altered(good()))


@pytest.mark.parametrize("name", CASES)
def test_only_errors_that_say_what_is_wrong(name, tmp_path):
    alter(name, tmp_path, COUNT)


@pytest.mark.long
@pytest.mark.parametrize("name", CASES)
def test_ten_thousand(name, tmp_path):
    alter(name, tmp_path, 10_000)
