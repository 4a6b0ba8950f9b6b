"""Rows with one item: no fault where a recipe trains on them, and never out of what is held out."""

import pytest

from fusemix_core.config import DataConfig
from fusemix_core.data import read_pairs
from fusemix_core.errors import DataError

TAKES = {"a": "text", "b": "text"}


def write(path, rows):
    path.write_text("\n".join(["a,b,part,book", *rows]) + "\n")
    return str(path)


def pairs(count, part="", book=""):
    return [f"a{i},b{i},{part},{book and f'{book}{i}'}" for i in range(count)]


def read(*sources, **options):
    return read_pairs(DataConfig(source=sources, unpaired=True, **options), TAKES)


def alone(data):
    return {m: {data.items[m].describe(i) for i in data.unpaired[m]} for m in data.unpaired}


def test_a_row_with_one_item_is_no_pair_and_no_fault(tmp_path):
    source = write(tmp_path / "p.csv", [*pairs(30), "only a,,,", ",only b,,", ",,,", ",only b,,"])
    data = read(source)
    assert alone(data) == {"a": {"only a"}, "b": {"only b"}}
    assert (data.links >= 0).all() and sum(map(len, data.splits.values())) == 30
    assert [r.reason for r in data.rejected] == ["the row has no a and no b"]
    strict = read_pairs(DataConfig(source=(source,)), TAKES)
    assert len(strict.rejected) == 4 and strict.unpaired == {}
    for name, rows in strict.splits.items():  # the same split with them and without
        of = [
            {d.items["a"].describe(i) for i in d.links[d.splits[name], 0]} for d in (strict, data)
        ]
        assert len(rows) and of[0] == of[1]


def test_an_item_that_a_pair_has_is_not_unpaired(tmp_path):
    source = write(tmp_path / "p.csv", [*pairs(30), *(f"a{i},,," for i in range(30)), "a new,,,"])
    assert alone(read(source)) == {"a": {"a new"}, "b": set()}


def test_what_is_told_to_be_held_out_is_not_trained_on(tmp_path):
    rows = [
        *pairs(20, "train"), "va,vb,val,", "ta,tb,test,", "x,,val,", ",y,test,",
        "free,,train,", "va,,train,", ",tb,train,",
    ]  # fmt: skip
    data = read(write(tmp_path / "p.csv", rows), split_column="part")
    assert alone(data) == {"a": {"free"}, "b": set()}
    assert {r.row for r in data.rejected} == {23, 24}


def test_the_left_over_of_a_held_out_row_is_not_trained_on(tmp_path):
    (tmp_path / "0.bin").write_bytes(b"0")
    rows = [*(f"0.bin,b{i},train," for i in range(5)), "gone.bin,held,val,", "gone.bin,free,train,"]
    source = write(tmp_path / "p.csv", rows)
    config = DataConfig(source=(source,), unpaired=True, split_column="part")
    data = read_pairs(config, {"a": "image", "b": "text"})
    assert alone(data) == {"a": set(), "b": {"free"}}


@pytest.mark.parametrize("seed", range(3))
def test_nothing_that_belongs_to_a_held_out_pair_is_trained_on(tmp_path, seed):
    own = [f"x{i},,,book{i}" for i in range(40)]
    chain = [f"x{i},,,other{i}" for i in range(40)] + [f",y{i},,other{i}" for i in range(40)]
    source = write(tmp_path / "p.csv", [*pairs(40, book="book"), *own, *chain])
    data = read_pairs(DataConfig(source=(source,), unpaired=True, group_by="book"), TAKES, seed)
    train = {int(data.items["a"].describe(i)[1:]) for i in data.links[data.splits["train"], 0]}
    assert 30 <= len(train) < 40
    assert alone(data) == {"a": {f"x{i}" for i in train}, "b": {f"y{i}" for i in train}}


def test_a_file_of_one_modality_joins_the_pairs(tmp_path):
    source = write(tmp_path / "p.csv", pairs(20))
    (tmp_path / "more.csv").write_text("a\n" + "\n".join(f"more {i}" for i in range(9)))
    assert len(alone(read(source, str(tmp_path / "more.csv")))["a"]) == 9
    with pytest.raises(DataError):
        read(source, validation=str(tmp_path / "more.csv"))


def test_bad_ones_go_and_are_told(tmp_path):
    data = read(write(tmp_path / "p.csv", [*pairs(20), "x,,,", "y,,,"]))
    left = data.without("a", {int(data.unpaired["a"][0]): "broken"})
    assert alone(left)["a"] == {"y"} and len(left) == 20
    assert [(r.row, r.modality, r.reason) for r in left.rejected] == [(21, "a", "broken")]


def test_pairs_are_needed_still(tmp_path):
    with pytest.raises(DataError, match="No row"):
        read(write(tmp_path / "p.csv", ["x,,,", ",y,,"]))
