"""The sets of the study: what is held out, what a hard case holds, latents by key."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.sets import encoders, hard
from benchmarks.sets.coordinates import location_latents, projected
from benchmarks.sets.counts import morgan_counts
from benchmarks.sets.prepare import merged_parts, pairs_of, prepare, write_lines
from benchmarks.tuning import as_toml, choose
from fusemix_core import bench
from fusemix_core.benchmark.config import DEFAULT, all_recipes, bench_config
from fusemix_core.cli.bench import config_table
from fusemix_core.config import read_toml
from fusemix_core.errors import ArtefactError, DataError

ROOT = Path(__file__).parents[2]


def icons(count=400):
    """Rows as the list of icons has them: a word is drawn several times, on one side only."""
    generator = np.random.default_rng(0)
    rows = []
    for number in range(count):
        word = int(generator.integers(0, count // 4))
        split = ("train", "train", "train", "validation", "test")[word % 5]
        rows.append({
            "id": f"set/{number}", "text": f"word {word}", "split": split, "svg": "<svg/>",
            "category": ("", "Arrows", "arrows ", "Home")[word % 4],
            "also": [f"further {word}", "word 4"] if word % 3 == 0 else [],
        })  # fmt: skip
    return rows


def test_one_unseen_pair_of_each_concept_is_held_out():
    rows = icons()
    pairs = pairs_of(rows, "image", lambda row: row["text"])
    train = [p for p in pairs if p["split"] == "train"]
    assert [p["image"] for p in train] == [
        str(i) for i, r in enumerate(rows) if r["split"] == "train"
    ]
    for split in ("validation", "test"):
        words = [p["text"] for p in pairs if p["split"] == split]
        wanted = {r["text"] for r in rows if r["split"] == split}
        assert len(words) == len(set(words)) and set(words) == wanted
    shuffled = [rows[i] for i in np.random.default_rng(1).permutation(len(rows))]
    again = pairs_of(shuffled, "image", lambda row: row["text"])

    def ids(pairs, rows):
        return [rows[int(p["image"])]["id"] for p in pairs if p["split"] != "train"]

    assert ids(again, shuffled) == ids(pairs, rows)  # whatever the order of the rows


def test_a_text_that_is_trained_on_is_never_held_out():
    rows = [
        {"id": i, "text": "twice" if i in (0, 9) else f"{i}", "split": "test" if i > 5 else "train"}
        for i in range(10)
    ]
    pairs = pairs_of(rows, "place", lambda row: row["text"])
    assert {p["text"] for p in pairs if p["split"] == "test"} == {"6", "7", "8"}


def test_hard_cases():
    rows = icons()
    pairs = pairs_of(rows, "image", lambda row: row["text"])
    train = [p for p in pairs if p["split"] == "train"]
    held = {p["text"] for p in pairs if p["split"] != "train"}
    many = hard.many(train, most=20, drawings=5)
    words = [p["text"] for p in many]
    assert len(many) == 20 and {words.count(w) for w in words} == {5}
    several = hard.words(rows, [p for p in pairs if p["split"] != "train"], most=20)
    assert len(several) == 20 and not {p["text"] for p in several} & held
    assert len({p["image"] for p in several}) <= 10
    labels = hard.labels(rows)
    assert {p["text"] for p in labels} == {"arrows", "home"}
    assert {p["split"] for p in labels} == {"train", "validation", "test"}
    copies = hard.copies(train, most=9)
    assert len({p["image"] for p in copies}) == 9 and len({p["text"] for p in copies}) <= 3
    classes = list(hard.classes(rows, fewest=1))
    assert {c["label"] for c in classes} == {"arrows", "home"}


@pytest.fixture
def made(tmp_path, monkeypatch):
    """A prepared set of icons, whose encoders read from its folder."""
    generator = np.random.default_rng(0)
    data, out = tmp_path / "data", tmp_path / "sets"
    (data / "icons").mkdir(parents=True)
    rows = icons()
    write_lines(data / "icons" / "icons.jsonl", rows)
    order = generator.permutation(len(rows))
    latents = generator.normal(size=(len(rows), 1280)).astype(np.float16)
    for part in range(2):
        np.save(data / "icons" / f"images-bf16-{part}of2.npy", latents[order[part::2]])
    np.save(data / "icons" / "order.npy", order)
    words = sorted({r["text"] for r in rows} | {w for r in rows for w in r["also"]} | {"home"})
    (data / "icons" / "texts.json").write_text(json.dumps(words))
    layers = generator.normal(size=(len(words), 2, 384))
    layers /= np.linalg.norm(layers, axis=2, keepdims=True)
    np.save(data / "icons" / "texts.npy", layers.reshape(-1, 768).astype(np.float16))
    assert prepare(data, out) == ["icons"]
    monkeypatch.setenv("FUSEMIX_SETS", str(out))
    return out, latents, words, layers


def test_latents_come_by_number_and_by_text(made):
    _, latents, words, layers = made
    drawings = encoders.Lite0(encoders.Lite0.spec)
    found = drawings.encode(drawings.collate(["3", "0", "3#2"]))
    assert torch.equal(found, torch.from_numpy(latents[[3, 0, 3]].astype(np.float32)))
    with pytest.raises(DataError, match="no row '400'"):
        drawings.collate(["400"])
    texts = encoders.MiniLM(encoders.MiniLM.spec)
    batch = texts.collate([words[5], words[1]])
    both = texts.encode(batch, encoders.LAYERS)
    assert both.numpy() == pytest.approx(layers[[5, 1]], abs=1e-3)
    assert torch.equal(texts.encode(batch), both[:, 1])


def test_a_text_that_is_not_on_file_is_encoded(made):
    texts = encoders.MiniLM(encoders.MiniLM.spec)
    found = texts.encode(texts.collate(["a photo of a home"]), encoders.LAYERS)
    assert found.shape == (1, 2, 384)
    assert found.norm(dim=2) == pytest.approx(torch.ones(1, 2), abs=1e-4)


def test_a_folder_without_latents_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("FUSEMIX_SETS", str(tmp_path))
    with pytest.raises(ArtefactError, match=r"images\.npy does not exist") as error:
        encoders.Lite0(encoders.Lite0.spec)
    assert "prepare" in error.value.hint


def test_parts_that_were_computed_side_by_side_become_one_matrix(tmp_path):
    order = np.random.default_rng(0).permutation(7)
    np.save(tmp_path / "order.npy", order)
    whole = 1 + np.arange(14, dtype=np.float16).reshape(7, 2)
    parts = [tmp_path / f"images-x-{p}of2.npy" for p in range(2)]
    for part, path in enumerate(parts):
        np.save(path, whole[order[part::2]])
    merged_parts(parts, tmp_path / "order.npy", tmp_path / "out.npy")
    assert (np.load(tmp_path / "out.npy") == whole).all()
    np.save(parts[1], np.zeros((3, 2), np.float16))
    with pytest.raises(ValueError, match="1of2.npy is not finished"):
        merged_parts(parts, tmp_path / "order.npy", tmp_path / "out.npy")
    np.save(parts[0], whole[:1])
    with pytest.raises(ValueError, match="has 1 rows, not 4"):
        merged_parts(parts, tmp_path / "order.npy", tmp_path / "out.npy")


@pytest.mark.slow
def test_prepared_sets_are_benchmarked(made, tmp_path):
    out, *_ = made
    file = encoders.__file__
    own = {
        "source": str(out / "icons/pairs.jsonl"),
        "columns": {"image": "image", "text": "text"},
        "split_column": "split",
        "encoders": {"image": f"{file}:Lite0", "text": f"{file}:MiniLM"},
        "views": {"text": "layers-middle-last"},
        "train": 50,
    }
    copies = {**own, "source": str(out / "icons/copies.jsonl"), "train": "all"}
    sets = {"icons": own, "icons-copies": copies}
    first, second = bench({"methods": ["cca"], "seeds": 1, "sets": sets}, tmp_path / "o")
    assert "error" not in first and "error" not in second
    assert first["label"] == "Lite0 + MiniLM (layers-middle-last)"
    assert first["pairs"]["train"] == 50 and second["pairs"]["train"] % 3 == 0
    assert first["pairs"]["test"] == second["pairs"]["test"]
    assert first["queries"]["image->text"]["count"] == first["pairs"]["test"]


def test_the_projection_keeps_areas_and_the_poles():
    degrees = torch.tensor([[0.0, 0.0], [0.0, 180.0], [90.0, 0.0], [-90.0, 0.0]])
    x, y = projected(degrees).T
    assert x[0] == y[0] == 0 and x[1] == pytest.approx(2.7066 * 66.50336 / 180, abs=1e-3)
    assert y[2] == -y[3] == pytest.approx(1.3173 * 66.50336 / 180, abs=1e-3)
    strips = projected(torch.tensor([[float(d), 1.0] for d in range(91)]))
    widths, heights = (strips[1:, 0] + strips[:-1, 0]) / 2, strips[1:, 1] - strips[:-1, 1]
    edges = torch.sin(torch.arange(91.0).deg2rad())
    area = widths * heights
    assert torch.allclose(area / area.sum(), edges.diff() / edges.diff().sum(), atol=1e-4)


def test_location_latents_are_a_sum_over_scales():
    generator = torch.Generator().manual_seed(0)
    shapes = {"capsule.0.b": (256, 2), "head.0.weight": (512, 8), "head.0.bias": (512,)}
    for layer, wide in ((1, 512), (3, 8), (5, 8)):
        shapes |= {f"capsule.{layer}.weight": (8, wide), f"capsule.{layer}.bias": (8,)}
    scales = [
        {f"LocEnc{s}.{n}": torch.randn(*shape, generator=generator) for n, shape in shapes.items()}
        for s in range(2)
    ]
    degrees = torch.tensor([[10.0, 20.0], [-30.0, 100.0]])
    both = location_latents(degrees, scales[0] | scales[1])
    each = [location_latents(degrees, weights) for weights in scales]
    assert torch.allclose(both, each[0] + each[1], atol=1e-4) and both.shape == (2, 512)


def test_counts_of_molecules():
    pytest.importorskip("rdkit")
    ethanol, again, long, nonsense = morgan_counts(["CCO", "OCC", "CCCCCCCC", "not a molecule"])
    assert (ethanol == again).all() and not nonsense.any()
    assert long.max() > ethanol.max() > 0


@pytest.mark.parametrize("name", ["scaling", "hard", "tuned"])
def test_the_configs_of_the_study_are_whole(name, monkeypatch):
    monkeypatch.chdir(ROOT)
    config = bench_config(config_table(ROOT / "benchmarks" / f"{name}.toml"))
    assert all(paired.whole_validation for paired in config.sets)
    recipes = {m.recipe.name for m in config.methods}
    trained = {m.label for m in config.methods if m.recipe.training is not None} - {DEFAULT}
    assert trained and all(bool(config.limit_of(m)) == (m.label in trained) for m in config.methods)
    if name != "tuned":  # all but the one that needs tokens, and the lesser kcca for an export
        assert recipes >= set(all_recipes()) - {"freeze-align", "exportable"}
    for paired in config.sets:
        assert config.combinations(paired)


def tuned(method, of, recall):
    found = {"r1": recall, "r5": recall, "r10": recall}
    return {
        "set": of, "label": "a + b", "size": None, "seed": 0, "method": method,
        "scorer": "cosine", "validation": {"cosine": found},
    }  # fmt: skip


METHODS = [
    {"label": "sail", "recipe": "sail"},
    {"label": "sail, fast", "recipe": "sail", "set": ["training.lr=1e-2"]},
    {"label": "fusemix", "recipe": "fusemix"},
    {"label": "fusemix, small", "recipe": "fusemix", "set": ["adapter.blocks=1"]},
]


def test_settings_are_chosen_by_the_mean_over_sets(tmp_path):
    recalls = {
        "sail": (30, 10),
        "sail, fast": (20, 25),
        "fusemix": (5, 5),
        "fusemix, small": (4, 9),
    }
    lines = [tuned(m, s, r) for m, both in recalls.items() for s, r in zip("ab", both, strict=True)]
    chosen = choose(METHODS, lines)
    assert chosen == [
        {"label": "sail", "recipe": "sail", "set": ["training.lr=1e-2"]},
        {"label": "fusemix, tuned", "recipe": "fusemix", "set": ["adapter.blocks=1"]},
    ]
    (tmp_path / "chosen.toml").write_text(as_toml(chosen))
    assert read_toml(tmp_path / "chosen.toml")["methods"] == chosen
    published = [*lines, tuned("fusemix", "a", 50)]  # the last line of a place counts
    assert [m["label"] for m in choose(METHODS, published)] == ["sail"]


def test_settings_that_were_not_tried_everywhere_are_not_compared():
    lines = [tuned(m["label"], s, 1.0) for m in METHODS for s in "ab"]
    with pytest.raises(ValueError, match="sail, fast lacks 1 fits"):
        choose(METHODS, [n for n in lines if (n["method"], n["set"]) != ("sail, fast", "b")])
