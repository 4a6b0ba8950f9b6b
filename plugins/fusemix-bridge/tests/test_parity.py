"""Cross-modal layers, bridges and managers give the original's numbers and gradients; the READMEs
below `parity/` say where these come from."""

import json
from pathlib import Path

import pytest
import torch
from fusemix_bridge.cross import CrossLayer
from fusemix_bridge.managers import AdaptiveManager, Bridge, StaticManager
from safetensors.torch import load_file

FOLDER = Path(__file__).parent / "parity"
BRIDGE, MANAGER = FOLDER / "bridge_tower", FOLDER / "manager_tower"


def read(folder):
    return json.loads((folder / "meta.json").read_text()), load_file(folder / "vectors.safetensors")


def close(got, want, rule):
    assert got.shape == want.shape
    assert (got - want).abs().max() <= rule["atol"] + rule["rtol"] * want.abs().max()


PLACES = {"self": "own", "cross": "cross"}


def place(name):
    """A parameter's name of the original, here."""
    if name.startswith("bridge"):
        return name.replace("bridge", "norm")
    if name.startswith("ff"):
        return name.replace("ff.fc1", "up").replace("ff.fc2", "down").replace("ff.norm", "norm")
    first, _, rest = name.partition(".")
    return f"{PLACES[first]}.{rest}"


def test_bridge_and_cross_modal_layer_of_both_sides():
    meta, v = read(BRIDGE)
    hyper, rule = meta["hyper"], meta["tolerance"]
    bridges, layers, bridged, masks = {}, {}, {}, {}
    for side in "ab":
        bridge = Bridge(hyper["D"], -1).double()
        layer = CrossLayer(hyper["D"], hyper["heads"], hyper["inter"]).double()
        prefix = f"param.{side}."
        given = {k.removeprefix(prefix): x for k, x in v.items() if k.startswith(prefix)}
        is_bridge = lambda name: name.startswith("bridge")  # noqa: E731
        bridge.load_state_dict({place(k): x for k, x in given.items() if is_bridge(k)})
        layer.load_state_dict({place(k): x for k, x in given.items() if not is_bridge(k)})
        unimodal = v[f"in.unimodal_{side}"][:, None]
        bridged[side] = bridge(unimodal, v[f"in.cross_{side}"], torch.empty(0), torch.empty(0))
        close(bridged[side], v[f"out.bridged_{side}"], rule)
        masks[side] = v[f"in.mask_{side}"].bool()
        bridges[side], layers[side] = bridge, layer
    out = {
        side: layers[side](bridged[side], masks[side], bridged[other], masks[other])
        for side, other in ("ab", "ba")
    }
    for side in "ab":
        close(out[side], v[f"out.cross_{side}"], rule)
    (out["b"].square().sum() + out["a"].pow(3).sum()).backward()
    for side in "ab":
        names = [k.removeprefix(f"grad.{side}.") for k in v if k.startswith(f"grad.{side}.")]
        assert len(names) == 28
        for name in names:
            module = bridges[side] if name.startswith("bridge") else layers[side]
            found = dict(module.named_parameters())[place(name)].grad
            close(found, v[f"grad.{side}.{name}"], rule)


def here(name):
    """The name of a manager's parameter, here; None for one that the original never uses."""
    if name == "temperature_cross":
        return None
    if name.startswith("norm"):
        number, _, rest = name.removeprefix("norm").partition(".")
        return f"norms.{number}.{rest}"
    for theirs, ours in (("query_norm", "other_norm"), ("att_q", "query"), ("att_k", "key")):
        name = name.replace(theirs, ours)
    return "before" if name == "score_prev" else name


CASES = [k for k, x in read(MANAGER)[0]["hyper"].items() if isinstance(x, dict)]


@pytest.mark.parametrize("case", CASES)
def test_managers(case):
    meta, v = read(MANAGER)
    hyper, rule = meta["hyper"], meta["tolerance"]
    kind, first = hyper[case]["kind"], hyper[case]["layer_index"] == 0
    options = {"per_channel": hyper[case]["weight"] == "vector", "noise": 0.0}
    if kind == "AAUE" and not first:
        manager = AdaptiveManager(hyper["N"], hyper["D"], **options).double()
    else:
        manager = StaticManager(hyper["N"], hyper["D"], first=first, **options).double()
    for name, start in (("scores", "scores"), ("before", "score_prev")):
        if f"{case}.initial.{start}" in v:
            wanted = v[f"{case}.initial.{start}"]
            got = dict(manager.named_parameters())[name].double()
            assert (got.flatten() - wanted.flatten()).abs().max() < 1e-7
    prefix = f"{case}.param."
    shapes = {k: x.shape for k, x in manager.named_parameters()}
    manager.load_state_dict(
        {
            here(k.removeprefix(prefix)): x.reshape(shapes[here(k.removeprefix(prefix))])
            for k, x in v.items()
            if k.startswith(prefix) and here(k.removeprefix(prefix))
        }
    )
    previous = v.get(f"{case}.in.previous")
    others = v.get(f"{case}.in.other_side", torch.empty(3, 0, hyper["D"], dtype=torch.float64))
    seen = torch.ones(others.shape[:2], dtype=torch.bool)
    out = manager(v[f"{case}.in.layers"], previous, others, seen)
    close(out, v[f"{case}.out"], rule)
    out.square().sum().backward()
    gradients = {k for k in v if k.startswith(f"{case}.grad_sum_square.")}
    assert gradients
    for key in gradients:
        name = here(key.removeprefix(f"{case}.grad_sum_square."))
        found = dict(manager.named_parameters())[name].grad
        close(found.flatten(), v[key].flatten(), rule)
