"""The command line, run in this process on toy encoders."""

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from pairs import write_world
from typer.testing import CliRunner

import fusemix_core
from fusemix_core.cli.app import app
from fusemix_core.devices import resolve_device

TOYS = Path(__file__).parents[1] / "toys.py"
A, B = f"{TOYS}:ToyImage", f"{TOYS}:ToyText"
SMALL = ["--recipe", "fusemix", "--set", "training.epochs=3", "--set", "adapter.blocks=1",
         "--set", "dim=8", "--device", "cpu"]  # fmt: skip


@pytest.fixture
def run(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)

    def call(*args, code=0):
        result = CliRunner().invoke(app, [str(a) for a in args], catch_exceptions=False)
        assert result.exit_code == code, result.output
        return result

    return call


@pytest.fixture
def world(tmp_path):
    return write_world(tmp_path / "world")


@pytest.fixture
def model(run, world):
    run("align", "--a", A, "--b", B, "--data", world, "--out", "r", *SMALL)
    return ["r", "-e", f"image={A}", "-e", f"text={B}"]


def test_align_prints_recall_examples_and_how_to_load(run, world):
    printed = run("align", "--a", A, "--b", B, "--data", world, "--out", "r", *SMALL).stdout
    for wanted in ("image → text", "text → image", "R@1", "r/model", "r/report.html",
                   "FusedModel.from_pretrained"):  # fmt: skip
        assert wanted in printed
    assert printed.count("number") >= 3
    for file in ("config.toml", "environment.json", "metrics.jsonl", "results.json", "report.html",
                 "rejected.jsonl", "model/model.safetensors", "model/README.md"):  # fmt: skip
        assert Path("r", file).exists(), file


def test_a_run_ends_with_the_commands_that_come_next(run, world):
    lines = run("align", "--a", A, "--b", B, "--data", world, "--out", "r", *SMALL).stdout
    search = next(line for line in lines.splitlines() if line.startswith("fusemix search "))
    assert "r/report.html" in lines
    assert "items searched" in run(*shlex.split(search)[1:]).stdout


def test_recall_is_shown_by_a_column(run, world):
    args = ["--a", A, "--b", B, "--data", world, "--recipe", "csa", "--out", "r"]
    assert "By thing" in run("align", *args, "--by", "thing", "--baseline", "none").stdout
    table = json.loads(Path("r/results.json").read_text())["test"]["groups"]["thing"]
    own = ["r", "-e", f"image={A}", "-e", f"text={B}"]
    again = json.loads(run("eval", *own, "--by", "thing", "--json").stdout)
    assert again["groups"]["thing"] == table and len(table["image->text"]) > 1
    assert "price" in run("eval", *own, "--by", "price", code=2).stderr


@pytest.mark.parametrize(
    ("job", "command"),
    [
        ("run.run_plan", ["align", *SMALL]),
        ("fuse.run_fuse", ["fuse", "--target", "thing"]),
    ],
)
def test_ctrl_c_names_the_command_that_goes_on(run, world, monkeypatch, job, command):
    def interrupted(plan, out, **_):
        out.mkdir()
        (out / "config.toml").touch()
        raise KeyboardInterrupt

    monkeypatch.setattr(f"fusemix_core.jobs.{job}", interrupted)
    args = [*command, "--a", A, "--b", B, "--data", world]
    said = run(*args, "--out", "my runs", code=130).stderr
    go_on = f"Go on with: fusemix {command[0]} --out 'my runs' --resume"
    assert go_on in said and "Error" not in said


def test_ctrl_c_while_encoding_says_what_is_lost_and_what_to_do(run, world, monkeypatch):
    def stopped(self, wanted):
        self.done = 20
        raise KeyboardInterrupt

    monkeypatch.setattr("fusemix_core.latents.filling.Filling._run", stopped)
    said = run("encode", "-e", f"image={A}", "--data", world, code=130).stderr
    assert "20 image items" in said and "not kept" in said and "Run it again to go on." in said
    run_of = ["align", "--a", A, "--b", B, "--data", world, "--out", "r", *SMALL]
    said = run(*run_of, code=130).stderr
    assert "not kept" in said and "--out r --resume" in said and "Run it again" not in said


def test_a_first_plan_knows_how_long_encoding_takes(run, world):
    args = ["--a", A, "--b", B, "--data", world, "--recipe", "csa", "--dry-run", "--json"]
    plan = json.loads(run("align", *args).stdout)
    assert all(0 < e["seconds"] < 60 for e in plan["encoders"])
    assert json.loads(run("cache", "list", "--json").stdout) == []  # nothing is kept


def test_an_encoder_that_fails_leaves_the_plan_without_a_time(run, world):
    broken = Path("broken.py")
    broken.write_text(
        TOYS.read_text() + "\n\nclass Broken(ToyImage):\n"
        "    def encode(self, batch, view):\n        raise RuntimeError('no')\n"
    )
    args = ["--a", f"{broken}:Broken", "--b", B, "--data", world, "--recipe", "csa", "--dry-run"]
    plan = json.loads(run("align", *args, "--json").stdout)
    assert plan["encoders"][0]["seconds"] is None and plan["encoders"][1]["seconds"] > 0


def test_the_plan_names_the_device_that_auto_is(run, world):
    args = ["--a", A, "--b", B, "--data", world, "--recipe", "csa", "--dry-run"]
    (line,) = [x for x in run("align", *args).stdout.splitlines() if x.startswith("device:")]
    assert line.split() == ["device:", str(resolve_device("auto")), "(auto)"]


def test_dry_run_plans_and_leaves_nothing(run, world):
    out = run("align", "--a", A, "--b", B, "--data", world, "--dry-run", "--json", *SMALL).stdout
    plan = json.loads(out)
    assert [e["items"] for e in plan["encoders"]] == [64, 64]
    assert sum(plan["pairs"].values()) == 64
    assert not Path("runs").exists()


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="Linux has /proc")
def test_a_folder_that_cant_be_written_is_said_before_the_plan(run, world):
    done = run("align", "--a", A, "--b", B, "--data", world, "--out", "/proc/x", *SMALL, code=2)
    assert "can't be written" in done.stderr and "Choose an --out" in done.stderr
    assert done.stdout == ""


def test_second_run_encodes_nothing(run, world, model):
    plan = json.loads(
        run("align", "--a", A, "--b", B, "--data", world, "--dry-run", "--json", *SMALL).stdout
    )
    cached = [e["cached"] for e in plan["encoders"]]
    assert cached in ([64, 64], [None, None])
    rows = json.loads(run("encode", "--a", A, "--b", B, "--data", world, "--json").stdout)
    assert [r["encoded"] for r in rows] == [0, 0]
    assert [r["cached"] for r in rows] == [64, 64]


def test_folder_in_use_is_refused_and_resume_goes_on(run, world, model):
    again = ["align", "--a", A, "--b", B, "--data", world, "--out", "r", *SMALL]
    assert "--resume" in run(*again, code=2).stderr
    before = Path("r/model/model.safetensors").read_bytes()
    run(*again, "--resume")
    assert Path("r/model/model.safetensors").read_bytes() == before
    run("align", "--out", "r", "--resume")
    assert "seed" in run(*again, "--resume", "--seed", "5", code=2).stderr


@pytest.mark.parametrize("command", ["align", "fuse", "rerank"])
def test_a_run_to_resume_that_is_not_there_is_named_with_those_like_it(run, command):
    Path("runs/photos").mkdir(parents=True)
    said = run(command, "--resume", "--out", "runs/photo", code=2).stderr
    assert "There is no run in runs/photo." in said and "Did you mean runs/photos?" in said


@pytest.mark.parametrize("command", ["eval", "rerank", "search", "explain", "compare"])
def test_a_mistyped_run_is_named_with_those_like_it(run, command):
    Path("runs/photos").mkdir(parents=True)
    more = {"search": ["a car"], "compare": ["runs/photos"]}.get(command, [])
    said = run(command, "runs/photo", *more, code=2).stderr
    assert (
        "There is no run, model or index runs/photo." in said
        and "Did you mean runs/photos?" in said
    )


def test_eval_measures_the_runs_own_test_split(run, model):
    own = json.loads(run("eval", *model, "--json").stdout)
    trained = json.loads(Path("r/results.json").read_text())["test"]
    assert own["retrieval"]["mean_r1"] == pytest.approx(trained["retrieval"]["mean_r1"])


def test_eval_on_other_data_takes_every_row(run, model, tmp_path):
    other = write_world(tmp_path / "other", count=20)
    found = json.loads(run("eval", *model, "--data", other, "--json").stdout)
    assert found["retrieval"]["directions"]["image->text"]["queries"] == 20


def test_zero_shot_classification(run, model, world):
    Path("classes.txt").write_text("car\nhouse\nbird\ncup\ntree\nboat\ncoat\ndoor\n")
    Path("prompts.txt").write_text("a {}\nthe {} number 1\n")
    found = json.loads(
        run("eval", *model, "--data", world, "--classes", "classes.txt", "--templates",
            "prompts.txt", "--label-column", "thing", "--json").stdout
    )  # fmt: skip
    found = found["zero-shot"]
    assert found["items"] == 64 and 0 <= found["top1"] <= 100
    assert set(found["per_class"]) == {
        "car", "house", "bird", "cup", "tree", "boat", "coat", "door"
    }  # fmt: skip
    Path("classes.txt").write_text("car\nhouse\n")
    error = run("eval", *model, "--data", world, "--classes", "classes.txt", "--label-column",
                "thing", code=2).stderr  # fmt: skip
    assert "none of the 2 classes" in error and "row" in error


def test_search_by_text_and_by_picture(run, model, world):
    hits = json.loads(run("search", *model, "a red car", "--data", world, "-k", 5, "--json").stdout)
    assert len(hits) == 5 and hits[0]["item"].endswith(".png")
    assert [h["score"] for h in hits] == sorted((h["score"] for h in hits), reverse=True)
    hits = json.loads(
        run("search", *model, world.parent / "3.png", "--data", world, "--json").stdout
    )
    assert len(hits) == 10 and "number" in hits[0]["item"]
    assert "no modality 'audio'" in run(
        "search", *model, "x", "--data", world, "--to", "audio", code=2
    ).stderr  # fmt: skip


def test_search_in_a_folder_without_texts(run, model, world):
    world.unlink()
    hits = json.loads(
        run("search", *model, "a red car", "--data", world.parent, "-k", 3, "--json").stdout
    )
    assert len(hits) == 3


def test_saved_model_that_names_a_file_is_not_run_unasked(run, model):
    assert "Nothing is fetched or run" in run("eval", "r", code=2).stderr


def test_cache_lists_verifies_and_prunes(run, model):
    rows = json.loads(run("cache", "list", "--json").stdout)
    assert sorted(r["items"] for r in rows) == [64, 64]
    run("cache", "verify")
    shard = next(Path(os.environ["FUSEMIX_HOME"]).rglob("*.safetensors"))
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    assert shard.name in run("cache", "verify", code=1).stdout.replace("\n", "")
    run("cache", "prune")
    assert not shard.exists()
    run("cache", "prune", "--all")
    assert json.loads(run("cache", "list", "--json").stdout) == []


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--a", "toy-imag", "--b", B], "no encoder named 'toy-imag'"),
        (["--a", A], "both --a and --b"),
        (["--a", A, "--b", B, "--recipe", "fusemx"], "fusemix"),
        (["--a", A, "--b", B, "--set", "training.epoch=3"], "training.epochs"),
        (["--a", A, "--b", B, "--recipe", "fusemix", "--set", "adapter.block=3"], "blocks"),
        (["--a", A, "--b", B, "--device", "gpu9"], "gpu9"),
        (["--a", A, "--b", B, "--dtype", "int8"], "float32"),
        (["--a", A, "--b", B, "--column", "text"], "MODALITY=VALUE"),
        (["--encoder", f"image={A}"], "two encoders"),
        (["--a", "./none.py:X", "--b", B], "does not exist"),
        (["--a", A, "--b", B, "--view", "image=grid"], "Its views: pooled"),
        (["--a", A, "--b", B, "--view", "audio=pooled"], "modality of this run named 'audio'"),
        (["--a", A, "--b", B, "--view", "pooled"], "--view pooled: expected MODALITY=VALUE"),
    ],
)
def test_wrong_options_say_what_to_do(run, world, args, says):
    result = run("align", *args, "--data", world, code=2)
    assert says in result.stderr and "Traceback" not in result.output


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("data = 3", "must be a table"),
        ('views = "grid"', "views must be a table"),
        ("[views]\nimage = 3", "views.image is 3, which is not of type str"),
        ("recipe = 3", "recipe is 3"),
        ("sead = 3", "seed"),
        ("[recipe]\ndim = 3", "no name"),
        ("encoders = [1]", "two encoders"),
        ("encoders = 3", "two encoders"),
        ("not toml", "can't be read as TOML"),
    ],
)
def test_a_wrong_config_file_says_what_is_wrong(run, world, text, says):
    Path("run.toml").write_text(text)
    args = [] if text == "data = 3" else ["--data", world]
    names = [] if "encoders" in text else ["--a", A, "--b", B]
    if "[views]" in text:
        Path("run.toml").write_text(f'{text}\n[encoders]\nimage = "{A}"\ntext = "{B}"\n')
        names = []
    assert says in run("align", "--config", "run.toml", *names, *args, code=2).stderr


def test_a_config_file_is_a_whole_run(run, world):
    Path("run.toml").write_text(
        f'recipe = "fusemix"\nseed = 4\ndevice = "cpu"\n[encoders]\nimage = "{A}"\n'
        f'text = "{B}"\n[data]\nsource = ["{world}"]\ngroup_by = "thing"\n'
    )
    run("align", "--config", "run.toml", "--out", "r", "--set", "training.epochs=2",
        "--set", "adapter.blocks=1")  # fmt: skip
    saved = tomllib.loads(Path("r/config.toml").read_text())
    assert saved["recipe"]["training"]["epochs"] == 2
    assert saved["recipe"]["training"]["warmup_steps"] == 100
    assert saved["data"]["group_by"] == "thing" and saved["seed"] == 4


def test_bad_rows_are_counted_and_the_limit_is_said(run, world):
    (world.parent / "5.png").write_bytes(b"not a picture")
    args = ["align", "--a", A, "--b", B, "--data", world, *SMALL]
    stopped = run(*args, "--out", "r1", code=2).stderr
    assert "row 6" in stopped and "--max-bad 0.02" in stopped
    assert '"row": 6' in Path("r1/rejected.jsonl").read_text()
    run(*args, "--out", "r2", "--max-bad", "0.05")
    (bad,) = map(json.loads, Path("r2/rejected.jsonl").read_text().splitlines())
    assert bad["row"] == 6 and bad["modality"] == "image"


def test_embed_refuses_types_that_it_does_not_know(run, world):
    args = ["encode", "--encoder", f"text={B}", "--data", world]
    assert "float16" in run(*args, "--dtype", "int8", code=2).stderr
    assert "float32" in run(*args, "--store-dtype", "int8", code=2).stderr


def test_a_view_is_chosen_planned_and_remembered(run, world):
    grid, tokens = f"{TOYS}:GridImage", f"{TOYS}:TokenText"
    args = ["align", "--a", grid, "--b", tokens, "--view", "image=grid", "--data", world, *SMALL]
    (image, text) = json.loads(run(*args, "--dry-run", "--json").stdout)["encoders"]
    assert (image["view"], image["bytes"], text["view"]) == ("grid", None, "pooled")
    assert text["bytes"] == 64 * 12 * 2
    assert "(grid)" in run(*args, "--dry-run").stdout
    run(*args, "--out", "r")
    assert tomllib.loads(Path("r/config.toml").read_text())["views"] == {
        "image": "grid", "text": "pooled"
    }  # fmt: skip
    saved = json.loads(Path("r/model/config.json").read_text())["encoders"]["image"]
    assert (saved["view"], saved["dim"]) == ("grid", 96)
    run("align", "--out", "r", "--resume")
    run(*args, "--out", "r", "--resume")
    other = run(*args, "--view", "text=layers", "--out", "r", "--resume", code=2).stderr
    assert "had views.text = 'pooled', not 'layers'" in other.replace("\n", " ")
    model = ["r", "-e", f"image={grid}", "-e", f"text={tokens}"]
    own = json.loads(run("eval", *model, "--json").stdout)
    trained = json.loads(Path("r/results.json").read_text())["test"]
    assert own["retrieval"]["mean_r1"] == pytest.approx(trained["retrieval"]["mean_r1"])
    hits = json.loads(run("search", *model, "a red car", "--data", world, "--json").stdout)
    assert len(hits) == 10
    # New encoders have views of their own, whatever those of the file were.
    run("align", "--config", "r/config.toml", "--a", A, "--b", B, "--dry-run")
    views = {r["view"] for r in json.loads(run("cache", "list", "--json").stdout)}
    assert views == {"grid", "pooled"}


def test_latents_of_unequal_length_can_be_embedded_but_not_fitted(run, world):
    tokens = f"{TOYS}:TokenText"
    (row,) = json.loads(
        run("encode", "-e", f"text={tokens}", "--view", "tokens", "--data", world, "--json").stdout
    )
    assert (row["view"], row["items"], row["encoded"]) == ("tokens", 64, 64)
    (listed,) = json.loads(run("cache", "list", "--json").stdout)
    assert (listed["view"], listed["items"]) == ("tokens", 64)
    run("cache", "verify")
    said = run("align", "--a", A, "--b", tokens, "--view", "text=tokens", "--data", world, *SMALL,
               code=2).stderr  # fmt: skip
    assert "different length" in said and "such as 'pooled'" in said


def test_recipes_and_encoders_are_shown(run):
    assert "fusemix" in run("recipes", "list").stdout
    shown = run("recipes", "show", "fusemix", "--set", "training.epochs=7").stdout
    assert "epochs = 7" in shown and "expansion = 4.0" in shown
    assert json.loads(run("recipes", "list", "--json").stdout)
    assert isinstance(json.loads(run("encoders", "list", "--json").stdout), list)
    assert json.loads(run("encoders", "show", A, "--json").stdout)["dim"] == 16
    assert any(p["name"] == "core" for p in json.loads(run("plugins", "--json").stdout))


@pytest.mark.parametrize(
    ("pattern", "found", "not_found"),
    [
        ("*dino*", {"dinov2-base", "convnext-tiny-dinov3"}, {"minilm"}),
        ("DINOV2-base", {"dinov2-base", "dinov2-base-registers"}, {"dinov2-giant"}),
        ("dinov2-bas?", {"dinov2-base"}, {"dinov2-base-registers"}),
        ("video:", {"video:NAME"}, {"minilm"}),
        ("no such encoder", set(), {"minilm"}),
    ],
)
def test_encoders_are_listed_by_a_part_of_their_names(run, pattern, found, not_found):
    names = {row["name"] for row in json.loads(run("encoders", "list", pattern, "--json").stdout)}
    assert found <= names and not not_found & names


def test_encoders_check_passes_a_good_one_and_fails_a_bad_one(run, tmp_path):
    assert "0 failed" in run("encoders", "check", B, "--device", "cpu").stdout
    bad = tmp_path / "bad.py"
    bad.write_text(
        f"import sys; sys.path.insert(0, {str(TOYS.parent)!r})\n"
        "from toys import ToyText\n"
        "class Bad(ToyText):\n"
        "    def encode(self, batch, view='pooled'):\n"
        "        return super().encode(batch - batch.mean(0))\n"
    )
    printed = run("encoders", "check", f"{bad}:Bad", "--device", "cpu", code=1).stdout
    assert "FAILED" in printed and "batch_size" in printed


def commands(group=app, prefix=()):
    for command in group.registered_commands:
        if not command.hidden:
            yield (*prefix, command.name)
    for sub in group.registered_groups:
        yield from commands(sub.typer_instance, (*prefix, sub.name))


@pytest.mark.parametrize("command", list(commands()), ids=" ".join)
def test_help_has_an_example(run, command):
    text = run(*command, "--help").stdout
    assert "Example" in text and f"fusemix {command[0]}" in text


def test_the_earlier_name_of_encode_goes_on_working(run):
    assert not re.search(r"\bembed\b", run("--help").stdout)
    assert "fusemix encode" in run("embed", "--help").stdout
    assert fusemix_core.embed is fusemix_core.encode


@pytest.mark.parametrize(
    "args", [["encoders", "list"], ["plugins"], ["recipes", "show", "fusemix"], ["--help"]]
)
def test_metadata_commands_import_neither_torch_nor_numpy(args):
    code = (
        "import sys\n"
        f"sys.argv = ['fusemix', *{args!r}]\n"
        "from fusemix_core.cli import main\n"
        "try:\n    main()\n"
        "except SystemExit as stop:\n    assert not stop.code, stop.code\n"
        "heavy = {'torch', 'numpy', 'transformers', 'timm', 'PIL'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60)


def test_a_wrong_name_is_said_before_torch_is_imported(world):
    code = (
        "import sys\n"
        f"sys.argv = ['fusemix', 'align', '--a', 'nothing', '--b', 'x', '--data', {str(world)!r}]\n"
        "from fusemix_core.cli import main\n"
        "try:\n    main()\n"
        "except SystemExit as stop:\n    assert stop.code == 2, stop.code\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60)


@pytest.mark.parametrize("command", ["align", "encode"])
def test_a_wrong_view_is_said_before_torch_is_imported(world, command):
    code = (
        "import sys\n"
        f"sys.argv = ['fusemix', '{command}', '--a', 'x', '--b', 'y', '--view', 'text=grid',\n"
        f"            '--data', {str(world)!r}]\n"
        "from fusemix_core.registry import registry\n"
        "from fusemix_core.specs import EncoderSpec\n"
        "registry.add(EncoderSpec(name='x', modality='image', target='no:X'))\n"
        "registry.add(EncoderSpec(name='y', modality='text', target='no:Y', views=('tokens',)))\n"
        "from fusemix_core.cli import main\n"
        "try:\n    main()\n"
        "except SystemExit as stop:\n    assert stop.code == 2, stop.code\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60)
    assert b"Its views: tokens" in done.stderr
