"""Ingest reads what people have, streams it, and says in words what it cannot read."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from lib.errors import UserError
from lib.stages.ingest import STAGE, IngestConfig, external, ingest
from lib.store import Dataset, build
from lib.text import sources


def ingested(path, **config) -> Dataset:
    asked = IngestConfig(path=str(path), **config)
    return build(STAGE, asked, {}, ingest, external=external(asked))


def rows(path, **config) -> list[dict]:
    return ingested(path, **config).table().to_pylist()


def jsonl(path, *records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_jsonl_with_every_field(tmp_path):
    full = {
        "id": 7,
        "story": "A cat.",
        "summary": "S",
        "source": "gpt",
        "verb": "sit",
        "features": ["dialogue"],
        "model": "m",
    }
    row = rows(jsonl(tmp_path / "a.jsonl", {"text": "A hen."}, full))
    assert [r["text"] for r in row] == ["A hen.", "A cat."]
    assert row[0]["source"] == "a.jsonl" and row[0]["summary"] is None and row[0]["features"] == []
    assert [row[1][k] for k in ("summary", "source", "verb", "features", "model")] == [
        "S",
        "gpt",
        "sit",
        ["dialogue"],
        "m",
    ]


def test_the_words_and_features_of_tinystories_are_kept(tmp_path):
    asked = {"prompt:": "Write …", "words": ["quit", "oak", "gloomy"], "features": ["Twist"]}
    row = rows(
        jsonl(tmp_path / "a.jsonl", {"story": "A cat.", "instruction": asked, "summary": "S", "source": "GPT-4"})
    )[0]
    assert [row[k] for k in ("verb", "noun", "adjective", "features")] == ["quit", "oak", "gloomy", ["Twist"]]


def test_text_with_end_marks_across_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "BLOCK", 5)
    path = tmp_path / "a.txt"
    path.write_text("Ünë cat.\nSat.\n<|endoftext|>\n\n<|endoftext|>A hen.<|endoftext|>The last")
    assert [row["text"].strip() for row in rows(path)] == ["Ünë cat.\nSat.", "A hen.", "The last"]


def test_parquet(tmp_path):
    pq.write_table(pa.table({"text": ["A cat.", "A hen."], "n": [1, 2]}), tmp_path / "a.parquet")
    assert [row["text"] for row in rows(tmp_path / "a.parquet")] == ["A cat.", "A hen."]


def test_a_dataset_through_hugging_face(tmp_path):
    (tmp_path / "set").mkdir()
    jsonl(tmp_path / "set" / "train.jsonl", {"text": "A cat."}, {"text": "A hen."})
    made = rows(f"hf:{tmp_path / 'set'}")
    assert [row["text"] for row in made] == ["A cat.", "A hen."]


def test_held_out_text_comes_first_and_is_val(tmp_path):
    train, val = (
        jsonl(tmp_path / "t.jsonl", *[{"text": f"t{n}"} for n in range(5)]),
        jsonl(tmp_path / "v.jsonl", {"text": "v"}),
    )
    made = ingested(train, heldout=str(val), limit=3, part_rows=2)
    assert [(row["text"], row["given_split"]) for row in made.table().to_pylist()] == [
        ("v", "val"),
        ("t0", None),
        ("t1", None),
        ("t2", None),
    ]
    assert [part.rows for part in made.parts()] == [2, 2] and made.manifest["counts"]["rows_out"] == 4


def test_ids_are_unique_and_do_not_depend_on_the_place(tmp_path):
    first = rows(
        jsonl(
            tmp_path / "a.jsonl", {"text": "A"}, {"text": "B"}, {"text": "A"}, {"text": "A", "id": "x"}, {"text": "A"}
        )
    )
    ids = [row["story_id"] for row in first]
    assert len(set(ids)) == 5
    assert ids[2] == ids[0] + "-2" and ids[4] == ids[0] + "-3" and "-" not in ids[3]
    later = rows(jsonl(tmp_path / "b.jsonl", {"text": "new"}, {"text": "B"}, {"text": "A"}))
    assert [row["story_id"] for row in later[1:]] == [ids[1], ids[0]]


def test_changed_content_is_another_dataset_and_equal_content_the_same(tmp_path):
    path = jsonl(tmp_path / "a.jsonl", {"text": "A"})
    before = ingested(path)
    path.touch()
    assert ingested(path) == before
    jsonl(path, {"text": "B"})
    assert ingested(path).name != before.name


def test_half_a_surrogate_pair_does_not_stop_the_run(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "A \\ud800 cat."}\n')
    assert rows(tmp_path / "a.jsonl")[0]["text"] == "A \ufffd cat."


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.jsonl", None, "found no file"),
        ("a.jsonl", b"", "found an empty file"),
        ("a.jsonl", b"\n \n", "found no story in"),
        ("a.doc", b"x", r"expected a name that ends in \.jsonl, \.json, \.txt, \.parquet, or hf:"),
        ("a.jsonl", b'{"text": "A"}\n{"text": \n', "found no JSON in .*line 2"),
        ("a.jsonl", b'{"text": "A"}\n\n[1]\n', "found list in .*line 3"),
        ("a.jsonl", b'{"body": "A"}\n', r"found a record with \['body'\] in .*line 1"),
        ("a.jsonl", b'{"text": 3}\n', "found text = 3 in .*line 1, expected text"),
        ("a.jsonl", b'{"text": "A", "given_split": "dev"}\n', "found given_split 'dev' in .*line 1"),
        ("a.jsonl", b'{"text": "\xff"}\n', "found no JSON in .*line 1"),
        ("a.txt", b"no marks at all", r"found 0 <\|endoftext\|>"),
        ("a.txt", b"A<|endoftext|>\xff\xfe<|endoftext|>", "not UTF-8 in .*story 2"),
        ("a.parquet", b"PAR1 not really", "found a damaged Parquet file"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        rows(tmp_path / name)


def test_a_dataset_that_is_not_there_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match="found no dataset"):
        rows(f"hf:{tmp_path / 'nothing'}")
    with pytest.raises(UserError, match="expected hf:DATASET"):
        rows("hf:")


def test_impossible_values_are_refused():
    with pytest.raises(ValidationError):
        IngestConfig(path="a.jsonl", limit=0)
    with pytest.raises(ValidationError):
        IngestConfig(path="a.jsonl", format="x")
