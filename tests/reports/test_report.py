import base64
import hashlib
import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import normalize

from fusemix_core.errors import ContractError
from fusemix_core.evaluation.drawing import principal_map
from fusemix_core.evaluation.geometry import GeometryEvaluator
from fusemix_core.evaluation.ranking import cosine
from fusemix_core.evaluation.retrieval import RetrievalEvaluator
from fusemix_core.evaluation.zeroshot import ZeroShotEvaluator
from fusemix_core.measured import Classes, Measured
from fusemix_core.reports import (
    Example,
    ReportData,
    Shown,
    ShownHit,
    render_report,
    write_report,
)
from fusemix_core.reports.points import Named, drawn_points, script
from fusemix_core.sections import Figure, Points, Section, Table, Tile

EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&$x_{$"


def rows(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return normalize(torch.randn(n, 6, generator=generator), dim=-1)


def picture(size=(400, 300), mode="RGB"):
    return Image.new(mode, size, 128 if mode in ("L", "P") else None)


def measured(modalities=("image", "text"), items=30, classes=("cat", "dog"), **more):
    """Embeddings of a split, and a class for each item of the first modality."""
    labels = torch.arange(items) % len(classes)
    return Measured(
        embeddings={m: rows(items, i) for i, m in enumerate(modalities)},
        links=torch.arange(items)[:, None].repeat(1, len(modalities)),
        classes=Classes(classes, labels, rows(len(classes), 9), *modalities[:2]),
        **{"score": cosine, "scorer": "csls"} | more,
    )


def sections(data, change=lambda metrics: None):
    """What core's evaluators show."""
    found = []
    for evaluator in (RetrievalEvaluator(20), GeometryEvaluator(), ZeroShotEvaluator(resamples=20)):
        metrics = evaluator(data)
        change(metrics)
        found += evaluator.sections(metrics, data)
    return found


def report(modalities=("image", "text"), items=30, **changes):
    """A report with something in every section."""
    text, image = Shown(text="a caption"), Shown(image=picture(), note="a.jpg")
    values = {
        "title": "a run",
        "summary": "It went well.",
        "facts": {"recipe": "auto", "seconds": 3.25},
        "modalities": {m: {"encoder": f"{m}-encoder", "items": items} for m in modalities},
        "splits": {"train": 1200, "test": items},
        "rows_read": 1233,
        "rejected": [{"path": "p.csv", "row": 3, "modality": "image", "reason": "broken"}],
        "notes": ["two texts were cut"],
        "sections": sections(measured(modalities, items, split=changes.get("split", "test"))),
        "history": {"Loss": {"train": [(1, 2.0), (2, float("nan")), (3, 1.0)]}},
        "best_step": 2,
        "examples": [
            Example(*modalities[:2], 1, image, [ShownHit(text, 0.9, True)], [text]),
            Example(*modalities[1::-1], 7, text, [ShownHit(image, 0.8, False)], [image]),
        ],
        "load": "model = FusedModel.from_pretrained('model')",
        "config": "seed = 0",
        "environment": {"python": "3.11", "packages": {"torch": "2.4"}, "gpus": []},
    }
    return ReportData(**(values | changes))


class Page(HTMLParser):
    """Tags with their attributes, the text, and whether every element is closed in order."""

    VOID = {"meta", "img", "br", "link"}

    def __init__(self, html):
        super().__init__()
        self.tags, self.text, self.stack = [], "", []
        self.feed(html)
        self.close()
        assert not self.stack

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag

    def handle_data(self, data):
        self.text += data

    def find(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def test_report_is_one_self_contained_file_whose_only_script_is_ours(tmp_path):
    path = write_report(tmp_path / "deep" / "report.html", report())
    html = path.read_text(encoding="utf-8")
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]
    page = Page(html)
    assert "http:" not in html and "https:" not in html and "@import" not in html
    assert not page.find("link") and not page.find("iframe")
    (ours,) = re.findall("<script>(.*?)</script>", html, re.S)
    assert ours == f"\n{script()}\n" and page.find("script") == [{}]
    for reaches_out in ("fetch", "XMLHttp", "import", "eval", "innerHTML", "open(", "location"):
        assert reaches_out not in ours
    for _, attributes in page.tags:
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name == "src":
                assert value.startswith("data:image/jpeg;base64,")
            if name == "href":
                assert value.startswith("#")
    assert set(re.findall(r"url\((.)", html)) <= {"#"}
    policy = next(m["content"] for m in page.find("meta") if "http-equiv" in m)
    digest = base64.b64encode(hashlib.sha256(ours.encode()).digest()).decode()
    assert "default-src 'none'" in policy and f"script-src 'sha256-{digest}'" in policy
    assert "script" not in render_report(ReportData(title="no map"))


def test_every_section_shows_its_data():
    page = Page(render_report(report()))
    for expected in (
        "image → text",
        "text → image",
        "csls",
        "chosen on validation",
        "two texts were cut",
        "1\u202f200 rows",
        "broken",
        "a caption",
        "✓ true",
        "Loss",
        "cat",
        "seed = 0",
        "packages · torch",
    ):
        assert expected in page.text, expected
    assert len(page.find("svg")) == 3
    assert all(s["role"] == "img" and s["aria-label"] for s in page.find("svg"))
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))


def test_recalls_and_intervals_stand_in_the_table():
    html = render_report(report())
    direction = RetrievalEvaluator(20)(measured())["directions"]["image->text"]
    low, high = direction["r5_interval"]
    assert f"{direction['r5']:.1f} <small>[{low:.1f}–{high:.1f}]</small>" in html


def test_the_same_data_gives_the_same_bytes():
    assert render_report(report()) == render_report(report())


def test_data_of_strangers_is_never_markup():
    evil = Shown(text=EVIL, note=EVIL)
    harmless = Page(render_report(report()))
    nested = {EVIL: {EVIL: EVIL}}
    data = report(modalities=(EVIL, f"b{EVIL}"))
    data.title = data.summary = data.load = data.config = EVIL
    names = (EVIL, f"{EVIL}2")
    found = sections(measured((EVIL, f"b{EVIL}"), classes=names, scorer=EVIL))
    table = Table([EVIL, EVIL], [[EVIL, EVIL]], EVIL, [EVIL, 1.5], EVIL)
    figure = Figure(lambda axes: axes.set_title(EVIL), EVIL, [EVIL], EVIL, EVIL)
    data.sections = [*found, Section(EVIL, EVIL, [table], [figure], EVIL, [Tile(EVIL, EVIL, EVIL)])]
    data.facts, data.modalities, data.environment = {EVIL: EVIL}, nested, nested
    data.splits, data.notes = {EVIL: 3}, [EVIL]
    data.rejected = [{"path": EVIL, "row": 1, "modality": EVIL, "reason": EVIL}]
    data.history = {EVIL: {EVIL: [(0, 1.0), (1, 2.0)]}}
    data.examples = [
        Example(EVIL, EVIL, 2, evil, [ShownHit(evil, 0.1, False)], [evil]),
        Example(EVIL, EVIL, 1, Shown(image=picture(), note=EVIL), [ShownHit(evil, 0.1, True)]),
    ]
    page = Page(render_report(data))
    assert page.find("script") == [{}]
    assert {t for t, _ in page.tags} <= {t for t, _ in harmless.tags}
    assert not any(name.startswith("on") for _, a in page.tags for name in a)
    assert page.text.count(EVIL) > 25


def test_a_title_is_enough():
    page = Page(render_report(ReportData(title="empty")))
    assert "empty" in page.text and not page.find("svg")


def test_closed_form_has_no_training_section():
    assert "Training" not in Page(render_report(report(history={}, best_step=None))).text
    for points in ([], [(0, 0.5)]):
        page = Page(render_report(report(history={"R@1": {"mean": points}})))
        assert "Training" not in page.text


def test_three_modalities():
    page = Page(render_report(report(("image", "text", "audio"))))
    for name in ("image → audio", "audio → text", "image – text", "text – audio"):
        assert name in page.text
    assert len(page.find("svg")) == 5


def test_text_to_text_with_missing_entries():
    given = measured(("question", "answer"))
    given.links[:5, 0] = -1
    data = report(("question", "answer"), sections=sections(given))
    data.examples = [
        Example("question", "answer", 1, Shown("why?"), [ShownHit(Shown("so"), 0.5, True)])
    ]
    page = Page(render_report(data))
    assert "question → answer" in page.text and not page.find("img")


def test_an_empty_test_split_is_said():
    page = Page(render_report(report(split="validation")))
    assert "The test split is empty" in page.text and "On the validation split" in page.text
    assert "The test split is empty" not in Page(render_report(report())).text


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "LA", "CMYK", "1", "I;16"])
def test_thumbnails_are_small_jpegs(mode):
    shown = Shown(image=Image.new(mode, (900, 300)))
    data = report(examples=[Example("image", "text", 1, shown, [])])
    (image,) = Page(render_report(data)).find("img")
    decoded = Image.open(io.BytesIO(base64.b64decode(image["src"].partition(",")[2])))
    assert decoded.format == "JPEG" and decoded.size == (160, 53)


def test_the_file_stays_small_for_many_items():
    noise = np.random.default_rng(0).integers(0, 255, (300, 300, 3), dtype=np.uint8)
    shown = Shown(image=Image.fromarray(noise))
    example = Example("image", "text", 9, shown, [ShownHit(shown, 0.1, False)] * 3, [shown])
    long = {"train": [(i, 1 / i) for i in range(1, 20_000)]}
    data = report(items=1500, examples=[example] * 16, history={"Loss": long})
    assert len(render_report(data)) < 2_000_000


def test_unknown_intervals_are_left_out():
    def forget(metrics):
        for direction in metrics.get("directions", {}).values():
            direction["r1_interval"] = None

    data = report(sections=sections(measured(), forget))
    assert "None" not in render_report(data)


def test_map_is_the_plane_of_the_first_principal_components():
    embeddings = {m: rows(50, i).double().numpy() for i, m in enumerate("ab")}
    links = np.stack([np.arange(50), np.arange(50)], 1)
    plane = principal_map(embeddings, links)
    stacked = np.concatenate(list(embeddings.values()))
    centred = stacked - stacked.mean(0)
    values = np.sort(np.linalg.eigvalsh(centred.T @ centred))[::-1]
    assert plane.explained == pytest.approx(100 * values[:2] / values.sum())
    flat = plane.points
    assert flat.T @ flat == pytest.approx(np.diag(values[:2]), abs=1e-9)
    assert (plane.lines == np.stack([np.arange(50), np.arange(50, 100)], axis=1)).all()


def test_map_draws_a_sample_and_takes_nan_and_missing_entries():
    embeddings = {m: rows(900, i).numpy().copy() for i, m in enumerate("ab")}
    embeddings["a"][3] = np.nan
    links = np.stack([np.arange(900), np.arange(900)], 1)
    links[::3, 1] = -1
    plane = principal_map(embeddings, links, most=100)
    assert len(plane.ids["a"]) == 100 and len(plane.ids["b"]) == len(plane.lines) < 100
    assert len(plane.points) == len(plane.ids["a"]) + len(plane.ids["b"])
    assert np.isfinite(plane.points).all()
    ends = np.concatenate(list(plane.ids.values()))[plane.lines]
    assert (ends[:, 0] == ends[:, 1]).all()


def figure_of(drawing, **more):
    section = Section("Mine", figures=[Figure(drawing, **more)])
    return Page(render_report(ReportData(title="a run", sections=[section])))


def test_a_figure_follows_the_page_and_its_texts_are_shown_as_they_are():
    def draw(axes):
        axes.bar(["<b>$x_{$</b>", "b"], [1, 2])
        axes.plot([0, 1], [2, 1])

    page = figure_of(draw, alt='"><b>', legend=["one"], height=120)
    (svg,) = page.find("svg")
    assert svg["aria-label"] == '"><b>' and svg["viewbox"] == "0 0 300 90"
    assert "<b>$x_{$</b>" in page.text and not [t for t, _ in page.tags if t == "b" and _]
    styles = " ".join(a.get("style", "") for _, a in page.tags)
    assert "var(--series-0)" in styles and "var(--muted)" in styles


@pytest.mark.parametrize("address", ["javascript:alert(1)", "https://example.org/"])
def test_a_figure_with_a_link_is_refused(address):
    def draw(axes):
        axes.scatter([0], [1]).set_urls([address])

    with pytest.raises(ContractError, match="<a>"):
        figure_of(draw)


def test_a_figure_that_loads_something_is_refused():
    def draw(axes):
        axes.text(0, 0, "x", fontfamily="x; background: url(https://example.org/)")

    with pytest.raises(ContractError, match="url"):
        figure_of(draw)


def test_a_png_is_shown_as_its_pixels_alone():
    from PIL.PngImagePlugin import PngInfo

    notes, out = PngInfo(), io.BytesIO()
    notes.add_text("comment", EVIL)
    picture((40, 30)).save(out, "PNG", pnginfo=notes)
    (image,) = figure_of(out.getvalue() + EVIL.encode(), alt=EVIL).find("img")
    content = base64.b64decode(image["src"].removeprefix("data:image/png;base64,"))
    assert Image.open(io.BytesIO(content)).size == (40, 30) and b"script" not in content
    assert image["alt"] == EVIL


@pytest.mark.parametrize("content", [b"<svg onload='alert(1)'/>", b"\x89PNG\r\n\x1a\nnothing"])
def test_other_bytes_are_refused(content):
    with pytest.raises(ContractError, match="PNG"):
        figure_of(content)


def test_each_point_of_a_map_says_what_it_is_and_is_coloured_by_columns():
    names = [f"book {i % 9}" for i in range(20)]
    points = Points(
        [(i, i * i) for i in range(20)],
        [("image", i) if i % 2 else ("text", i) for i in range(20)],
        {"modality": ["image" if i % 2 else "text" for i in range(20)], "book": names},
        [(0, 1)],
    )

    class Show:
        private = False

        def __call__(self, modality, number):
            image = "data:image/jpeg;base64,AAAA" if modality == "image" else ""
            return Named(f"pairs.csv, row {number}", "" if image else EVIL, image)

    show = Show()
    page = Page(drawn_points(points, "Map", show))
    marks = [a for _, a in page.tags if "data-place" in a]
    assert len(marks) == 20 and marks[3]["data-image"] and marks[2]["data-text"] == EVIL
    assert page.text.count(f"text: {EVIL}") == 10 and "image: pairs.csv, row 3" in page.text
    assert marks[0]["class"] == "p s0" and marks[1]["class"] == "p s1"
    (whole,) = page.find("div")[:1]
    assert whole["tabindex"] == "0" and "Arrow keys" in whole["aria-label"]
    books = json.loads(whole["data-colours"])["book"]
    assert len(books["names"]) == 6 and books["names"][-1] == "other"
    assert [books["names"][i] for i in books["of"][:3]] == ["book 0", "book 1", "book 2"]
    places = [re.match(r"M([\d.]+) ([\d.]+)", a["d"]) for a in page.find("path")[1:]]
    assert all(0 <= float(p[1]) <= 960 and 0 <= float(p[2]) <= 560 for p in places)
    show.private = True
    assert "book" not in drawn_points(points, "Map", show)
