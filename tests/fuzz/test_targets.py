"""Every reader on damaged inputs: what comes out is a result or a `FusemixError`, soon."""

import resource

import pytest
from fuzz.target import check, mutated
from fuzz.targets import TARGETS

COUNT = 10
each_target = pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
pytestmark = pytest.mark.filterwarnings("ignore")


def fuzz(target, tmp_path, numbers):
    """The input at hand lies in `tmp_path/input`, should it end the process."""
    place = tmp_path / "place"
    place.mkdir()
    seeds = target.seeds()
    for seed in seeds:
        assert check(target, seed, place), "a good input is refused"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in numbers:
        data = mutated(seeds, target.tokens, number)
        (tmp_path / "input").write_bytes(data)
        try:
            check(target, data, place)
        except BaseException as error:
            error.add_note(f"{target.name}, input {number}: {data[:400]!r}")
            raise
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10


@each_target
def test_only_errors_that_say_what_is_wrong(target, tmp_path):
    fuzz(target, tmp_path, range(COUNT))


@pytest.mark.long
@each_target
def test_ten_thousand(target, tmp_path):
    megabytes = fuzz(target, tmp_path, range(COUNT, 10_000))
    assert megabytes < 2500, f"{target.name} took {megabytes} MB"
