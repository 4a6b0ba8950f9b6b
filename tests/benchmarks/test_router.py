"""The Router beside `fusemix align`, with miniatures: frozen encoders, trained heads."""

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks import router
from fusemix_core.config import DataConfig
from fusemix_core.data.reading import read_pairs
from fusemix_core.registry import registry

pytest.importorskip("accelerate", reason="the extra `bench` is not installed")
pytest.importorskip("fusemix_starter")


@pytest.fixture
def dataset(tmp_path):
    """Twelve pictures of one colour each, with its name."""
    lines = ["image,text,split"]
    for i in range(12):
        pixels = np.full((32, 32, 3), 20 * i, np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
        lines.append(f"{i}.png,grey of {20 * i},{'train' if i < 8 else 'test'}")
    (tmp_path / "pairs.csv").write_text("\n".join(lines))
    config = DataConfig(source=(str(tmp_path / "pairs.csv"),), split_column="split")
    return read_pairs(config, {"image": "image", "text": "text"})


def miniatures():
    specs = {m: registry.encoder(name) for m, name in router.ENCODERS.items()}
    return {m: registry.target_of(spec).tiny(spec) for m, spec in specs.items()}


def test_training_moves_the_heads_and_nothing_of_the_frozen_encoders(dataset, tmp_path):
    encoders = miniatures()
    model = router.router_of(encoders)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert len(trained) == 4 and all("linear" in name for name in trained)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    pictures = [p.clone() for p in encoders["image"].model.state_dict().values()]

    router.train(model, dataset, tmp_path / "router", epochs=2)

    for name, value in model.named_parameters():
        assert torch.equal(value, before[name]) == (name not in trained), name
    kept = encoders["image"].model.state_dict().values()
    assert all(torch.equal(a, b) for a, b in zip(pictures, kept, strict=True))
    embeddings, links = router.embed_test(model, dataset)
    shape = 4, router.DIM
    assert {m: e.shape for m, e in embeddings.items()} == {"image": shape, "text": shape}
    assert sorted(links.tolist()) == [[i, i] for i in range(4)]
    for rows in embeddings.values():
        assert rows.norm(dim=1).numpy() == pytest.approx(1, abs=1e-5)


@torch.inference_mode()
def test_the_router_embeds_the_encoders_own_latents(dataset):
    encoders = miniatures()
    model = router.router_of(encoders)
    routes = model[0].sub_modules
    items = {m: [dataset.items[m].load(i) for i in (3, 5)] for m in encoders}
    for modality, encoder in encoders.items():
        latents = encoder.encode(encoder.collate(items[modality]))
        expected = routes[modality][-1].linear(latents)
        found = model.encode(items[modality], task=modality, convert_to_tensor=True)
        assert torch.allclose(found, expected, atol=1e-5)
