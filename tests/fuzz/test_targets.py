"""Every reader on damaged inputs: what comes out is a result or a `FusemixError`, soon."""

import pytest
from fuzz.target import check, mutated
from fuzz.targets import TARGETS

COUNT = 40


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_only_errors_that_say_what_is_wrong(target, tmp_path):
    seeds = target.seeds()
    for seed in seeds:
        assert check(target, seed, tmp_path), "a good input is refused"
    for number in range(COUNT):
        data = mutated(seeds, target.tokens, number)
        try:
            check(target, data, tmp_path)
        except BaseException as error:
            error.add_note(f"{target.name}, input {number}: {data[:400]!r}")
            raise
