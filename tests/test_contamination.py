"""The gate finds every copy with 5 % of its words exchanged, and leaves alone what stories share by chance."""

import random

import pyarrow as pa
import pytest

from lib.text.contamination import SHORTEST, Found, Gate, Runs, _longest_run
from lib.text.ngrams import Reader
from lib.text.openings import OPENINGS
from lib.text.storyteller.story import tell
from lib.text.storyteller.wish import wish_of

Texts = list[str | None]


def rows(texts: Texts, summaries: Texts | None = None, side: str = "val", tasks: list[tuple] = ()) -> pa.Table:
    nothing = [None] * len(texts)
    columns = {"text": texts, "summary": summaries or nothing, "split": [side] * len(texts)}
    instructions, inputs = zip(*tasks, strict=True) if tasks else (nothing, nothing)
    columns |= {"instruction": list(instructions), "input": list(inputs)}
    return pa.table(columns, pa.schema({name: pa.string() for name in columns}))


def told(numbers: range) -> pa.Table:
    made = [tell(wish_of([], n), n) for n in numbers]
    return rows([each.story for each in made], [each.summary for each in made])


def exchanged(words: list[str], places: list[int]) -> str:
    return " ".join(f"other{at}" if at in set(places) else word for at, word in enumerate(words))


def places_of(kind: str, count: int, length: int, dice: random.Random) -> list[int]:
    if kind == "evenly":  # the longest run that stays is as short as it can be
        return [(at + 1) * length // (count + 1) for at in range(count)]
    start = dice.randrange(length - count + 1)
    return dice.sample(range(length), count) if kind == "anywhere" else list(range(start, start + count))


def checked(held_out: pa.Table, train: pa.Table, **prompts: tuple[str, ...]) -> list[Found]:
    return list(Gate(held_out, prompts).check(train))


@pytest.mark.parametrize("kind", ["evenly", "anywhere", "together"])
def test_no_choice_of_5_percent_of_the_words_hides_a_copy_of_any_length(kind):
    dice = random.Random(kind)
    lengths = range(SHORTEST, 420)
    texts = [[f"word{n}of{length}" for n in range(length)] for length in lengths]
    places = [places_of(kind, int(0.05 * length + 0.5), length, dice) for length in lengths]
    copies = [exchanged(text, changed) for text, changed in zip(texts, places, strict=True)]
    found = checked(rows([" ".join(text) for text in texts]), rows(copies))
    assert sorted((hit.row, hit.other, hit.why) for hit in found) == [(n, n, "copy") for n in range(len(texts))]


@pytest.mark.parametrize("seed", range(5))
def test_planted_copies_of_stories_are_found_and_no_other_story_is(seed):
    held_out, dice = told(range(1000 * seed, 1000 * seed + 60)), random.Random(seed)
    others = told(range(1000 * seed + 60, 1000 * seed + 360))["text"].to_pylist()
    copies = []
    for text in held_out["text"].to_pylist():
        words = text.split()
        for at in dice.sample(range(len(words)), int(0.05 * len(words) + 0.5)):
            words[at] = dice.choice(others).split()[0]
        copies.append(" ".join(words).upper())
    found = checked(held_out, rows(others + copies))
    assert sorted((hit.row - len(others), hit.other) for hit in found) == [(n, n) for n in range(60)]
    assert {(hit.against, hit.why) for hit in found} == {("val", "copy")}


def test_left_out_and_added_words_hide_no_copy():
    words = [f"w{n}" for n in range(200)]
    shorter = [word for n, word in enumerate(words) if n % 20 != 7]
    longer = [each for n, word in enumerate(words) for each in ([word, "so"] if n % 20 == 7 else [word])]
    found = checked(rows([" ".join(words)]), rows([" ".join(shorter), " ".join(longer)]))
    assert [(hit.row, hit.why) for hit in found] == [(0, "copy"), (1, "copy")]


def test_a_held_out_story_inside_a_longer_one_is_found():
    inside = " ".join(f"w{n}" for n in range(60))
    before, after = (" ".join(f"{side}{n}" for n in range(500)) for side in ("before", "after"))
    (found,) = checked(rows([inside], side="test"), rows([f"{before} {inside} {after}"]))
    assert found == Found(0, "test", 0, "copy", 1.0, inside)


def test_half_of_a_story_word_for_word_is_found_and_less_is_not():
    words = [f"w{n}" for n in range(100)]  # 88 runs of 13 words

    def share(count: int) -> list[Found]:
        return checked(rows([" ".join(words)]), rows([" ".join(words[:count] + [f"x{n}" for n in range(100)])]))

    assert [(hit.why, hit.share) for hit in share(56)] == [("part", 0.5)]
    assert share(55) == []


def test_rows_keep_their_place_beyond_the_first_batch(monkeypatch):
    monkeypatch.setattr("lib.text.contamination.ROWS_AT_ONCE", 7)
    held_out = told(range(3))
    others = told(range(10, 40))["text"].to_pylist()
    others[25] = held_out["text"][2].as_py()
    assert [(hit.row, hit.other) for hit in checked(held_out, rows(others))] == [(25, 2)]


def test_an_instruction_with_one_word_exchanged_is_found():
    asked = "a story about a kind bunny named Rolo who fights over a silly game, must go to a zoo and is brave"
    other = asked.replace("silly", "funny")
    (found,) = checked(rows(["x"], [asked]), rows(["y"], [other]))
    assert (found.against, found.other, found.why) == ("instruction", 0, "copy")
    assert found.shared == "Write a story about a kind bunny named Rolo who fights over a"


def test_a_short_instruction_in_common_is_chance():
    assert checked(rows(["x"], ["a story about two friends"]), rows(["y"], ["a story about two friends"])) == []


SENTIMENT = "Classify this sentence as happy, sad or angry, and answer with one word and nothing else in lower case:"
SUM = ("What is this?", "3 + 4")


def test_a_task_that_asks_what_a_held_out_task_asks_is_found_whatever_it_answers():
    held_out = rows(["Seven.", "blue"], tasks=[SUM, ("Name a colour.", None)], side="test")
    train = rows(["A 7", "no", "red"], tasks=[("what is  this", '"3 + 4"'), ("y", "z"), ("Name a Colour!", "")])
    found = checked(held_out, train)
    assert [(hit.row, hit.against, hit.other, hit.why, hit.share) for hit in found] == [
        (0, "test", 0, "asked", 1.0),
        (2, "test", 1, "asked", 1.0),
    ]
    assert found[1].shared == "Name a Colour!"


def test_every_held_out_task_that_asks_the_same_is_named():
    assert [hit.other for hit in checked(rows(["a", "b"], tasks=[SUM, SUM]), rows(["c"], tasks=[SUM]))] == [0, 1]


def test_tasks_may_share_an_instruction_or_an_answer_and_differ_in_a_sign():
    held_out = rows(["sad", "Yes.", "7"], tasks=[(SENTIMENT, "The cat died."), ("Is snow white?", None), SUM])
    train = rows(
        ["sad", "Yes.", "12"], tasks=[(SENTIMENT, "The dog died."), ("Is coal black?", None), (SUM[0], "3 * 4")]
    )
    assert checked(held_out, train) == []


def test_a_task_that_asks_a_prompt_is_found_and_one_that_tells_a_held_out_story_too():
    told = " ".join(f"w{n}" for n in range(40))
    train = rows(["y", told], tasks=[("Write a story about a Troll", ""), ("Tell me something.", None)])
    found = checked(rows([told]), train, reward=("Write a story about a troll.",))
    assert [(hit.row, hit.against, hit.why) for hit in found] == [(1, "val", "copy"), (0, "reward", "asked")]


def test_any_13_words_of_a_prompt_are_found_in_text_and_instruction():
    prompt = "Write a story about a troll who keeps a red bridge in the cold far north"
    thirteen = "A STORY about: a troll who keeps a red bridge in the, cold!"
    found = checked(rows(["x"]), rows([f"Once {thirteen}", "y"], [None, thirteen]), reward=(prompt,))
    assert [(hit.row, hit.against, hit.why) for hit in found] == [(0, "reward", "run"), (1, "reward", "run")]
    assert checked(rows(["x"]), rows([thirteen.replace("cold", "dark")]), reward=(prompt,)) == []


def test_a_long_prompt_with_a_word_exchanged_everywhere_it_hurts_is_found():
    prompt = "write a story about the old grey troll who keeps a red stone bridge in the cold dark far north"
    text = prompt.replace("keeps", "kept")  # 9 words before it, 10 behind it
    (found,) = checked(rows(["x"]), rows([text]), evaluation=(prompt,))
    assert (found.against, found.why, found.other) == ("evaluation", "copy", 0)


def test_a_row_that_is_asked_a_prompt_is_found_however_short_it_is():
    (found,) = checked(rows(["x"]), rows(["y"], ["a story about a Troll."]), reward=("Write a story about a troll",))
    assert (found.against, found.why, found.share) == ("reward", "asked", 1.0)


def test_stories_may_open_as_the_openings_do():
    texts = [f"{opening} Then the day was over and all went home." for opening in OPENINGS]
    assert {OPENINGS[hit.other] for hit in checked(rows(["x"]), rows(texts), evaluation=OPENINGS)} == {OPENINGS[3]}


def test_nothing_held_out_and_nothing_to_check_is_no_error():
    assert checked(rows([]), rows(["a b c"]), reward=()) == []
    assert checked(rows(["a b c"]), rows([]), reward=("a b",)) == []
    assert checked(rows([""]), rows([""], [" "]), reward=("", "!")) == []


def test_words_are_letters_and_digits_in_any_language():
    reader = Reader()
    texts = pa.array(["Él dijo: «sí», 3 veces!", "él DIJO sí 3 — veces", None, "…"])
    words = reader.words(texts)
    assert words.lengths.tolist() == [5, 5, 0, 0]
    assert words.whole()[0] == words.whole()[1]


def test_a_run_has_the_same_number_wherever_it_stands():
    words = Reader().words(pa.array(["a b c d", "x a b c", "c b a x a b c"]))
    runs, texts = words.ngrams(3)
    assert texts.tolist() == [0, 0, 1, 1, 2, 2, 2, 2, 2]
    assert runs[0] == runs[3] == runs[8] and len(set(runs.tolist())) == 6


def test_words_are_numbered_alike_after_the_memory_was_emptied(monkeypatch):
    texts = pa.array(["one two three four five"])
    before = Reader().words(texts).whole()
    monkeypatch.setattr("lib.text.ngrams.MAX_CACHED", 2)
    assert (Reader().words(texts).whole() == before).all()


def test_the_longest_run_is_spelt_as_in_the_training_row():
    assert _longest_run("So, One Day the cat SAT!", "one day, the cat sat there") == "One Day the cat SAT!"


def test_runs_of_prompts_without_thirteen_words_find_nothing():
    reader = Reader()
    runs = Runs(reader.words(pa.array(["Once upon a time"])))
    assert list(runs.found(reader.words(pa.array(["Once upon a time there was a cat and a dog and a bird"])))) == []
