"""`fusemix doctor`: each thing that can be missing or slow is found, with what to do."""

import json
import os
from types import SimpleNamespace

import pytest
import torch
from typer.testing import CliRunner

from fusemix_core.cli.app import app
from fusemix_core.data.media import extras
from fusemix_core.discovery import Plugin
from fusemix_core.jobs import doctor
from fusemix_core.project import how_to_install
from fusemix_core.runs import machine


def found(topic, state):
    """The only finding of a topic that has this state."""
    (one,) = [f for f in doctor.examine() if (f.topic, f.state) == (topic, state)]
    return one


def test_every_topic_is_examined_and_json_says_what_the_table_says():
    shown = CliRunner().invoke(app, ["doctor"])
    kept = json.loads(CliRunner().invoke(app, ["doctor", "--json"]).stdout)
    assert list(dict.fromkeys(one["topic"] for one in kept)) == list(doctor.CHECKS)
    for one in kept:
        assert one["topic"] in shown.stdout and one["state"] in ("ok", "note", "warning", "error")
        assert not one["advice"] or one["advice"] in shown.stdout
        assert one["state"] == "ok" or one["advice"], one


def test_a_broken_plugin_is_an_error_and_exit_1(monkeypatch, own_registry):
    broken = Plugin("bad", "fusemix-bad", "0.1", "bad", "ImportError: no module named bad")
    monkeypatch.setattr(doctor.registry, "plugins", [*doctor.registry.plugins, broken])
    one = found("plugins", "error")
    assert "fusemix-bad 0.1 failed to load: ImportError" in one.text
    assert "pip uninstall fusemix-bad" in one.advice
    assert CliRunner().invoke(app, ["doctor"]).exit_code == 1


def test_a_check_that_fails_is_a_finding(monkeypatch):
    def fails():
        raise OSError("no such disk")

    monkeypatch.setitem(doctor.CHECKS, "store", fails)
    assert "no such disk" in found("store", "error").text


def test_a_driver_without_a_gpu_for_torch_says_which_of_them_is_wrong(monkeypatch):
    monkeypatch.setattr(doctor, "resolve_device", lambda name: torch.device("cpu"))
    monkeypatch.setattr(doctor, "_has_driver", lambda: True)
    monkeypatch.setattr(torch.version, "cuda", None)
    assert "built for the CPU" in found("device", "warning").advice
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert "CUDA_VISIBLE_DEVICES is ''" in found("device", "warning").advice
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert "Update the driver" in found("device", "warning").advice


@pytest.mark.parametrize(
    ("capability", "state", "text"),
    [
        ((9, 0), "ok", "half precision and TF32 are fast"),
        ((7, 5), "ok", "no bfloat16"),
        ((6, 1), "warning", "float32"),
    ],
)
def test_a_gpu_is_told_with_its_memory_and_precision(monkeypatch, capability, state, text):
    facts = SimpleNamespace(name="A GPU", major=capability[0], minor=capability[1])
    monkeypatch.setattr(doctor, "resolve_device", lambda name: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda i: facts)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    free = {0: 70 * 10**9, 1: 10**9}
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda i: (free[i], 80 * 10**9))
    assert "cuda:0: A GPU, 70 GB of 80 GB free" in found("device", "ok").text
    assert "another process" in found("device", "warning").text
    assert text in found("precision", state).text


def test_more_threads_than_the_container_allows(monkeypatch):
    monkeypatch.setattr(doctor, "cores", lambda: 8)
    monkeypatch.setattr(doctor, "cpu_quota", lambda: 2.0)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    assert "OMP_NUM_THREADS=2" in found("threads", "warning").advice


def test_cores_that_stay_idle(monkeypatch):
    monkeypatch.setattr(doctor, "cores", lambda: 8)
    monkeypatch.setattr(doctor, "cpu_quota", lambda: None)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert "Unset OMP_NUM_THREADS (now 1)" in found("threads", "warning").advice


def test_the_quota_of_a_container_is_read_in_both_versions(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "_own_groups", lambda groups: [groups, groups / "inner"])
    assert machine.cpu_quota(tmp_path) is None
    (tmp_path / "cpu.max").write_text("max 100000")
    assert machine.cpu_quota(tmp_path) is None
    (tmp_path / "cpu.max").write_text("150000 100000")
    assert machine.cpu_quota(tmp_path) == 1.5
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "cpu.cfs_quota_us").write_text("100000")
    (tmp_path / "inner" / "cpu.cfs_period_us").write_text("100000")
    assert machine.cpu_quota(tmp_path) == 1.0


def test_little_disk_and_a_store_that_cant_be_written(monkeypatch):
    monkeypatch.setattr(doctor, "disk_free", lambda path: 10**9)
    assert "fusemix cache prune" in found("store", "warning").advice
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert "FUSEMIX_HOME" in found("store", "error").advice


def test_the_object_store_of_the_environment_is_named_without_asking_it(monkeypatch):
    monkeypatch.setenv("FUSEMIX_STORE", "s3://no-such-bucket/x")
    kept = [f.text for f in doctor.examine() if f.topic == "store"]
    assert len(kept) == 2 and "s3://no-such-bucket/x (FUSEMIX_STORE)" in kept[1]
    monkeypatch.setenv("FUSEMIX_STORE", "s3://key:secret@bucket/x")
    one = found("store", "error")
    assert "more in it than a bucket" in one.text and "secret" not in one.text + one.advice


def test_a_folder_is_counted_for_a_limited_time(tmp_path):
    (tmp_path / "a").mkdir()
    for i in range(3):
        (tmp_path / "a" / f"{i}.bin").write_bytes(b"x" * 100)
    assert machine.usage(tmp_path) == machine.Usage(3, 300, whole=True)
    assert not machine.usage(tmp_path, seconds=-1).whole
    assert machine.usage(tmp_path / "none") == machine.Usage(0, 0, whole=True)
    assert machine.there(tmp_path / "none" / "deeper") == tmp_path


def test_missing_packages_are_named_with_what_they_bring(monkeypatch):
    monkeypatch.setattr(extras, "_is_there", lambda module: module != "pydicom")
    assert how_to_install("fusemix[dicom]") in found("decoders", "note").advice
    monkeypatch.setattr(doctor.exported, "missing", lambda: "openvino")
    assert how_to_install("fusemix[fast]") in found("runtimes", "warning").advice


def test_little_memory(monkeypatch):
    monkeypatch.setattr(doctor, "memory_free", lambda: 10**9)
    assert "--encode-batch" in found("memory", "warning").advice
