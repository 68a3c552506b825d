"""Tokens: every span of every shard is exactly its story."""

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from lib.stages.tokens import STAGE, TokensConfig, tokens
from lib.store import Dataset, build
from lib.text.template import LAYOUTS, instruction
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


def made(table: pa.Table, pieces: Dataset, layout: str, part_rows: int = 13) -> Dataset:
    inputs = {"stories": split_rows(table, part_rows), "tokenizer": pieces}
    return build(STAGE, TokensConfig(layout=layout), inputs, tokens)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_span_decodes_to_its_story(pieces, layout):
    table = hostile_stories()
    dataset, tokenizer = made(table, pieces, layout), Tokenizer.load(pieces.file("tokenizer.model"))
    stories = {row["story_id"]: row for row in table.to_pylist()}
    seen = 0
    for row in dataset.table().to_pylist():
        shard = np.fromfile(dataset.file(f"tokens-{row['shard']:05d}.bin"), dataset.facts["dtype"])
        ids = shard[row["offset"] : row["offset"] + row["length"]].tolist()
        story, at = stories[row["story_id"]], row["prompt_length"]
        assert ids[at] == tokenizer.bos_id and ids[-1] == tokenizer.eos_id
        assert tokenizer.decode(ids[at + 1 : -1]) == story["text"]
        assert tokenizer.decode(ids[:at]) == (instruction(story["summary"]) if LAYOUTS[layout].has_prompt else "")
        assert (row["text_bytes"], row["split"], row["layout"]) == (len(story["text"].encode()), story["split"], layout)
        seen += row["length"]
    files = [name for name in dataset.manifest["files"] if name.endswith(".bin")]
    assert seen == sum(dataset.file(name).stat().st_size // 2 for name in files)  # nothing lies between the stories
    assert sum(dataset.facts["tokens"].values()) == seen


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
    with pytest.raises(ValidationError, match="expected one of pretrain, natural"):
        TokensConfig(layout="alpacca")
