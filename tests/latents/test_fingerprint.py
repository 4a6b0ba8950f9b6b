import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import pytest

from fusemix_core.digests import path_sha256
from fusemix_core.errors import PluginError
from fusemix_core.latents import fingerprint as module
from fusemix_core.latents.fingerprint import fingerprint, remembered_sha256
from fusemix_core.registry import Registry
from fusemix_core.specs import EncoderSpec

SPEC = EncoderSpec(name="toy", modality="image", target="pkg.mod:Toy", sha256="a" * 64)


def test_it_is_stable_across_versions_and_machines():
    assert fingerprint(SPEC, "float32") == "21fec6f78f8d5eb82efd86fabe8d515d"


def test_a_medium_that_decodes_otherwise_changes_it():
    """Images of 12 bits were read as black before their decoding was 2."""
    assert fingerprint(SPEC, "float32", decoding=1) == "895bfc159f1b072fc0d770b3f358887f"
    sound = replace(SPEC, takes="audio")
    assert fingerprint(sound, "float32") == fingerprint(sound, "float32", decoding=1)


@pytest.mark.parametrize(
    "change",
    [
        {"target": "pkg.mod:Other"}, {"sha256": "b" * 64}, {"takes": "file"}, {"image_size": 224},
        {"sample_rate": 16000}, {"max_tokens": 77}, {"prompt": "query: "}, {"normalised": True},
        {"options": {"pooling": "mean"}}, {"version": "2"},
    ],
    ids=lambda change: next(iter(change)),
)  # fmt: skip
def test_whatever_decides_the_latents_changes_it(change):
    assert fingerprint(replace(SPEC, **change), "float32") != fingerprint(SPEC, "float32")


def test_the_compute_dtype_changes_it():
    assert fingerprint(SPEC, "float16") != fingerprint(SPEC, "float32")


def test_names_and_descriptions_do_not():
    other = replace(
        SPEC, name="other", aliases=("x",), summary="s", licence="MIT", paper="p", parameters=9,
        dim=12, requires={"timm": "timm"}, views=("pooled", "layers"), modality="picture",
        weights="elsewhere", revision="abc",
    )  # fmt: skip
    assert fingerprint(other, "float32") == fingerprint(SPEC, "float32")


def test_options_may_be_nested_and_in_any_order():
    one = {"a": (1, 2), "b": MappingProxyType({"c": 0.5})}
    two = {"b": {"c": 0.5}, "a": [1, 2]}
    prints = {fingerprint(replace(SPEC, options=o), "float32") for o in (one, two)}
    assert len(prints) == 1
    with pytest.raises(PluginError, match="not plain data"):
        fingerprint(replace(SPEC, options={"f": object()}), "float32")


def test_hub_weights_need_a_pinned_revision():
    hub = replace(SPEC, sha256="", weights="org/model")
    for revision in ("", "main"):
        assert fingerprint(replace(hub, revision=revision), "float32") is None
    one, two = (fingerprint(replace(hub, revision=r), "float32") for r in ("0a1b2c", "0a1b2d"))
    assert one and two and one != two


def test_a_digest_counts_only_where_nothing_else_tells():
    bare = replace(SPEC, sha256="")
    assert fingerprint(bare, "float32") is None
    assert fingerprint(bare, "float32", "d1") != fingerprint(bare, "float32", "d2")
    assert fingerprint(SPEC, "float32", "d1") == fingerprint(SPEC, "float32")


def test_local_weights_are_known_by_content(tmp_path):
    path = tmp_path / "w.safetensors"
    path.write_bytes(b"weights")
    local = replace(SPEC, sha256="", weights=str(path), local=True)
    pinned = replace(SPEC, sha256=path_sha256(path))
    assert fingerprint(local, "float32") == fingerprint(pinned, "float32")
    before = fingerprint(local, "float32")
    moved = path.rename(tmp_path / "moved")
    assert fingerprint(replace(local, weights=str(moved)), "float32") == before
    moved.write_bytes(b"others")
    assert fingerprint(replace(local, weights=str(moved)), "float32") != before


def test_hashes_of_weights_are_remembered_until_a_file_changes(tmp_path, monkeypatch):
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    files = [folder / "a.bin", folder / "sub" / "b.json"]
    for file in files:
        file.write_bytes(b"12345")
        os.utime(file, (1e9, 1e9))
    monkeypatch.setattr("fusemix_core.data.hashes._SETTLED", 0)  # ctime can't be set
    calls = []
    monkeypatch.setattr(module, "path_sha256", lambda p: (calls.append(p), path_sha256(p))[1])
    first = remembered_sha256(folder)
    assert first == path_sha256(folder)[:32]
    assert remembered_sha256(folder) == first and len(calls) == 1

    files[0].write_bytes(b"54321")  # same size, and older than the newest file
    os.utime(files[0], (5e8, 5e8))
    second = remembered_sha256(folder)
    assert second == path_sha256(folder)[:32] != first
    os.utime(files[1], (2e9, 2e9))
    assert remembered_sha256(folder) == second
    assert len(calls) == 3


ENCODER_FILE = """
from fusemix_core.interfaces import Encoder
from fusemix_core.specs import EncoderSpec

class Mine(Encoder):
    spec = EncoderSpec(name="mine", modality="text", target="x:Mine")
    @classmethod
    def load(cls, spec, device, dtype): return cls()
    def collate(self, items): return items
    def encode(self, batch, view="pooled"): return batch
"""


def test_a_class_in_a_users_file_is_known_by_the_files_content(tmp_path):
    prints = []
    for place, text in (("1", ""), ("2", ""), ("3", "# changed\n")):
        path = tmp_path / place / "mine.py"
        path.parent.mkdir()
        path.write_text(ENCODER_FILE + text)
        spec = Registry(lambda: []).encoder(f"{path}:Mine")
        assert fingerprint(spec, "float32") is None
        prints.append(fingerprint(spec, "float32", "digest"))
    assert prints[0] == prints[1] != prints[2]


def test_neither_fingerprint_nor_planning_imports_torch():
    code = (
        "import sys, numpy, fusemix_core.latents.fingerprint\n"
        "from fusemix_core.latents.store import LatentStore\n"
        "s = LatentStore(); s.views(); s.verify(); s.prune()\n"
        "s.missing('ab', 'pooled', numpy.zeros((3, 2), numpy.uint64), 'float16')\n"
        "assert 'torch' not in sys.modules"
    )
    path = str(Path(module.__file__).parents[2])
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": path})
