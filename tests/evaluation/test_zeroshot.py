import json

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from fusemix_core.errors import DataError
from fusemix_core.evaluation.prompt_files import read_classes, read_templates
from fusemix_core.evaluation.zeroshot import (
    class_embeddings,
    default_templates,
    prompts,
    zero_shot,
)
from fusemix_core.registry import registry


def rows(n, d=6, seed=0):
    return normalize(torch.randn(n, d, generator=torch.Generator().manual_seed(seed)), dim=-1)


def test_class_embedding_is_the_mean_over_templates():
    table = {
        p: rows(1, seed=i)[0] * (i + 1)
        for i, p in enumerate(prompts(["cat", "dog"], ["a {}", "{}!"]))
    }
    got = class_embeddings(
        lambda texts: torch.stack([table[t] for t in texts]), ["cat", "dog"], ["a {}", "{}!"]
    )
    for i, name in enumerate(["cat", "dog"]):
        mean = (normalize(table[f"a {name}"], dim=0) + normalize(table[f"{name}!"], dim=0)) / 2
        torch.testing.assert_close(got[i], mean / mean.norm())


def test_a_class_name_with_braces_stays_as_it_is():
    assert prompts(["{x} {}"], ["a {}."]) == ["a {x} {}."]


@pytest.mark.parametrize("chunk", [7, 4096])
def test_metrics_equal_the_naive_form(chunk):
    classes = [f"class {i}" for i in range(9)]
    items, centres = rows(120), rows(9, seed=1)
    labels = np.random.default_rng(0).integers(0, 8, 120)  # class 8 has no item
    found = zero_shot(items, labels.tolist(), centres, classes, chunk=chunk)
    scores = (items @ centres.T).numpy()
    order = np.argsort(-scores, axis=1)
    for k in (1, 5):
        hit = (order[:, :k] == labels[:, None]).any(1)
        assert found[f"top{k}"] == pytest.approx(100 * hit.mean())
        for i in range(8):
            assert found["per_class"][classes[i]][f"top{k}"] == pytest.approx(
                100 * hit[labels == i].mean()
            )
    confusion = np.zeros((9, 9), int)
    for label, best in zip(labels, order[:, 0], strict=True):
        confusion[label, best] += 1
    assert found["confusion"] == confusion.tolist()
    per_class = np.diag(confusion)[:8] / confusion.sum(1)[:8]
    assert found["mean_per_class"] == pytest.approx(100 * per_class.mean())
    assert found["per_class"]["class 8"] == {"items": 0, "top1": None, "top5": None}
    for name in ("top1", "top5", "mean_per_class"):
        low, high = found[f"{name}_interval"]
        assert low <= found[name] <= high
    share = found["top1"] / 100
    low, high = found["top1_interval"]
    assert high - low == pytest.approx(392 * (share * (1 - share) / 120) ** 0.5, rel=0.2)
    assert json.loads(json.dumps(found)) == found


def test_order_of_items_does_not_matter():
    items, labels = rows(50), torch.arange(50) % 4
    order = torch.randperm(50, generator=torch.Generator().manual_seed(1))
    arguments = rows(4, seed=1), ["a", "b", "c", "d"]
    assert zero_shot(items, labels, *arguments) == zero_shot(
        items[order], labels[order], *arguments
    )


@pytest.mark.parametrize("value", [0.0, torch.nan, -torch.inf])
def test_ties_and_nan_are_never_right(value):
    found = zero_shot(
        rows(12), torch.arange(12) % 3, rows(3), list("abc"), lambda *_: torch.full((12, 3), value)
    )
    assert found["top1"] == 0
    assert sum(map(sum, found["confusion"])) == 12
    assert [found["confusion"][i][i] for i in range(3)] == [0, 0, 0]


def test_wrong_calls_are_refused():
    with pytest.raises(DataError, match="two classes"):
        zero_shot(rows(2), [0, 0], rows(1), ["a"])
    with pytest.raises(DataError, match="nothing to classify"):
        zero_shot(rows(2)[:0], [], rows(2), ["a", "b"])
    with pytest.raises(ValueError, match="3 labels for 2 items"):
        zero_shot(rows(2), [0, 0, 1], rows(2), ["a", "b"])
    with pytest.raises(ValueError, match="indices"):
        zero_shot(rows(2), [0, -1], rows(2), ["a", "b"])


def test_default_templates_hold_one_place():
    declared = registry.all_modalities()
    assert {"image", "text", "audio", "video"} <= {one.name for one in declared}
    assert all(t.count("{}") == 1 for one in declared for t in default_templates(one.name))
    assert default_templates("unheard of") == ("{}",)


def test_files_of_classes_and_templates(tmp_path):
    lines = tmp_path / "classes.txt"
    lines.write_text("\ufeffcat\n\n  größer Hund \r\n", encoding="utf-8")
    assert read_classes(lines) == ["cat", "größer Hund"]
    (tmp_path / "classes.json").write_text('["cat", "dog"]')
    assert read_classes(tmp_path / "classes.json") == ["cat", "dog"]
    (tmp_path / "t.txt").write_text("a photo of a {}.\n{}\n")
    assert read_templates(tmp_path / "t.txt") == ["a photo of a {}.", "{}"]


@pytest.mark.parametrize(
    ("name", "content", "read", "row", "says"),
    [
        ("a.txt", b"cat\ndog\ncat\n", read_classes, 3, "row 1 already"),
        ("a.txt", b"a {}\na photo\n", read_templates, 2, "must hold {} once"),
        ("a.txt", b"{} and {}\n", read_templates, 1, "must hold {} once"),
        ("a.txt", b"cat\n\xff\xfe\n", read_classes, 2, "UTF-8"),
        ("a.txt", b"\n \n", read_classes, None, "no classes"),
        ("a.json", b'["cat",\n dog]', read_classes, 2, "not valid JSON"),
        ("a.json", b'{"cat": 1, "dog": 1}', read_classes, None, "must all be different"),
        ("a.json", b'{"cat": {}}', read_classes, None, "must all be different"),
        ("a.json", b'"cat"', read_classes, None, "not a JSON list"),
        ("a.json", b'["cat", 3]', read_classes, 2, "not a string"),
        ("a.json", b"[" * 100_000, read_classes, None, "not valid JSON"),
        ("a.json", b"[" + b"9" * 5000 + b"]", read_classes, None, "not valid JSON"),
        ("a.json", b'["cat", "\\ud800"]', read_classes, 2, "surrogate"),
        ("a.txt", b"x" * (17 << 20), read_classes, None, "larger than 16 MiB"),
    ],
)
def test_bad_files_are_named_with_their_row(tmp_path, name, content, read, row, says):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=says) as raised:
        read(tmp_path / name)
    assert raised.value.row == row and name in str(raised.value) and raised.value.hint


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match="No such file"):
        read_classes(tmp_path / "none.txt")
