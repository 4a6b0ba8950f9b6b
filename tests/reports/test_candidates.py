"""The table of candidates in the report of `fusemix fuse`."""

from fusemix_core.reports.fuse import MOST, _candidates


def found(count):
    metrics = {f"m{i}": i / 100 for i in range(count)}
    return {
        "image": {"kind": "single", "metrics": metrics, "interval": [0.1, 0.2]},
        "mlp": {"kind": "fuser", "metrics": dict(reversed(metrics.items())), "interval": None},
    }


def test_few_metrics_are_columns():
    table = _candidates(found(2), {"mlp": "mlp (chosen)"}, "m1")
    assert table.columns == ["predicted from", "kind", "m0", "m1", "95% interval of m1"]
    assert table.rows[0] == ["image", "one modality", 0.0, 0.01, "0.100 to 0.200"]
    assert table.rows[1] == ["mlp (chosen)", "all modalities", 0.0, 0.01, None]


def test_many_metrics_are_rows_and_the_interval_follows_its_own():
    table = _candidates(found(MOST + 1), {"image": "image (named)"}, "m0")
    assert table.columns == ["predicted from", "image (named)", "mlp"]
    assert table.rows[:3] == [["m0", 0.0, 0.0], ["95% interval of m0", "0.100 to 0.200", None],
                              ["m1", 0.01, 0.01]]  # fmt: skip
    assert len(table.rows) == MOST + 2
