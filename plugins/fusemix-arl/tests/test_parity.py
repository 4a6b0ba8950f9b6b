"""Graph attention, alignment loss, reasoning layer and TransE give the original's numbers and
gradients; the README below `parity/` says where these come from."""

import json
from pathlib import Path

import pytest
import torch
from fusemix_arl.graph import EntityGraph, TransE
from fusemix_arl.objective import Query, alignment_loss
from fusemix_arl.reason import ReasonLayer
from safetensors.torch import load_file

FOLDER = Path(__file__).parent / "parity"
META, V = json.loads((FOLDER / "meta.json").read_text()), load_file(FOLDER / "vectors.safetensors")
HYPER = META["hyper"]


def close(got, want):
    assert got.shape == want.shape
    rule = META["tolerance"]
    assert (got - want).abs().max() <= rule["atol"] + rule["rtol"] * want.abs().max()


def part(prefix):
    return {k.removeprefix(prefix): x for k, x in V.items() if k.startswith(prefix)}


def check_gradients(module, prefix, place=lambda name: name):
    found = dict(module.named_parameters())
    wanted = part(prefix)
    assert wanted
    for name, gradient in wanted.items():
        close(found[place(name)].grad, gradient)
    return len(wanted)


def in_graph(name):
    return name.replace("graph.layer", "layers.").replace("graph.norm", "norm")


def test_knowledge_alignment():
    given = part("align.param.")
    graph = EntityGraph(given["entity"], V["align.in.edges"].T).double()
    own = {in_graph(k): x for k, x in given.items() if k[1] != "."}
    graph.load_state_dict(own)
    entities = graph()
    close(entities, V["align.out.entities"])
    loss, queries = 0.0, {}
    for side in "ab":
        queries[side] = Query(HYPER["w"], HYPER["dk"]).double()
        queries[side].load_state_dict(part(f"align.param.{side}."))
        query = queries[side](V[f"align.in.{side}"])
        close(query @ entities.T, V[f"align.out.logits_{side}"])
        rows = torch.ones(len(query), dtype=torch.bool)
        labels = V[f"align.in.labels_{side}"].double()
        loss = loss + alignment_loss(query, entities, labels, rows)
    close(loss, V["align.out.loss"])
    loss.backward()
    grads = {k: x for k, x in part("align.grad.").items() if k[1] != "."}
    for name, gradient in grads.items():
        close(dict(graph.named_parameters())[in_graph(name)].grad, gradient)
    assert len(grads) == 11
    assert sum(check_gradients(q, f"align.grad.{side}.") for side, q in queries.items()) == 8


def in_layer(name):
    name = name.replace("k.self", "k_own").replace("k.", "k_", 1) if name[:2] == "k." else name
    return name.replace("self.", "own.", 1) if name.startswith("self.") else name


def test_reasoning_layer():
    sizes = [HYPER[k] for k in ("D", "heads", "inter", "dk", "kheads", "kinter")]
    layer = ReasonLayer(*sizes).double()
    layer.load_state_dict({in_layer(k): x for k, x in part("reason.param.").items()})
    entities, ids = V["reason.in.entities"], V["reason.in.entity_ids"]
    rows = V["align.out.entities"][ids.clamp(min=0)] * (ids >= 0)[..., None]
    close(rows, entities)
    masks = [V[f"reason.in.mask_{side}"].bool() for side in ("text", "image")]
    text, knowledge = layer(
        (V["reason.in.text"], masks[0]),
        (V["reason.in.image"], masks[1]),
        (entities, ids >= 0),
        V["reason.in.position"].double(),
    )
    close(text, V["reason.out.text"])
    close(knowledge, V["reason.out.knowledge"])
    (text.square().sum() + knowledge.pow(3).sum()).backward()
    assert check_gradients(layer, "reason.grad.", in_layer) == 60


@pytest.mark.parametrize(("name", "norm", "unit"), [("p1_unit", 1, True), ("p2", 2, False)])
def test_transe(name, norm, unit):
    prefix = f"transe_{name}."
    sizes = HYPER["ents"], HYPER["nrel"], HYPER["tdim"]
    model = TransE(*sizes, norm=norm, unit=unit, margin=HYPER["margin"]).double()
    model.load_state_dict(part(f"{prefix}param."))
    distance = model.distance(*(V[f"{prefix}in.{k}"] for k in ("head", "relation", "tail")))
    close(distance, V[f"{prefix}out.distance"])
    loss = model.loss(distance, HYPER["tB"])
    close(loss[None], V[f"{prefix}out.loss"])
    loss.backward()
    assert check_gradients(model, f"{prefix}grad.") == 2
