"""FusedModel in use: encode, embed, similarity."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from fusemix_core.errors import (
    ArtefactError,
    ConfigError,
    ContractError,
    DataError,
    UnknownNameError,
)
from fusemix_core.fused import FusedModel
from fusemix_core.interfaces import Padded, Scorer

ALL = ("image", "text", "audio")


def test_encode_gives_unit_norm_rows_of_each_modality(toys, items):
    model = toys.model(ALL)
    for modality in ALL:
        rows = model.encode(modality, items[modality])
        assert rows.shape == (6, 4) and rows.dtype == torch.float32 and rows.device.type == "cpu"
        assert not rows.requires_grad
        torch.testing.assert_close(rows.norm(dim=1), torch.ones(6))


@pytest.mark.parametrize("batch_size", [1, 4, 6, 100])
def test_row_i_is_item_i_whatever_the_batch_size(toys, items, batch_size):
    model = toys.model(ALL)
    for modality in ALL:
        rows = model.encode(modality, items[modality], batch_size=batch_size)
        each = torch.cat([model.encode(modality, [item]) for item in items[modality]])
        torch.testing.assert_close(rows, each)


def test_encode_is_encoder_then_adapter_then_unit_norm(toys, items):
    model = toys.model()
    encoder = toys.Toy(toys.specs["text"], torch.float32)
    latents = encoder.encode(encoder.collate(items["text"]))
    with torch.no_grad():
        plain = model.adapters["text"](latents)
    expected = plain / plain.norm(dim=1, keepdim=True)
    torch.testing.assert_close(model.encode("text", items["text"]), expected)
    torch.testing.assert_close(model.embed("text", latents), expected)


def test_paths_bytes_and_images_give_the_same(toys, items, tmp_path):
    model = toys.model()
    path = tmp_path / "a.png"
    items["image"][0].save(path)
    rows = model.encode("image", [items["image"][0], path, str(path), path.read_bytes()])
    torch.testing.assert_close(rows, rows[:1].expand(4, 4))


def test_no_items_give_no_rows(toys):
    model = toys.model()
    assert model.encode("text", []).shape == (0, 4)
    assert model.embed("text", torch.zeros(0, 7)).shape == (0, 4)
    assert toys.Toy.loads == 0


def test_any_iterable_of_items_will_do(toys, items):
    model = toys.model()
    rows = model.encode("text", items["text"])
    assert torch.equal(model.encode("text", iter(items["text"])), rows)
    assert torch.equal(model.encode("text", np.array(items["text"])), rows)
    assert torch.equal(model.encode("text", tuple(items["text"])), rows)


def test_one_item_where_a_list_belongs_is_a_type_error(toys, items):
    model = toys.model(ALL)
    lone = {"text": "a cat", "image": items["image"][0], "audio": items["audio"][0]}
    for modality, item in [*lone.items(), ("image", np.zeros((4, 4, 3))), ("text", 5)]:
        with pytest.raises(TypeError, match=r"\[item\]"):
            model.encode(modality, item)


def test_encoders_are_loaded_once_and_on_first_use(toys, items):
    model = toys.model()
    assert toys.Toy.loads == 0
    model.encode("text", items["text"], batch_size=2)
    model.encode("text", items["text"])
    assert toys.Toy.loads == 1
    model.encode("image", items["image"])
    assert toys.Toy.loads == 2


def test_an_item_that_cannot_be_decoded_is_named(toys, items, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    with pytest.raises(DataError, match="image item 5 "):
        toys.model().encode("image", [*items["image"][:5], broken], batch_size=3)


def test_unknown_modalities_and_bad_arguments_are_refused(toys):
    model = toys.model()
    with pytest.raises(UnknownNameError, match="txt") as error:
        model.encode("txt", ["a"])
    assert "'text'" in error.value.hint
    with pytest.raises(UnknownNameError):
        model.embed("audio", torch.zeros(1, 3))
    with pytest.raises(ConfigError, match="batch_size"):
        model.encode("text", ["a"], batch_size=0)
    with pytest.raises(ConfigError, match=r"\[n, 7\]"):
        model.embed("text", torch.zeros(2, 5))
    with pytest.raises(DataError, match="NaN"):
        model.embed("text", torch.full((2, 7), torch.nan))
    with pytest.raises(UnknownNameError, match="txt"):
        toys.model(sources={"txt": "toy-text"})


@pytest.mark.parametrize(
    "wrong", [lambda x: x[:-1], lambda x: x[:, :-1], lambda x: x * torch.nan, lambda x: x[None]]
)
def test_an_encoder_that_breaks_its_contract_is_named(toys, items, wrong):
    class Bad(toys.Toy):
        def encode(self, batch, view="pooled"):
            return wrong(super().encode(batch, view))

    bad = Bad(toys.specs["text"], torch.float32)
    with pytest.raises(ContractError, match="toy-text"):
        toys.model(sources={"text": bad}).encode("text", items["text"])


class Layered:
    """The model's text encoder with a second view, `layers [n, 2, 7]`, that the model is of."""

    def __init__(self, toys, encode=lambda pooled: torch.stack([pooled, -pooled], dim=1)):
        spec = dataclasses.replace(toys.specs["text"], views=("pooled", "layers"))

        class Two(toys.Toy):
            def encode(self, batch, view="pooled"):
                assert view == "layers"
                return encode(super().encode(batch))

        self.encoder = Two(spec, torch.float32)
        torch.manual_seed(2)
        adapters = {"image": toys.ToyAdapter(5, 4), "text": toys.ToyAdapter(14, 4)}
        infos = {"image": toys.info("image"), "text": toys.info("text", dim=14, view="layers")}
        self.model = FusedModel(
            adapters, infos, toys.csls(), sources={"text": self.encoder}, registry=toys.registry,
            device="cpu",
        )  # fmt: skip


def test_a_view_of_more_axes_is_one_row_an_item(toys, items):
    layered = Layered(toys)
    latents = layered.encoder.encode(layered.encoder.collate(items["text"]), "layers")
    with torch.no_grad():
        plain = layered.model.adapters["text"](latents.reshape(6, 14))
    expected = plain / plain.norm(dim=1, keepdim=True)
    torch.testing.assert_close(layered.model.encode("text", items["text"]), expected)
    torch.testing.assert_close(layered.model.embed("text", latents), expected)
    torch.testing.assert_close(layered.model.embed("text", latents.flatten(1)), expected)
    with pytest.raises(ConfigError, match=r"\[n, 14\]; these are \[6, 7, 3\]") as error:
        layered.model.embed("text", torch.zeros(6, 7, 3))
    assert "'layers'" in error.value.hint


@pytest.mark.parametrize(
    "wrong",
    [
        lambda x: Padded(torch.stack([x, x], 1), torch.ones(len(x), 2, dtype=torch.bool)),
        lambda x: x,
        lambda x: torch.stack([x, x, x], dim=1),
    ],
)
def test_another_shape_than_the_views_is_refused(toys, items, wrong):
    with pytest.raises(ContractError, match=r"\[6, (14|L, d)\]"):
        Layered(toys, wrong).model.encode("text", items["text"])


def test_an_encoder_without_the_models_view_is_refused(toys, items):
    model = Layered(toys).model
    other = FusedModel(
        model.adapters, model.encoders, model.scorer, sources={"text": toys.specs["text"]},
        registry=toys.registry, device="cpu",
    )  # fmt: skip
    with pytest.raises(ArtefactError, match="view 'layers'.*has pooled"):
        other.encode("text", items["text"])


def test_an_adapter_that_gives_zero_or_nan_is_named(toys):
    model = toys.model()
    for value in (0.0, torch.nan):
        torch.nn.init.constant_(model.adapters["text"].second.weight, value)
        torch.nn.init.constant_(model.adapters["text"].second.bias, value)
        with pytest.raises(ContractError, match="text adapter"):
            model.embed("text", torch.ones(1, 7))


def test_adapters_of_different_widths_are_refused(toys):
    adapters = {"image": toys.ToyAdapter(5, 4), "text": toys.ToyAdapter(7, 3)}
    infos = {m: toys.info(m) for m in adapters}
    with pytest.raises(ContractError, match="one width"):
        FusedModel(adapters, infos, toys.csls(), registry=toys.registry, device="cpu")


def test_one_modality_is_no_fused_model(toys):
    with pytest.raises(ConfigError, match="two or more"):
        toys.model(("text",))


# -- similarity ----------------------------------------------------------------------------------


def test_similarity_is_the_scorers(toys, items):
    model = toys.model(scorer=toys.csls())
    texts, images = model.encode("text", items["text"]), model.encode("image", items["image"][:4])
    expected = model.scorer.score(texts, images, "text", "image")
    assert torch.equal(model.similarity(texts, images, "text", "image"), expected)
    assert torch.equal(model.prepare(images, "text", "image")(texts), expected)


def test_of_two_modalities_one_name_is_enough(toys, items):
    model = toys.model(scorer=toys.csls())
    a, b = model.encode("text", items["text"]), model.encode("image", items["image"])
    expected = model.similarity(a, b, "text", "image")
    assert torch.equal(model.similarity(a, b, query="text"), expected)
    assert torch.equal(model.similarity(a, b, target="image"), expected)
    assert not torch.equal(model.similarity(a, b, query="image"), expected)
    with pytest.raises(ConfigError, match="name them"):
        model.similarity(a, b)


def test_of_three_modalities_both_names_are_needed(toys):
    model, rows = toys.model(ALL), torch.eye(4)
    assert model.similarity(rows, rows, "text", "text").shape == (4, 4)
    with pytest.raises(ConfigError, match="name them"):
        model.similarity(rows, rows, query="text")
    with pytest.raises(UnknownNameError):
        model.similarity(rows, rows, "text", "video")


def test_embeddings_of_a_wrong_shape_are_refused(toys):
    for queries, gallery in [(torch.zeros(2, 5), torch.eye(4)), (torch.eye(4), torch.zeros(4))]:
        with pytest.raises(ConfigError, match=r"\[n, 4\]"):
            toys.model().similarity(queries, gallery, "text", "image")


def test_a_scorer_without_prepare_serves_too(toys):
    class Plain(Scorer):
        def score(self, queries, gallery, query, target):
            return 3 * queries @ gallery.T

    rows = torch.eye(4)
    assert torch.equal(toys.model(scorer=Plain()).similarity(rows, rows, "text"), 3 * rows)


def test_a_scorer_that_cannot_score_each_direction_is_refused(toys):
    with pytest.raises(ArtefactError, match="audio"):
        toys.model(ALL, scorer=toys.csls(("image", "text")))


def test_similarity_takes_arrays_and_lists_as_well_as_tensors(toys, items):
    model = toys.model()
    texts, images = model.encode("text", items["text"]), model.encode("image", items["image"])
    want = model.similarity(texts, images, "text", "image")
    forms = [torch.Tensor.numpy, torch.Tensor.tolist, list, lambda x: [r.numpy() for r in x]]
    for form in (*forms, lambda x: x.double().numpy(), lambda x: tuple(x.tolist())):
        got = model.similarity(form(texts), form(images), "text", "image")
        torch.testing.assert_close(got, want)
    score = model.prepare(images.numpy(), "text", "image")
    torch.testing.assert_close(score(texts.tolist()), want)


@pytest.mark.parametrize("rows", [[["a"]], [[1.0], [1.0, 2.0]], object(), None, [1.0, 2.0]])
def test_similarity_of_something_else_names_what_it_takes(toys, items, rows):
    model = toys.model()
    with pytest.raises(ConfigError, match="Embeddings of text") as raised:
        model.similarity(rows, model.encode("image", items["image"]), "text", "image")
    assert "model.encode('text', [...])" in raised.value.hint


def test_arrays_tensors_and_wrapped_items_are_encoded_as_their_files(toys, items, tmp_path):
    model = toys.model(ALL)
    image = items["image"][0].convert("RGB")
    pixels = np.asarray(image)
    path = tmp_path / "a.png"
    image.save(path)
    forms = [pixels, pixels / 255, torch.tensor(pixels).permute(2, 0, 1)]
    forms += [{"bytes": path.read_bytes(), "path": None}, {"bytes": None, "path": str(path)}]
    rows = model.encode("image", [path, *forms])
    torch.testing.assert_close(rows, rows[:1].expand(len(rows), -1))
    samples, rate = items["audio"][0]
    wrapped = {"array": samples, "sampling_rate": rate}
    rows = model.encode("audio", [(samples, rate), wrapped, (torch.tensor(samples), rate)])
    torch.testing.assert_close(rows, rows[:1].expand(3, -1))


def test_a_runs_folder_is_loaded_as_its_model(toys, tmp_path):
    toys.model().save_pretrained(tmp_path / "run/model")
    (tmp_path / "run/config.toml").touch()
    model = FusedModel.from_pretrained(tmp_path / "run", registry=toys.registry)
    assert model.modalities == toys.model().modalities
