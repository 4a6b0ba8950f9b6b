"""The default recipe on little data: it behaves, and is never worse than its closed form."""

import json

import pytest
import torch
from pairs import write_world
from toys import ToyImage, ToySound, ToyText

from fusemix_core import FusedModel, align
from fusemix_core.runs.reporter import Reporter

ENCODERS = {"image": ToyImage, "text": ToyText}


@pytest.mark.parametrize("count", [12, 40, 200])
def test_any_number_of_pairs(tmp_path, count):
    data = write_world(tmp_path / "w", count=count)
    done = align(ENCODERS, data, out=tmp_path / "r", device="cpu")
    assert done.results["scorer"]["name"] in ("cosine", "csls")
    loaded = FusedModel.from_pretrained(
        tmp_path / "r/model", encoders={"image": ToyImage.spec, "text": ToyText.spec}
    )
    texts = ["a red car", "a blue bird"]
    assert torch.equal(loaded.encode("text", texts), done.model.encode("text", texts))


def test_refined_weights_are_not_worse_than_the_closed_form(tmp_path):
    data = write_world(tmp_path / "w", count=120)
    parts = [
        "aligner=gradient",
        "start=cca",
        "adapter=kernel",
        "mixup=fusemix",
        "objective=infonce",
    ]
    align(ENCODERS, data, overrides=[*parts, "training.epochs=3"], out=tmp_path / "r", device="cpu")
    rows = [json.loads(r) for r in (tmp_path / "r/metrics.jsonl").read_text().splitlines()]
    scores = [(r["step"], r["score"]) for r in rows if r["kind"] == "validation"]
    assert scores[0][0] == 0
    assert rows[-1]["best"] >= scores[0][1]


def test_three_modalities_with_gaps_beat_chance(tmp_path):
    data = write_world(tmp_path / "w", count=240, sounds=True)
    done = align({**ENCODERS, "audio": ToySound}, data, out=tmp_path / "r", device="cpu")
    directions = done.results["test"]["retrieval"]["directions"]
    for direction in ("image->text", "audio->image", "text->audio"):
        found = directions[direction]
        assert found["r5"] > 2 * 100 * 5 / found["gallery"], direction


def test_each_better_map_is_logged(tmp_path):
    data = write_world(tmp_path / "w", count=80)
    done = align(ENCODERS, data, out=tmp_path / "r", device="cpu")
    rows = [json.loads(r) for r in (tmp_path / "r/metrics.jsonl").read_text().splitlines()]
    assert rows and {(r["kind"], r["step"]) for r in rows} == {("validation", 0)}
    assert done.model.recipe["aligner"]["name"] == "auto"
    assert "R@10" in (tmp_path / "r/report.html").read_text()


class Interrupted(Reporter):
    """Ctrl-C at the end of the second pass, which is the kernel's."""

    passes = 0

    def on_pairs(self, done, total):
        self.passes += done == total
        if self.passes == 2:
            self.passes += 1
            raise KeyboardInterrupt


def test_a_run_that_was_cut_short_says_so(tmp_path):
    data = write_world(tmp_path / "w", count=80)
    out = {"out": tmp_path / "r", "device": "cpu"}
    done = align(ENCODERS, data, overrides=["adapter=none"], reporter=Interrupted(), **out)
    saved = json.loads((tmp_path / "r/results.json").read_text())
    assert saved["cut_short"].startswith("Interrupted") and done.results == saved
    assert "Interrupted" in (tmp_path / "r/report.html").read_text()
