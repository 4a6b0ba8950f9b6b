"""The fuser `grid`: its contract, what its options do, and that it fuses maps."""

import numpy as np
import pytest
import torch
from fusemix_bev.fuser import GridFuser
from fusemix_bev.layers import Dilated
from fusemix_bev.scenes import scenes, write

from fusemix_core.data.facts import Fact
from fusemix_core.errors import ConfigError
from fusemix_core.fuser import Labelled
from fusemix_core.interfaces import FitContext, Padded, PairedLatents, ResidentLatents
from fusemix_core.tasks.occupy import Occupy
from fusemix_core.testing import check_fuser

SMALL = {"width": 6, "dilations": [1, 2], "training": {"epochs": 10, "lr": 2e-2}}


@pytest.mark.slow
def test_the_fuser_conforms():
    options = {"width": 8, "training": {"epochs": 6, "lr": 3e-2}}
    check_fuser("grid", options=options).raise_if_failed()


def rows(count, seed, task=None):
    made = scenes(count, seed, size=8)
    facts = {"target": Fact("grid", made.occupied.astype(np.float32))}
    task = task or Occupy.learn(facts)
    tables = {
        m: ResidentLatents(torch.from_numpy(getattr(made, m))) for m in ("camera", "ultrasonic")
    }
    pairs = PairedLatents(dict(tables), torch.arange(count)[:, None].repeat(1, 2))
    return Labelled(pairs, task.targets(facts), torch.arange(count)), task


@pytest.mark.parametrize("dilation", ["content", "none"])
def test_maps_are_fused_and_a_missing_sensor_changes_nothing(dilation):
    train, task = rows(64, 0)
    test, _ = rows(32, 1, task)
    fuser = GridFuser.fit(train, test, task, FitContext(), dilation=dilation, **SMALL).fuser
    assert fuser.shape == (8, 8) and fuser.options["grid"] == [8, 8]
    tokens = test.as_taken_by(fuser)
    given = {m: tokens.latents(m) for m in test.modalities}
    with torch.no_grad():
        both = fuser(given, test.present)
        assert both.shape == (32, 64 + 16)
        only = torch.tensor([True, False]).expand(32, -1)
        seen = fuser(given, only)
        given["ultrasonic"] = Padded(given["ultrasonic"].values + 9, given["ultrasonic"].mask)
        assert torch.equal(fuser(given, only), seen)
        assert not torch.allclose(fuser(given, test.present), both)
    constant = task.baseline(train.targets).expand(32, -1)
    assert task.loss(both, test.targets) < task.loss(constant, test.targets)


def test_mixtures_sum_to_one_and_depend_on_the_content_only_if_they_shall():
    torch.manual_seed(0)
    maps, other = torch.randn(2, 4, 5, 6), torch.randn(2, 4, 5, 6)
    content, fixed = (Dilated(4, (1, 2, 3), by, 4) for by in (True, False))
    shares = content.mixture(maps)
    assert shares.shape == (2, 3, 1, 5, 6)
    torch.testing.assert_close(shares.sum(dim=1), torch.ones(2, 1, 5, 6))
    assert not torch.allclose(shares, content.mixture(other))
    assert torch.equal(fixed.mixture(maps), fixed.mixture(other))
    sizes = [sum(p.numel() for p in one.parameters()) for one in (content, fixed)]
    assert sizes[0] - sizes[1] == 3


def test_a_dilated_convolution_can_undo_a_shift():
    layer = Dilated(1, (1, 2), True, 1)
    with torch.no_grad():
        for p in layer.parameters():
            p.zero_()
        layer.convs[1].weight[0, 0, 1, 2] = 1.0  # what is two cells to the right
        layer.gate.bias[1] = 50.0
        layer.out.weight.fill_(1.0)
    maps = torch.zeros(1, 1, 4, 6)
    maps[0, 0, 2, 5] = 10.0
    added = (layer(maps, maps) - maps).detach()
    assert added.argmax() == 2 * 6 + 3 and added.max() == pytest.approx(10, abs=1e-3)


def test_grids_of_other_sizes_and_none_become_one_map():
    sizes = {"a": (4, 6), "b": (2, 3)}
    fuser = GridFuser({"a": 2, "b": 3, "c": 5}, 4, sizes=sizes, width=4).eval()
    assert fuser.shape == (4, 6)
    lengths = {"a": 24, "b": 6, "c": 2}
    given = {
        m: Padded(torch.randn(3, t, fuser.inputs[m]), torch.ones(3, t, dtype=torch.bool))
        for m, t in lengths.items()
    }
    assert fuser(given, torch.ones(3, 3, dtype=torch.bool)).shape == (3, 4)
    nothing = Padded(torch.zeros(3, 1, 2), torch.zeros(3, 1, dtype=torch.bool))
    present = torch.tensor([[False, True, True]] * 3)
    assert fuser({**given, "a": nothing}, present).isfinite().all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dilation": "some"}, "dilation=some"),
        ({"gate": "other"}, "gate=other"),
        ({"dilations": [0]}, "dilations"),
        ({"grid": [4, 4]}, "7 outputs"),
    ],
)
def test_options_that_can_not_be(options, message):
    with pytest.raises(ConfigError, match=message):
        GridFuser({"a": 2}, 7, **options)


def test_scenes_are_drawn_by_their_seed_and_each_has_a_shift_of_its_own():
    one, two = (scenes(40, 3, size=10) for _ in range(2))
    assert np.array_equal(one.ultrasonic, two.ultrasonic) and one.light == two.light
    lengths = np.rint(np.hypot(*one.shift.T))
    assert set(lengths) == {0, 1, 2, 3, 4} and len(np.unique(one.shift, axis=0)) > 10
    still, moved = scenes(40, 3, size=10, shift=0), scenes(40, 3, size=10, shift=2)
    assert np.array_equal(still.camera, moved.camera)
    assert np.array_equal(still.occupied, moved.occupied)
    assert not np.allclose(still.ultrasonic, moved.ultrasonic)


def test_night_takes_the_cameras_sight_and_not_the_ultrasonic_one():
    day, night = (scenes(40, 0, size=10, light=light, shift=0) for light in ("day", "night"))
    by_day, at_night = (
        [
            np.corrcoef(maps[..., 0].ravel(), one.occupied.ravel())[0, 1]
            for maps in (one.camera, one.ultrasonic)
        ]
        for one in (day, night)
    )
    assert by_day[0] - at_night[0] > 0.05 and abs(by_day[1] - at_night[1]) < 0.05


@pytest.mark.long
def test_the_command_line_fuses_written_scenes(tmp_path, monkeypatch):
    from typer.testing import CliRunner

    from fusemix_core.cli.app import app

    monkeypatch.chdir(tmp_path)
    write(tmp_path / "scenes", 80, size=8)
    command = "fuse -e camera=npy:scenes/camera.npy -e ultrasonic=npy:scenes/ultrasonic.npy "
    command += "--task occupy --target occupied --data scenes/scenes.csv --split-column split "
    command += "--out run --fuser"
    own = "grid width=4 training={epochs=2}"
    done = CliRunner().invoke(app, [*command.split(), own], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert "grid (chosen)" in done.output and "camera + ultrasonic" in done.output
