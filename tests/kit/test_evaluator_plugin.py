"""An evaluator from an installed package that fusemix has never seen, named on the command line.
Its number is in results.json and in the model card, its picture in the report."""

import json
from pathlib import Path

import pytest
from kit.installing import add_metadata, fusemix, python
from pairs import write_world

ROOT = Path(__file__).parents[2]
TOYS = ROOT / "tests" / "toys.py"
FILES = {
    "fusemix_hubs/__init__.py": """
from fusemix_core.hookspecs import hookimpl
from fusemix_core.specs import ComponentSpec


@hookimpl
def fusemix_components():
    return [
        ComponentSpec(
            kind="evaluator",
            name="hubs",
            target="fusemix_hubs.evaluator:Hubs",
            summary="how often the most frequent neighbour is found",
            options={"k": 3},
        )
    ]
""",
    "fusemix_hubs/evaluator.py": '''
from fusemix_core import Evaluator
from fusemix_core.sections import Figure, Section, Table, Tile


class Hubs(Evaluator):
    """Of each direction, the share of queries whose k nearest hold the most frequent item."""

    def __init__(self, k=3):
        self.k = k

    def __call__(self, data):
        found = {}
        for query in data.modalities:
            for target in data.modalities:
                if query != target:
                    rows, gallery = data.embeddings[query], data.embeddings[target]
                    scores = data.score(rows, gallery, query, target)
                    nearest = scores.topk(min(self.k, len(gallery)), dim=1).indices
                    found[f"{query}->{target}"] = {
                        "share": 100 * nearest.flatten().bincount().max() / len(rows),
                        "items": len(gallery),
                    }
        return {"k": self.k, "directions": found}

    def sections(self, metrics, data):
        shares = {name: d["share"] for name, d in metrics["directions"].items()}
        return [
            Section(
                "Hubs",
                f"Among the {metrics['k']} nearest.",
                [Table(["direction", "share"], [list(row) for row in shares.items()])],
                [Figure(lambda axes: axes.bar(*zip(*shares.items())), "Bars of hubs")],
                headline=[Tile("worst hub", max(shares.values()), "in percent")],
            )
        ]
''',
}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The package, as pip leaves it in a folder."""
    site = tmp_path_factory.mktemp("site")
    for name, text in FILES.items():
        (site / name).parent.mkdir(exist_ok=True)
        (site / name).write_text(text)
    add_metadata(site, "fusemix-hubs", "fusemix_hubs")
    return site


def test_it_is_listed_and_keeps_its_contract(site):
    plugins = json.loads(fusemix("plugins", "--json", path=[site, ROOT]).stdout)
    (own,) = [p for p in plugins if p["dist"] == "fusemix-hubs"]
    assert own["components"] == ["evaluator hubs"] and not own["error"]
    listed = fusemix(
        "recipes", "components", "--kind", "evaluator", "--json", path=[site, ROOT]
    ).stdout
    assert {"retrieval", "geometry", "zero-shot", "hubs"} <= {r["name"] for r in json.loads(listed)}
    code = "from fusemix_core.testing import check_evaluator as c; c('hubs').raise_if_failed()"
    python("-c", code, path=[site, ROOT], OMP_NUM_THREADS="1")


@pytest.mark.slow
def test_its_number_and_its_picture_are_in_what_a_run_leaves(site, tmp_path):
    world = write_world(tmp_path / "world")
    ran = fusemix("align", "--a", f"{TOYS}:ToyImage", "--b", f"{TOYS}:ToyText", "--data", world,
                  "--out", tmp_path / "run", "--device", "cpu", "--recipe", "fusemix", "--set",
                  "dim=8", "--set", "training.epochs=2", "--set", "adapter.blocks=1",
                  "--evaluator", "hubs k=2", path=[site, ROOT], cwd=tmp_path,
                  FUSEMIX_HOME=str(tmp_path / "home"), OMP_NUM_THREADS="1")  # fmt: skip
    assert "Hubs" in ran.stdout and "Among the 2 nearest." in ran.stdout
    found = json.loads((tmp_path / "run" / "results.json").read_text())["test"]["hubs"]
    assert found["k"] == 2 and 0 < found["directions"]["image->text"]["share"] <= 100
    share = found["directions"]["image->text"]["share"]
    card = (tmp_path / "run" / "model" / "README.md").read_text().replace("\\", "")
    assert f"| image->text | {share:.4g} | 6 |" in card
    html = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "<h2>Hubs</h2>" in html and "Among the 2 nearest." in html and "worst hub" in html
    figure = html.partition("Bars of hubs</b>")[2].partition("</figure>")[0]
    assert "<svg" in figure and "image-&gt;text" in figure and "var(--series-0)" in figure
    assert "hubs" in (tmp_path / "run" / "config.toml").read_text()
