"""The evaluator `generation`: rows of one question, what is refused, and the command."""

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from field import Field
from pairs import write_world
from PIL import Image
from torch.nn.functional import normalize
from toys import ToyImage, ToySound, ToyText

from fusemix_core import align
from fusemix_core.cli.evaluate import GenerationOptions
from fusemix_core.config import DataConfig, Part
from fusemix_core.data.reading import pairs_from
from fusemix_core.errors import ConfigError, DataError
from fusemix_core.evaluation.running import sections_of
from fusemix_core.generation.evaluator import GenerationEvaluator, elsewhere
from fusemix_core.generation.judging import Judge, judge_of
from fusemix_core.interfaces import Evaluator
from fusemix_core.jobs.evaluate import measure_pairs
from fusemix_core.measured import Measured
from fusemix_core.registry import registry
from fusemix_core.sections import Share
from fusemix_core.specs import EncoderSpec

CPU = torch.device("cpu")
WORDS = ("dog", "rain", "clock", "rooster", "saw", "wave", "bird", "fire")


class Eye(ToyImage):
    """A judge: the mean colour, of which concepts differ."""

    spec = EncoderSpec(name="eye", modality="image", target="test:Eye", dim=3, parameters=3)
    mix = torch.cat([4 * torch.eye(3), torch.zeros(3, 3)])

    def encode(self, batch, view="pooled"):
        return batch[:, :3] - 0.5


def latents(words):
    toy = ToyText(ToyText.spec)
    return normalize(toy.encode(toy.collate(list(words))), dim=1)


@pytest.fixture(autouse=True)
def judge():
    registry.add(Eye)


@pytest.fixture
def table(tmp_path):
    """A table of real images of some words: four of each, half of them trained on."""

    def write(words=WORDS, name="real.csv", split=True):
        folder = tmp_path / name.removesuffix(".csv")
        folder.mkdir()
        field = Field.load(Field.spec, CPU, torch.float32)
        rows = []
        for word, row in zip(words, latents(words), strict=True):
            images = field.generate(row.expand(4, -1), seeds=[90, 91, 92, 93], noise=0.1)
            for i, image in enumerate(images):
                image.save(folder / f"{word}{i}.png")
                part = ("train", "test")[i % 2] if split else ""
                rows.append([f"{folder.name}/{word}{i}.png", word, part])
        path = tmp_path / name
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["image", "text", "split"][: 3 if split else 2])
            writer.writerows(row[: 3 if split else 2] for row in rows)
        return str(path)

    return write


def measured(fused, noise=0.0, words=WORDS, each=3, model=None):
    """A split of sounds whose embeddings are their words' latents and noise."""
    draw = torch.Generator().manual_seed(1)
    names = [word for word in words for _ in range(each)]
    texts = pairs_from(
        {"text": names, "audio": [f"{i}" for i in range(len(names))]},
        {"text": "text", "audio": "text"},
    ).items["text"]
    rows = latents(names) + noise * torch.randn(len(names), 12, generator=draw)
    order = {texts.describe(i): i for i in range(len(texts))}
    links = torch.tensor([[order[name], i] for i, name in enumerate(names)])
    model = model or fused("text", "audio")
    return Measured(
        embeddings={
            "text": latents([texts.describe(i) for i in range(len(texts))]),
            "audio": normalize(rows, dim=1),
        },
        links=links,
        score=model.scorer.score,
        items={"text": texts},
        ids={"text": torch.arange(len(texts)), "audio": torch.arange(len(names))},
        encoder=model.encode,
        model=model,
        seed=2,
    )


def evaluator(**options):
    how = {"generator": "field", "judge": "eye", "correct": "none", "resamples": 200}
    return GenerationEvaluator(**how | options)


def test_sounds_embedded_as_their_words_are_drawn_as_their_words(fused, table):
    found = evaluator(images=table())(measured(fused))
    sound = found["modalities"]["audio"]
    rows = sound["rows"]
    assert list(rows) == ["real", "text", "audio", "nearest text", "shuffled"]
    assert rows["audio"] == rows["text"] == rows["nearest text"]
    assert rows["real"]["r1"] > 80 and rows["text"]["r1"] > 80
    assert rows["shuffled"]["r1"] < 20 and rows["text"]["iis"] > 85
    assert sound["of_text"] == 1 and sound["of_text_interval"] == [1, 1]
    assert sound["ahead_of_nearest"] == 0 and sound["skipped"] == 0
    assert (sound["items"], sound["classes"], found["concepts"]) == (24, 8, 8)
    assert found["judge"] == "eye" and found["generator"] == "field"


def test_noise_lowers_the_row_of_the_sound_only(fused, table):
    images = table()
    clean = evaluator(images=images)(measured(fused))["modalities"]["audio"]
    noisy = evaluator(images=images)(measured(fused, noise=0.35))["modalities"]["audio"]
    assert noisy["rows"]["text"] == clean["rows"]["text"]
    assert noisy["rows"]["audio"]["r1"] < clean["rows"]["audio"]["r1"] - 20
    low, high = noisy["of_text_interval"]
    assert low < noisy["of_text"] < high < 1
    assert noisy["rows"]["audio"]["kid"] is not None and noisy["rows"]["audio"]["ais"] is None


def test_a_row_says_what_the_judge_sees(fused, table):
    """R@1 of the text row by hand: draw, judge, compare with the centroids."""
    images = table()
    row = evaluator(images=images, most=8)(measured(fused, each=1))["modalities"]["audio"]["rows"]
    field, eye = Field.load(Field.spec, CPU, torch.float32), Eye(Eye.spec)
    with open(images) as file:
        real = list(csv.DictReader(file))
    root = images.rpartition("/")[0]

    def eye_of(drawn):
        return eye.encode(eye.collate(drawn))

    shown = eye_of([Image.open(f"{root}/{one['image']}").convert("RGB") for one in real])
    common = shown.mean(0)
    shown = normalize(shown - common, dim=1)
    middle = {
        word: normalize(
            torch.stack([x for x, one in zip(shown, real, strict=True) if one["text"] == word])
            .mean(0), dim=0,
        )
        for word in WORDS
    }  # fmt: skip
    drawn = field.generate(latents(WORDS).repeat_interleave(2, dim=0), seeds=list(range(2, 18)))
    best = [
        max(middle, key=lambda w, x=x: float(x @ middle[w]))
        for x in normalize(eye_of(drawn) - common, dim=1)
    ]
    right = np.mean([w == WORDS[i // 2] for i, w in enumerate(best)])
    assert row["text"]["r1"] == pytest.approx(100 * right)


def test_copies_are_measured_if_the_table_says_what_was_trained_on(fused, table):
    data = measured(fused)
    found = evaluator(images=table())(data)
    assert found["held_out_distance"] > 0
    assert found["modalities"]["audio"]["rows"]["text"]["copies"] > 0
    without = evaluator(images=table(name="plain.csv", split=False))(data)
    assert without["held_out_distance"] is None
    assert without["modalities"]["audio"]["rows"]["text"]["copies"] is None


def test_items_without_a_real_image_are_left_out_and_counted(fused, table):
    found = evaluator(images=table(WORDS[:5]))(measured(fused))
    sound = found["modalities"]["audio"]
    assert (sound["items"], sound["skipped"], sound["classes"]) == (15, 9, 5)
    assert "9 items are left out" in _text(evaluator(images=""), found)


def _text(one, found):
    return "".join(section.note for section in one.sections(found, None))


def test_many_items_are_a_seeded_choice(fused, table):
    images, data = table(), measured(fused, noise=0.2)
    few = evaluator(images=images, most=10)
    found = few(data)
    assert found["modalities"]["audio"]["items"] == 10
    assert few(data) == found


def test_a_model_with_images_tells_how_well_they_fit_the_sounds(fused, table):
    model = fused("text", "audio", "image")
    found = evaluator(images=table())(measured(fused, model=model))
    rows = found["modalities"]["audio"]["rows"]
    assert 0 <= rows["text"]["ais"] <= 100
    assert rows["text"]["ais"] == rows["audio"]["ais"]


def test_sections_have_a_row_per_condition_and_a_strip(fused, table):
    one, data = evaluator(images=table()), measured(fused, noise=0.2)
    assert isinstance(one, Evaluator)
    found = json.loads(json.dumps(one(data)))
    (section,) = sections_of("generation", one, found, data)
    (shown,) = section.tables
    assert [row[0] for row in shown.rows] == [
        "nothing: real images", "its text", "the audio", "the nearest text", "another audio",
    ]  # fmt: skip
    rows = found["modalities"]["audio"]["rows"]
    assert shown.rows[2][1] == Share(rows["audio"]["r1"], rows["audio"]["r1_interval"])
    assert shown.rows[0][-1] == pytest.approx(found["held_out_distance"], rel=0.01)
    assert "right of 8" in shown.columns and "of 8 concepts" in section.text
    strip = Image.open(io.BytesIO(section.figures[0].drawing))
    assert strip.size == (8 * 68 - 4, 4 * 68 - 4)


def test_shuffled_takes_each_item_once_and_never_one_of_its_own_concept():
    concepts = torch.tensor([2, 0, 0, 1, 1, 2, 0, 3])
    found = elsewhere(concepts)
    assert sorted(found.tolist()) == list(range(8))
    assert (concepts[found] != concepts).all()


def test_the_judge_is_the_largest_encoder_that_had_no_part(fused):
    model = fused("text", "image")
    assert judge_of("eye", Field.spec, model, registry).name == "eye"
    with pytest.raises(ConfigError, match="'toy-image' can't judge"):
        judge_of("toy-image", Field.spec, model, registry)
    chosen = judge_of("", Field.spec, model, registry)
    assert chosen.modality == "image" and chosen.name != "toy-image"


def test_a_judges_rows_are_those_of_its_items():
    images = [Image.new("RGB", (4, 4), colour) for colour in ("red", "lime", "blue")]
    rows = Judge(Eye.spec, CPU, registry)(images)
    assert rows.argmax(dim=1).tolist() == [0, 1, 2]


def test_a_judge_may_see_all_images_at_one_size():
    checks = np.kron([[0, 1], [1, 0]], np.ones((4, 4)))[..., None].repeat(3, 2)
    image = Image.fromarray((255 * checks).astype(np.uint8))
    spec = replace(ToyImage.spec, name="deviation", dim=16)
    registry.add(spec)
    toy, coarse = ToyImage(spec), Judge(spec, CPU, registry, pixels=2)([image])
    wanted = toy.encode(toy.collate([image.resize((2, 2), Image.Resampling.BOX)]))
    torch.testing.assert_close(coarse, wanted)
    grey = Judge(spec, CPU, registry, pixels=1)([image])
    assert (grey - coarse).abs().max() > 0.1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"generator": ""}, "needs a generator"),
        ({"most": 1}, "can't be measured"),
        ({"count": 0}, "can't be measured"),
    ],
)
def test_options_that_measure_nothing_are_refused(options, said):
    with pytest.raises(ConfigError, match=said) as error:
        evaluator(**options)
    assert error.value.hint


def test_data_without_images_or_concepts_are_refused(fused, table):
    data = measured(fused)
    with pytest.raises(ConfigError, match="no real image") as error:
        evaluator()(data)
    assert "--images" in error.value.hint
    with pytest.raises(DataError, match="Fewer than two texts of audio"):
        evaluator(images=table(("dog", "whale", "car")))(data)
    with pytest.raises(ConfigError, match="no fused model"):
        evaluator(images="x.csv")(replace(data, model=None))


def test_the_job_measures_what_a_generator_draws_from_sounds(fused, sound, tmp_path, table):
    rows = [[sound(200 + 37 * i), WORDS[i % 4]] for i in range(8)]
    pairs = tmp_path / "pairs.csv"
    with pairs.open("w", newline="") as file:
        csv.writer(file).writerows([["audio", "text"], *rows])
    part = Part("generation", {"generator": "field", "judge": "eye", "images": table()})
    found = measure_pairs(fused("text", "audio"), DataConfig(source=(str(pairs),)), "all", [part])
    assert not found.failed
    assert found.metrics["generation"]["modalities"]["audio"]["items"] == 8
    assert found.sections["generation"][0].headline[0].label == "audio → field"


@pytest.mark.slow
def test_a_run_that_names_the_evaluator_reports_a_strip(tmp_path):
    """Of images of the data themselves: each shows one text, so there is no limit of the judge."""
    data = write_world(tmp_path / "w", count=60, sounds=True)
    align(
        {"image": ToyImage, "text": ToyText, "audio": ToySound},
        data,
        fixed="text",
        evaluators=[{"name": "generation", "options": {"generator": "field", "judge": "eye"}}],
        out=tmp_path / "r",
        device="cpu",
    )
    found = json.loads((tmp_path / "r/results.json").read_text())["test"]["generation"]
    rows = found["modalities"]["audio"]["rows"]
    assert found["modalities"]["audio"]["items"] >= 2 and rows["real"] == {}
    assert rows["audio"]["ais"] is not None and rows["audio"]["copies"] is None
    report = (tmp_path / "r/report.html").read_text()
    assert "Generation from audio" in report and "data:image/png" in report


def test_the_options_of_eval_name_the_evaluator():
    assert GenerationOptions().parts() == []
    given = GenerationOptions(generate="emoji", images=Path("real.csv"))
    assert given.parts() == [Part("generation", {"generator": "emoji", "images": "real.csv"})]
    registry.check("evaluator", given.parts()[0])
    with pytest.raises(ConfigError, match="need --generate"):
        GenerationOptions(judge="eye").parts()
