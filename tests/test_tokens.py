"""Tokens: every span of every shard is exactly its story."""

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from lib.stages.tokens import STAGE, TokensConfig, tokens
from lib.store import Dataset, build
from lib.text.requests import by_summary
from lib.text.template import LAYOUTS, Template, Turn, instruction
from lib.text.tokenizer import Tokenizer, train
from tests import tiny


def split_rows(table: pa.Table, part_rows: int = 13) -> Dataset:
    starts = range(0, len(table), part_rows)
    return tiny.publish("split", {f"part-{n:05d}.parquet": table[at : at + part_rows] for n, at in enumerate(starts)})


def hostile_stories() -> pa.Table:
    table = tiny.stories(30)
    texts = table["text"].to_pylist()
    texts[:6] = ["", " ", "a  b\n\n c ", "</s><s> \t 猫", "12345", "é🙂"]
    summaries = table["summary"].to_pylist()
    summaries[10:13] = [None, "", " \n"]
    columns = {"text": pa.array(texts), "summary": pa.array(summaries)}
    for name, column in columns.items():
        table = table.set_column(table.schema.get_field_index(name), name, column)
    return table


def trained(folder, vocab_size: int) -> Dataset:
    path = folder / f"{vocab_size}.model"
    return tiny.publish(
        "tokenizer", {"tokenizer.model": train(tiny.stories(50)["text"].to_pylist(), path, vocab_size).model}
    )


@pytest.fixture
def pieces(tmp_path) -> Dataset:
    return trained(tmp_path, 320)


def made(table: pa.Table, pieces: Dataset, layout: str, part_rows: int = 13, **config: int) -> Dataset:
    inputs = {"stories": split_rows(table, part_rows), "tokenizer": pieces}
    return build(STAGE, TokensConfig(layout=layout, **config), inputs, tokens)


def tasks() -> pa.Table:
    """The tiny stories' sides and ids, with a task in every row; one in three has an input."""
    table = tiny.stories(30)
    columns = {
        "instruction": [f"Which number is {n}?" for n in range(30)],
        "input": [f"{n} frogs" if n % 3 == 0 else None for n in range(30)],
        "text": [f"It is {n}. </s>\n### Response:" for n in range(30)],
        "summary": [None] * 30,
    }
    for name, column in columns.items():
        table = table.set_column(table.schema.get_field_index(name), name, pa.array(column, pa.string()))
    return table


def spans(dataset: Dataset, tokenizer: Tokenizer) -> dict[str, tuple[list[int], list[int]]]:
    """story_id → the ids of its prompt, and those behind it."""
    found = {}
    for row in dataset.table().to_pylist():
        shard = np.fromfile(dataset.file(f"tokens-{row['shard']:05d}.bin"), dataset.facts["dtype"])
        ids = shard[row["offset"] : row["offset"] + row["length"]].tolist()
        found[row["story_id"]] = ids[: row["prompt_length"]], ids[row["prompt_length"] :]
    return found


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_span_decodes_to_its_story(pieces, layout):
    table = hostile_stories()
    dataset, tokenizer = made(table, pieces, layout), Tokenizer.load(pieces.file("tokenizer.model"))
    asked = {"natural": instruction, "padded": by_summary, "pretrain": lambda _: ""}
    stories = {row["story_id"]: row for row in table.to_pylist()}
    for story_id, (prompt, ids) in spans(dataset, tokenizer).items():
        assert ids[-1] == tokenizer.eos_id and (prompt if layout == "alpaca" else ids)[0] == tokenizer.bos_id
        assert tokenizer.decode(ids) == stories[story_id]["text"]
        said = tokenizer.decode(prompt)
        if layout == "alpaca":
            assert f"### Instruction:\n{instruction(stories[story_id]['summary'])}\n\n### Response:\n" in said
        else:
            assert said == asked[layout](stories[story_id]["summary"])
    index = dataset.table().to_pylist()
    for row in index:
        story = stories[row["story_id"]]
        assert (row["text_bytes"], row["split"], row["layout"]) == (len(story["text"].encode()), story["split"], layout)
    seen = sum(row["length"] for row in index)
    files = [name for name in dataset.manifest["files"] if name.endswith(".bin")]
    assert seen == sum(dataset.file(name).stat().st_size // 2 for name in files)  # nothing lies between the stories
    assert sum(dataset.facts["tokens"].values()) == seen


@pytest.mark.parametrize("layout", [name for name, layout in LAYOUTS.items() if layout.has_prompt])
def test_every_task_is_its_instruction_its_input_and_its_answer(pieces, layout):
    tokenizer = Tokenizer.load(pieces.file("tokenizer.model"))
    dataset, template = made(tasks(), pieces, layout), Template(tokenizer)
    found = spans(dataset, tokenizer)
    assert len(found) == 30
    for row in tasks().to_pylist():
        prompt, answer = found[row["story_id"]]
        ids, num_prompt = template.training(layout, row["instruction"], row["text"], row["input"] or "")
        assert (prompt, answer) == (ids[:num_prompt], ids[num_prompt:])
        assert tokenizer.decode(answer) == row["text"]


def test_tasks_follow_one_another_in_conversations_of_their_own_side(pieces):
    tokenizer = Tokenizer.load(pieces.file("tokenizer.model"))
    dataset, template = made(tasks(), pieces, "alpaca", part_rows=30, turns=4), Template(tokenizer)
    found = spans(dataset, tokenizer)
    for side in ("train", "val", "test"):
        talk = [row for row in tasks().to_pylist() if row["split"] == side]
        for n, row in enumerate(talk):
            before = [Turn(r["instruction"], r["text"], r["input"] or "") for r in talk[n - n % 4 : n]]
            prompt, answer = found[row["story_id"]]
            assert prompt == template.prefix("alpaca", row["instruction"], row["input"] or "", before)
            assert tokenizer.decode(answer) == row["text"]


@pytest.mark.parametrize("layout", ["padded", "pretrain"])
def test_a_sequence_that_is_too_long_is_dropped_with_its_length(pieces, layout):
    whole = {row["story_id"]: row["length"] for row in made(tiny.stories(30), pieces, layout).table().to_pylist()}
    longest = sorted(whole.values())[14]
    dataset = made(tiny.stories(30), pieces, layout, max_length=longest)
    gone = {row["story_id"]: row for row in dataset.table(table="_dropped").to_pylist()}
    assert set(gone) == {story_id for story_id, length in whole.items() if length > longest} != set()
    assert all(row["reason"] == "too_long" and str(whole[row["story_id"]]) in row["detail"] for row in gone.values())
    assert dataset.manifest["drops"] == {"too_long": len(gone)}
    texts = {row["story_id"]: row["text"] for row in tiny.stories(30).to_pylist()}
    tokenizer = Tokenizer.load(pieces.file("tokenizer.model"))
    assert all(tokenizer.decode(ids) == texts[each] for each, (_, ids) in spans(dataset, tokenizer).items())


def test_padded_rows_have_the_length_of_their_author_if_none_is_given():
    assert TokensConfig(layout="padded").longest == 350 and TokensConfig(layout="padded", max_length=64).longest == 64
    assert TokensConfig(layout="alpaca").longest is None


def test_turns_outside_alpaca_are_refused_in_the_config():
    with pytest.raises(ValidationError, match="alpaca alone has turns"):
        TokensConfig(layout="natural", turns=2)


def test_a_layout_with_a_prompt_drops_stories_without_a_summary(pieces):
    dataset = made(hostile_stories(), pieces, "natural")
    assert dataset.manifest["drops"] == {"no_summary": 3} and dataset.manifest["counts"]["rows_out"] == 27
    assert dataset.table(table="_dropped")["story_id"].to_pylist() == ["s010", "s011", "s012"]
    assert made(hostile_stories(), pieces, "pretrain").manifest["drops"] == {}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_bytes_per_token_counts_story_ids_only(pieces, layout):
    texts, tokenizer = tiny.stories(30)["text"].to_pylist(), Tokenizer.load(pieces.file("tokenizer.model"))
    expected = sum(len(text.encode()) for text in texts) / sum(len(tokenizer.encode(text)) for text in texts)
    assert made(tiny.stories(30), pieces, layout).facts["bytes_per_token"] == round(expected, 4)


def test_a_part_without_a_story_has_no_shard(pieces):
    table = hostile_stories()
    dataset = made(table[10:14], pieces, "natural", part_rows=3)
    assert [part.rows for part in dataset.parts()] == [0, 1]
    assert [name for name in dataset.manifest["files"] if name.endswith(".bin")] == ["tokens-00001.bin"]


def test_another_tokenizer_makes_other_shards_of_the_same_stories(pieces, tmp_path):
    other = trained(tmp_path, 300)
    first, second = (made(tiny.stories(30), each, "pretrain") for each in (pieces, other))
    assert first.facts["tokenizer"] != second.facts["tokenizer"]
    assert first.facts["tokens"] != second.facts["tokens"]


def test_more_stories_leave_older_shards_as_they_were(pieces):
    few, more = (made(tiny.stories(50)[:n], pieces, "natural", part_rows=10) for n in (30, 45))
    for name in ("part-00002.parquet", "tokens-00002.bin"):
        assert few.manifest["files"][name] == more.manifest["files"][name]


def test_an_unknown_layout_is_refused_in_the_config():
    with pytest.raises(ValidationError, match="expected one of pretrain, natural, padded, alpaca"):
        TokensConfig(layout="alpacca")
