"""What `fusemix rerank` says of settings and runs that it can't use."""

import pytest

from fusemix_core.config import parse_assignment
from fusemix_core.errors import ConfigError, UnknownNameError
from fusemix_core.jobs.rerank import rerank_config
from fusemix_core.rerank_config import with_settings


def test_settings_reach_the_training_and_leave_the_others():
    changes = {"training.epochs": 4, "pool": 9, "training.max_steps": None}
    found = with_settings({"count": 2, "training": {"warmup_steps": 5}}, changes)
    assert (found["count"], found["pool"], found["training"]["epochs"]) == (2, 9, 4)
    assert found["training"]["lr"] == 3e-3 and found["training"]["warmup_steps"] == 5
    assert found["training"]["precision"] == "float32" and "max_steps" not in found["training"]


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("width=32", 'network go into --network "NAME KEY=VALUE"'),
        ("network.width=32", "There is no setting named 'network.width'"),
        ("epochs=3", "Did you mean 'training.epochs'"),
        ("training.epoch=3", "Did you mean 'training.epochs'"),
        ("count.many=3", "There is no setting named 'count.many'"),
        ("count=many", "count is 'many', which is not of type int"),
    ],
)
def test_a_wrong_setting_is_named_as_it_was_given(setting, says):
    path, value = parse_assignment(setting)
    with pytest.raises(ConfigError) as caught:
        with_settings({}, {".".join(path): value})
    assert says in str(caught.value) and "settings." not in str(caught.value)
    assert isinstance(caught.value, UnknownNameError) == ("no setting" in str(caught.value))


def test_a_run_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigError, match="'no/run' is not the folder of a run"):
        rerank_config({"model": "no/run"})
