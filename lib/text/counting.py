"""Word counts of a part: what coverage is summed up from, so that no question has to read all texts again.

In:   texts and the side of the split each is on
Out:  a table of word, stem, split, uses, stories, stem_stories, one row a word and side
A word is a run of the letters a to z in the lower-case text. Words of one stem (lib/text/words.py) are forms of one
another; `stem_stories` counts a story once per stem, at one of its forms, so that it sums to the stories that hold any.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lib.store import schemas
from lib.text.words import stem


def word_counts(texts: pa.ChunkedArray, splits: pa.ChunkedArray) -> pa.Table:
    """The counts of these stories, ordered by side and word."""
    spaced = pc.utf8_trim_whitespace(pc.replace_substring_regex(pc.utf8_lower(texts), r"[^a-z]+", " "))
    words = pc.utf8_split_whitespace(spaced.combine_chunks())
    flat = words.flatten().dictionary_encode()
    names = flat.dictionary.to_pylist()
    order = sorted(range(len(names)), key=names.__getitem__)
    rank = np.empty(len(names), np.int64)
    rank[order] = np.arange(len(names))
    word = rank[flat.indices.to_numpy(zero_copy_only=False)]
    story = np.repeat(np.arange(len(words)), pc.list_value_length(words).to_numpy(zero_copy_only=False))
    names = [names[n] for n in order]
    stems, stem_of = np.unique([stem(name) for name in names], return_inverse=True) if names else ([], np.empty(0, int))
    sides = splits.combine_chunks().dictionary_encode()
    side_of = sides.indices.to_numpy(zero_copy_only=False)
    letters = np.array([name != "" for name in names], bool)[word]  # a text without a letter is split into one ""
    tables = [
        _of_side(name, word[mine], story[mine], names, np.asarray(stems), stem_of)
        for name, side in sorted((name, side) for side, name in enumerate(sides.dictionary.to_pylist()))
        if (mine := letters & (side_of[story] == side)).any()
    ]
    return pa.concat_tables(tables) if tables else schemas.WORDS.empty_table()


def _of_side(
    side: str, word: np.ndarray, story: np.ndarray, names: list[str], stems: np.ndarray, stem_of: np.ndarray
) -> pa.Table:
    """One row for each word in these (word, story) pairs."""
    uses = np.bincount(word, minlength=len(names))
    pairs = np.unique(story * max(len(names), 1) + word)  # each word of a story once, forms of a stem not together
    story, word = np.divmod(pairs, max(len(names), 1))
    stories = np.bincount(word, minlength=len(names))
    _, first = np.unique(story * max(len(stems), 1) + stem_of[word], return_index=True)
    stem_stories = np.bincount(word[first], minlength=len(names))
    there = np.flatnonzero(uses)
    return pa.table(
        {
            "word": pa.array([names[n] for n in there], pa.string()),
            "stem": pa.array([str(stems[stem_of[n]]) for n in there], pa.string()),
            "split": pa.array([side] * len(there), pa.string()),
            "uses": pa.array(uses[there], pa.int64()),
            "stories": pa.array(stories[there], pa.int64()),
            "stem_stories": pa.array(stem_stories[there], pa.int64()),
        }
    )
