"""Triples, mentions, the objective `arl`, the encoder `mentions:` and the fuser `reason`."""

import numpy as np
import pytest
import torch
from fusemix_arl.fuser import ReasonFuser
from fusemix_arl.graph import fitted
from fusemix_arl.knowledge import Mentions, Triples, read_triples
from fusemix_arl.objective import Arl

from fusemix_core.data.facts import Fact
from fusemix_core.errors import ConfigError, DataError
from fusemix_core.interfaces import FitContext, Padded, PairedLatents, ResidentLatents, Step
from fusemix_core.registry import registry
from fusemix_core.testing import check_encoder, check_fuser, check_objective
from fusemix_core.testing.steps import FirstDimensions

LINES = [
    "head,relation,tail,source",
    "aspirin,is a,salicylate,1",
    "aspirin,has role,analgesic,1",
    "salicylate,is a,methyl ester,2",
    "aspirin,is a,salicylate,3",
    "phenol,is a,ester,2",
]
TEXTS = ("An aspirin, an ANALGESIC.", "Phenols", "nothing", "a methyl ester and its salicylates")
WORDS = {"words": Fact("text", np.arange(6) % 4, TEXTS)}
SMALL = {"epochs": 2, "width": 6, "heads": 2, "head_width": 4}


@pytest.fixture(autouse=True)
def triples(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "triples.csv").write_text("\n".join(LINES))
    return "triples.csv"


def test_triples_are_read_once_each_with_other_columns_left_out(triples):
    found = read_triples(triples)
    assert found.entities[:3] == ("aspirin", "salicylate", "analgesic")
    assert found.relations == ("is a", "has role") and len(found.ids) == 4
    assert found.edges().T.tolist() == [[0, 1], [0, 2], [1, 3], [4, 5]]
    assert found.edges(reverse=True).shape == (2, 8)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("head,tail\na,b", "no column 'relation'"),
        ("head,relation,tail\na,,b", "cell is empty"),
        ("head,relation,tail\n", "no triple"),
    ],
)
def test_files_that_are_no_triples_are_refused(text, message, triples, tmp_path):
    (tmp_path / triples).write_text(text)
    with pytest.raises(DataError, match=message):
        read_triples(triples)


def test_a_file_that_is_not_there_is_named():
    with pytest.raises(ConfigError, match=r"no file of triples none\.csv"):
        read_triples("none.csv")
    with pytest.raises(ConfigError, match="No file of triples is named"):
        read_triples("")


def test_mentions_are_whole_words_the_longest_first_and_any_plural():
    find = Mentions(["ester", "methyl ester", "acid", "EC 3.1 inhibitor"])
    text = "Methyl esters, an ester; a placid EC 3.1 inhibitor of acids"
    found = find(text)
    assert [one.entity for one in found] == [1, 0, 3, 2]
    assert [text[one.start : one.end] for one in found][0] == "Methyl esters"


def test_transe_brings_true_triples_together_and_is_drawn_by_its_seed():
    triples = Triples.of([(f"a{i}", "is a", f"b{i % 3}") for i in range(12)])
    model, again = (fitted(triples, 8, epochs=25, seed=1) for _ in range(2))
    assert torch.equal(model.entity, again.entity)
    head, relation, tail = torch.from_numpy(triples.ids).T
    true = model.distance(head, relation, tail).mean()
    assert true < 0.6 * model.distance(head, relation, tail.roll(1)).mean()


@pytest.mark.slow
def test_the_objective_conforms(triples):
    options = {"triples": triples, **SMALL}
    check_objective("arl", options=options, facts=WORDS).raise_if_failed()


def started(triples, facts=WORDS, **options):
    rows = {m: torch.randn(6, 5, generator=torch.Generator().manual_seed(k))
            for k, m in enumerate(("molecule", "text"))}  # fmt: skip
    pairs = PairedLatents(
        {m: ResidentLatents(x) for m, x in rows.items()},
        torch.arange(6)[:, None].repeat(1, 2),
        facts,
    )
    objective = Arl(triples=triples, **SMALL, **options)
    adapters = {m: FirstDimensions(5, 4) for m in rows}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        objective.start(adapters, pairs, pairs, FitContext())
    return objective, {m: x[:, :4] for m, x in rows.items()}, pairs.links


def test_only_entities_that_a_training_row_mentions_are_predicted(triples):
    few = {"words": WORDS["words"].select(np.array([0, 1, 0, 1, 2, 2]))}
    objective, _, _ = started(triples, few)
    names = read_triples(triples).entities
    assert [names[i] for i in objective.used] == ["aspirin", "analgesic", "phenol"]
    every, _, _ = started(triples)
    assert len(every.used) == 5  # not the ester within a methyl ester
    assert every.mentioned.shape == (len(TEXTS) + 1, 2)


def test_a_mixed_row_mentions_half_and_a_row_without_text_does_not_count(triples):
    objective, rows, links = started(triples, objective="infonce")
    wanted = torch.tensor([[0, 1], [2, -1], [3, 3], [1, 1], [2, 2], [0, 0]])
    both = links[:, None].repeat(1, 2, 1)

    def aligned(facts):
        step = Step.of(rows, both, facts={"words": facts})
        objective(step)
        return objective.log()["knowledge"]

    one = aligned(wanted)
    other = wanted.clone()
    other[1] = torch.tensor([-1, 3])  # still not known
    assert torch.equal(aligned(other), one)
    first, second = wanted[:1].repeat(6, 1), wanted[:1].flip(1).repeat(6, 1)
    torch.testing.assert_close(aligned(first), aligned(second))
    apart = [aligned(torch.full((6, 2), text)) for text in (0, 1)]
    torch.testing.assert_close(aligned(first), sum(apart) / 2)


def test_without_mentions_or_texts_it_says_what_to_name(triples):
    nothing = {"words": Fact("text", np.zeros(6, int), ("nothing at all",))}
    with pytest.raises(DataError, match="No training row mentions any"):
        started(triples, nothing)
    with pytest.raises(ConfigError, match="--fact words=COLUMN:text"):
        started(triples, {"words": Fact("number", np.zeros(6, np.float32))})
    with pytest.raises(ConfigError, match="graph=tree"):
        Arl(graph="tree")


def test_the_graph_makes_neighbours_matter_and_none_leaves_it_out(triples):
    with_graph, _, _ = started(triples)
    without, _, _ = started(triples, graph="none")
    assert len(without.entities.layers) == 0 and len(with_graph.entities.layers) == 2
    before = [one.entities().detach() for one in (with_graph, without)]
    for one in (with_graph, without):
        one.entities.entity.data[0] *= -3  # aspirin, of which the salicylate is a neighbour
    after = [one.entities().detach() for one in (with_graph, without)]
    assert not torch.allclose(before[0][1], after[0][1])
    assert torch.equal(before[1][1], after[1][1])


def test_the_encoder_of_mentions(triples):
    spec = registry.encoder("mentions:triples.csv")
    encoder = registry.target_of(spec).load(spec, torch.device("cpu"), torch.float32)
    texts = ["aspirin", "none", "a phenol and phenol"]
    rows = encoder.encode(encoder.collate(texts), "tokens")
    assert rows.mask.sum(dim=1).tolist() == [1, 1, 2] and not rows.values[1, 0].any()
    assert rows.values[0, 0, -2:].tolist() == [0, 1]
    torch.testing.assert_close(rows.values[2, 0, :-2], rows.values[2, 1, :-2])
    assert rows.values[2, 1, -2] == pytest.approx(13 / 19)
    with pytest.raises(ConfigError, match=r"no file none\.csv"):
        registry.encoder("mentions:none.csv")


@pytest.mark.long
def test_the_encoder_conforms(triples):
    check_encoder("mentions:triples.csv").raise_if_failed()


@pytest.mark.long
def test_the_fuser_conforms():
    options = {"width": 16, "knowledge_width": 8, "heads": 2, "training": {"epochs": 8, "lr": 1e-2}}
    check_fuser("reason", options=options).raise_if_failed()


def padded(rows, count, width, seed):
    values = torch.randn(rows, count, width, generator=torch.Generator().manual_seed(seed))
    return Padded(values, torch.ones(rows, count, dtype=torch.bool))


def test_an_entity_reaches_the_tokens_that_mention_it():
    torch.manual_seed(0)
    sizes = {"width": 8, "knowledge_width": 4, "heads": 2}
    fuser = ReasonFuser({"image": 5, "text": 6, "knowledge": 5}, 3, **sizes).eval()
    for standard in fuser.standards:
        standard.scale.fill_(1.0)
        standard.longest.fill_(99.0)
    given = {"image": padded(2, 3, 5, 0), "text": padded(2, 4, 6, 1)}
    given["knowledge"] = padded(2, 2, 5, 2)
    given["knowledge"].values[..., 3:] = torch.tensor([[0.0, 0.5], [0.6, 0.7]])
    position = fuser._position(list(given.values()))
    assert position[0].tolist() == [[1, 1, 0, 0], [0, 0, 1, 0]]
    present = torch.ones(2, 3, dtype=torch.bool)
    scores = fuser(given, present)
    few = present.clone()
    few[1, 2] = False
    without = fuser(given, few)
    torch.testing.assert_close(without[0], scores[0])
    assert not torch.allclose(without[1], scores[1])
    given["knowledge"].values[1] = torch.nan
    torch.testing.assert_close(fuser(given, few), without)


@pytest.mark.parametrize(
    ("inputs", "options", "message"),
    [
        (dict.fromkeys("abcd", 4), {}, "three modalities, not 4"),
        ({"a": 4}, {"heads": 5}, "heads=5"),
        ({"a": 4, "b": 4, "c": 2}, {}, "no vector before their place"),
    ],
)
def test_inputs_and_options_that_can_not_be(inputs, options, message):
    with pytest.raises(ConfigError, match=message):
        ReasonFuser(inputs, 2, **options)
