"""Words of a part: counts that add up to what the texts hold."""

import re
from collections import Counter

import pyarrow as pa

from lib.store.schemas import WORDS
from lib.text.counting import word_counts
from lib.text.words import stem
from tests import tiny

ODD = ["", "123 !", "Tom's café: TOM\u2019s dog-cat.\n\nDogs dog DOGS", "cry cried cries, cry"]


def counted(texts: list[str], splits: list[str]) -> pa.Table:
    return word_counts(pa.chunked_array([texts[:2], texts[2:]], pa.string()), pa.chunked_array([splits], pa.string()))


def test_every_count_is_that_of_a_plain_loop():
    texts = tiny.stories()["text"].to_pylist() + ODD
    splits = ["val" if n % 3 == 0 else "train" for n in range(len(texts))]
    rows = {(row["split"], row["word"]): row for row in counted(texts, splits).to_pylist()}
    uses, stories, stems = Counter(), Counter(), Counter()
    for text, side in zip(texts, splits, strict=True):
        words = re.findall("[a-z]+", text.lower())
        uses.update((side, word) for word in words)
        stories.update((side, word) for word in set(words))
        stems.update((side, root) for root in {stem(word) for word in words})
    assert {key: (row["uses"], row["stories"]) for key, row in rows.items()} == {k: (uses[k], stories[k]) for k in uses}
    summed = Counter()
    for (side, word), row in rows.items():
        assert row["stem"] == stem(word)
        summed[side, row["stem"]] += row["stem_stories"]
    assert summed == stems


def test_no_stories_and_no_words_are_no_rows():
    assert counted([], []).schema == WORDS
    assert counted(["", "1 2"], ["train", "val"]).num_rows == 0
