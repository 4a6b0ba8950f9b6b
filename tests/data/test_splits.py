"""What belongs together is never on two sides."""

from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusemix_core.config import DataConfig
from fusemix_core.data import pairs_from
from fusemix_core.data.held import data_table
from fusemix_core.data.reading import read_pairs
from fusemix_core.data.splits import Fractions, _scramble, bind, connected_components, split_rows
from fusemix_core.errors import DataError


def naive_components(columns) -> list[frozenset[int]]:
    """By flooding, one row at a time."""
    rows = range(len(columns[0]))
    near = defaultdict(set)
    for column in columns:
        for a in rows:
            near[a] |= {b for b in rows if column[a] >= 0 and column[a] == column[b]}
    seen, out = set(), []
    for start in rows:
        if start in seen:
            continue
        todo, part = [start], set()
        while todo:
            one = todo.pop()
            if one not in part:
                part.add(one)
                todo += near[one]
        seen |= part
        out.append(frozenset(part))
    return out


COLUMNS = st.integers(1, 40).flatmap(
    lambda m: st.lists(
        st.lists(st.integers(-1, 15), min_size=m, max_size=m), min_size=1, max_size=3
    )
)


@given(COLUMNS)
@settings(max_examples=150, deadline=None)
def test_components_equal_flooding(columns):
    labels = connected_components([np.array(c) for c in columns])
    got = {frozenset(np.flatnonzero(labels == l)) for l in range(labels.max() + 1)}
    assert got == set(naive_components(columns))


def test_long_chains_in_any_order():
    n = 5000
    order = np.random.default_rng(0).permutation(n)
    left, right = np.arange(n) // 2, (np.arange(n) + 1) // 2  # a path through all rows
    assert connected_components([left[order], right[order]]).max() == 0
    cut = right.copy()
    cut[n // 2 + 2 :] += n  # where only `right` holds the path together
    assert connected_components([left[order], cut[order]]).max() == 1


ROWS = st.lists(
    st.tuples(st.integers(0, 30), st.integers(0, 60), st.integers(0, 20)),
    min_size=10,
    max_size=60,
    unique_by=lambda row: row[:2],  # equal rows are united
)


@given(ROWS, st.integers(0, 5), st.booleans())
@settings(max_examples=60, deadline=None)
def test_rows_that_share_a_medium_or_a_group_never_straddle(rows, seed, grouped):
    media = [b"image %d" % a for a, _, _ in rows]
    texts = [f"text {b}" for _, b, _ in rows]
    groups = [c for _, _, c in rows] if grouped else None
    try:
        data = pairs_from(
            {"image": media, "text": texts},
            {"image": "image", "text": "text"},
            group=groups,
            seed=seed,
        )
    except DataError as error:
        assert "belong together" in error.message
        return
    side = np.empty(len(data), object)
    for name, part in data.splits.items():
        side[part] = name
    assert sum(map(len, data.splits.values())) == len(data) and all(side)
    columns = [data.links[:, 0]] + ([np.array(groups)] if grouped else [])
    columns += [] if data.warnings else [data.links[:, 1]]
    for component in naive_components(columns):
        assert len({side[i] for i in component}) == 1
    if len(naive_components(columns)) >= 10:
        assert all(len(part) for part in data.splits.values())


def sides(data) -> dict[str, str]:
    """text → split."""
    return {
        data.items["text"].describe(data.links[i, 1]): name
        for name, part in data.splits.items()
        for i in part
    }


def test_same_seed_same_split_in_any_order():
    names = [f"text {i}" for i in range(100)]
    takes = {"image": "image", "text": "text"}

    def split(order, seed):
        chosen = [names[i] for i in order]
        return sides(
            pairs_from({"image": [n.encode() for n in chosen], "text": chosen}, takes, seed=seed)
        )

    order = np.random.default_rng(0).permutation(100)
    assert split(range(100), 3) == split(order, 3)
    assert split(range(100), 3) != split(range(100), 4)


def test_shares_are_kept_exactly_for_pairs():
    component = np.arange(1000)
    keys = np.random.default_rng(0).integers(0, 2**63, 1000).astype(np.uint64)
    parts = split_rows(component, keys, Fractions(0.1, 0.2), 0)
    assert [len(parts[n]) for n in ("train", "validation", "test")] == [700, 100, 200]


@pytest.mark.parametrize("rows", [3, 4, 50, 1000])
def test_rows_by_themselves_are_drawn_in_the_order_of_their_keys(rows):
    keys = np.random.default_rng(rows).integers(0, 2**63, rows).astype(np.uint64)
    parts = split_rows(np.arange(rows), keys, Fractions(0.1, 0.2), 5)
    order = np.argsort(_scramble(keys ^ _scramble(np.array([5], np.uint64))))
    test, validation = max(round(0.2 * rows), 1), max(round(0.1 * rows), 1)
    assert parts["test"].tolist() == sorted(order[:test].tolist())
    assert parts["validation"].tolist() == sorted(order[test : test + validation].tolist())
    assert sorted(np.concatenate(list(parts.values())).tolist()) == list(range(rows))


def test_all_captions_of_an_image_stay_together_and_duplicates_of_it():
    images = [b"%d" % (i // 5) for i in range(200)]
    texts = [f"caption {i}" for i in range(200)]
    data = pairs_from({"image": images, "text": texts}, {"image": "image", "text": "text"})
    assert len(data.items["image"]) == 40
    for part in data.splits.values():
        assert len(part) % 5 == 0 and len(part)


def test_equal_captions_of_different_images_stay_together():
    images = [b"%d" % i for i in range(100)]
    texts = [f"caption {i // 2 if i < 20 else i}" for i in range(100)]
    data = pairs_from({"image": images, "text": texts}, {"image": "image", "text": "text"})
    side = sides(data)
    assert not data.warnings
    for i in range(0, 20, 2):
        rows = np.flatnonzero(data.links[:, 1] == data.links[i, 1])
        assert any(set(rows) <= set(part) for part in data.splits.values())
    assert len(side) == 90


def test_labels_do_not_bind():
    sounds = [b"%d" % i for i in range(320)]
    labels = [f"class {i % 10}" for i in range(320)]
    data = pairs_from({"audio": sounds, "text": labels}, {"audio": "audio", "text": "text"})
    assert len(data.items["text"]) == 10
    assert [len(data.splits[n]) for n in ("train", "validation", "test")] == [256, 32, 32]
    assert "as labels do" in data.warnings[0]
    test_labels = {int(data.links[i, 1]) for i in data.splits["test"]}
    train_labels = {int(data.links[i, 1]) for i in data.splits["train"]}
    assert test_labels <= train_labels


def test_a_text_of_one_picture_and_one_sound_binds_them():
    """Two files, each with the same captions: of pictures, and of sounds."""
    texts = [f"caption {i}" for i in range(60)]
    nothing = [None] * 60
    data = pairs_from(
        {
            "image": [*(b"picture %d" % i for i in range(60)), *nothing],
            "text": texts * 2,
            "audio": [*nothing, *(b"sound %d" % i for i in range(60))],
        },
        {"image": "image", "text": "text", "audio": "audio"},
    )
    assert not data.warnings
    for part in data.splits.values():
        of = data.links[part]
        assert set(of[of[:, 0] >= 0, 1]) == set(of[of[:, 2] >= 0, 1])


def test_chains_of_texts_that_glue_most_rows_do_not_bind():
    links = [(image, f"own {image}") for image in range(60)]
    links += [(image, f"chain {image}") for image in range(40)]
    links += [(image + 1, f"chain {image}") for image in range(40)]
    links += [(image, f"more {image} {i}") for image in range(60) for i in range(3)]
    data = pairs_from(
        {"image": [b"%d" % i for i, _ in links], "text": [t for _, t in links]},
        {"image": "image", "text": "text"},
    )
    assert "chains" in data.warnings[0]
    assert len(data.splits["test"])


def test_one_component_that_holds_most_rows_is_an_error():
    texts = [f"{i}" for i in range(20)]
    with pytest.raises(DataError, match="belong together") as error:
        pairs_from(
            {"image": [b"one" if i < 15 else b"%d" % i for i in range(20)], "text": texts},
            {"image": "image", "text": "text"},
        )
    assert "--split-column" in error.value.hint


def test_texts_of_two_languages_bind_both_ways():
    links = np.array([[0, 0], [0, 1], [1, 2], [2, 2]])
    component, binding, warning = bind(links, [True, True], ["en", "de"], None)
    assert component.tolist() == [0, 0, 1, 1] and binding.tolist() == [0, 1] and not warning


def test_too_few_to_split_are_all_for_training():
    data = pairs_from(
        {"image": [b"a", b"b"], "text": ["a", "b"]}, {"image": "image", "text": "text"}
    )
    assert len(data.splits["train"]) == 2
    assert "too few" in data.warnings[0]


def test_a_few_components_still_give_each_part_one():
    data = pairs_from(
        {"image": [b"%d" % i for i in range(5)], "text": list("abcde")},
        {"image": "image", "text": "text"},
    )
    assert [len(p) for p in data.splits.values()] == [3, 1, 1]


@pytest.mark.parametrize(("validation", "test"), [(-0.1, 0.1), (0.5, 0.5), (0, 1)])
def test_impossible_fractions(validation, test):
    with pytest.raises(DataError, match="leave nothing"):
        Fractions(validation, test)


def test_equal_rows_of_a_table_do_not_bind():
    """Rows without a mutation are not one patient."""
    table = {"a": ["1", "2", "3"] * 10, "b": ["0"] * 30}
    takes = {"table": "table", "other": "table"}
    config = DataConfig(**data_table({"source": table, "columns": {"table": "a", "other": "b"}}))
    dataset = read_pairs(config, takes, repeats=True)
    assert [len(rows) for rows in dataset.splits.values()] == [24, 3, 3]
