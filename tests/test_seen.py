"""What a training step saw, as rows."""

import pytest

from lib.model import seen
from lib.model.batches import Batches, Corpus
from tests.tiny_tokens import tokenizer_of, tokens_of


@pytest.fixture
def batches():
    return Batches(corpus=Corpus(tokens=tokens_of(tokenizer_of()), split="train"), row_length=128, batch_size=3, seed=5)


def test_each_step_lists_the_stories_of_its_rows(batches):
    (table,) = seen.tables(batches, 7)
    rows = table.to_pylist()
    assert {row["step"] for row in rows} == set(range(1, 8))
    for step in range(7):
        for number, stories in enumerate(batches.stories_of(step)):
            listed = [row["story_id"] for row in rows if (row["step"], row["row"]) == (step + 1, number)]
            assert listed == [batches.corpus.story_ids[story].as_py() for story in stories]


def test_an_epoch_shows_every_training_story_once(batches):
    (table,) = seen.tables(batches, -(-batches.plan(0).num_rows // batches.batch_size))
    first = table.to_pylist()[: len(batches.corpus)]
    assert sorted(row["story_id"] for row in first) == sorted(batches.corpus.story_ids.to_pylist())


def test_rows_come_in_pieces_and_are_the_same_rows(batches):
    whole = next(seen.tables(batches, 9)).to_pylist()
    pieces = list(seen.tables(batches, 9, most=10))
    assert len(pieces) > 3
    assert max(len(piece) for piece in pieces) < 40
    assert [row for piece in pieces for row in piece.to_pylist()] == whole
