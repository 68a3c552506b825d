"""The tokenizer loses nothing, cannot be fooled by text, and its column path gives SentencePiece's own ids."""

import json
import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lib.errors import UserError
from lib.stages import tokenizer as stage
from lib.store import build
from lib.text.pieces import opened
from lib.text.tokenizer import BLANK, Tokenizer, train
from tests import tiny

HOSTILE = [
    "",
    " ",
    "  ",
    "a  b",
    " a",
    "a ",
    "\n",
    "\n\n",
    "a\n b",
    "a \nb",
    "\t",
    "a\tb",
    "<s>",
    "</s> a <s> <unk>",
    "<0x0A>",
]
HOSTILE += [
    "日本語 x",
    "é e\u0301",
    "\x00",
    "a\x00b",
    "\x01 \x7f",
    "🙂 🙂",
    "12345 6",
    "\u00a0a\u00a0 b",
    "\u3000",
    "\r\n a",
]
REAL = Path(__file__).parents[2] / "shared/data/tinystories/valid.jsonl"


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Tokenizer:
    texts = tiny.stories(60)["text"].to_pylist()
    return train([*texts, *tiny.NUMBERS], tmp_path_factory.mktemp("tokenizer") / "tokenizer.model", 340)


@pytest.fixture(scope="module")
def unigram(tmp_path_factory) -> Tokenizer:
    texts = tiny.stories(60)["text"].to_pylist()
    return train([*texts, *tiny.NUMBERS], tmp_path_factory.mktemp("unigram") / "tokenizer.model", 340, "unigram")


def assert_column_is_exact(tokenizer: Tokenizer, texts: list[str], column: pa.Array | pa.ChunkedArray) -> None:
    ids, offsets = tokenizer.encode_column(column)
    assert len(offsets) == len(texts) + 1 and offsets[-1] == len(ids) and ids.dtype == tokenizer.dtype
    for n, text in enumerate(texts):
        assert ids[offsets[n] : offsets[n + 1]].tolist() == tokenizer.encode(text), repr(text)


@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_is_lost(trained, text):
    assert trained.decode(trained.encode(text)) == text


def test_a_column_has_the_ids_of_its_rows(trained):
    texts = tiny.stories(60)["text"].to_pylist() + HOSTILE + [BLANK, f"a{BLANK}b {BLANK}c"]
    assert_column_is_exact(trained, texts, pa.array(texts))
    assert_column_is_exact(trained, texts, pa.chunked_array([pa.array(texts[:7]), pa.array(texts[7:])]))
    assert_column_is_exact(trained, texts, pa.array(["cut", *texts])[1:])
    assert_column_is_exact(trained, [], pa.array([], pa.string()))


def test_a_unigram_vocabulary_loses_nothing_and_its_columns_have_the_ids_of_their_rows(unigram, trained):
    texts = tiny.stories(60)["text"].to_pylist() * 20 + HOSTILE + [f"a{BLANK}b"]  # more than one block of rows
    assert_column_is_exact(unigram, texts, pa.array(texts))
    assert_column_is_exact(unigram, [], pa.array([], pa.string()))
    assert all(unigram.decode(unigram.encode(text)) == text for text in HOSTILE)
    assert unigram.pieces() != trained.pieces() and (unigram.bos_id, unigram.eos_id) == (1, 2)
    assert not {0, 1, 2} & set(unigram.encode("<s></s><unk> 猫 \x02"))


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(st.sampled_from("ab. \n\t<>/s1é🙂" + BLANK), max_size=20) | st.text(max_size=10), max_size=6))
def test_any_column_has_the_ids_of_its_rows(trained, texts):
    assert_column_is_exact(trained, texts, pa.array(texts, pa.string()))
    assert all(trained.decode(trained.encode(text)) == text for text in texts if BLANK not in text)


def test_pieces_of_blanks_alone_do_not_join_chunks(tmp_path):
    spaced = train(["ab    cd  ef" * 9, "gh  ij    kl" * 9], tmp_path / "m", 290)
    assert BLANK * 2 in spaced.pieces()["piece"].to_pylist()
    texts = [f"ab{BLANK} cd", f"ab {BLANK}{BLANK} cd", f"{BLANK} ab", "ab  cd", "ab   cd ", "ab cd"]
    assert_column_is_exact(spaced, texts, pa.array(texts))


def test_the_chunk_cache_may_be_emptied_at_any_time(trained, monkeypatch):
    monkeypatch.setattr("lib.text.tokenizer.MAX_CACHED_CHUNKS", 3)
    for _ in range(3):
        texts = random.Random(5).sample(tiny.stories(60)["text"].to_pylist(), 5)
        assert_column_is_exact(trained, texts, pa.array(texts))


def test_text_never_becomes_a_control_piece(trained):
    assert not {trained.bos_id, trained.eos_id, trained.unk_id} & set(trained.encode("<s></s><unk> 猫 \x02"))


def test_two_trainings_give_the_same_bytes(tmp_path):
    texts = tiny.stories(40)["text"].to_pylist()
    assert train(texts, tmp_path / "a", 320).model == train(iter(texts), tmp_path / "b", 320).model


def test_a_vocabulary_that_the_text_cannot_fill_names_the_largest_that_fits(tmp_path):
    texts = tiny.stories(20)["text"].to_pylist()
    with pytest.raises(UserError, match=r"at most (\d+) pieces, expected 30000") as caught:
        train(texts, tmp_path / "m", 30_000)
    largest = int(str(caught.value).split("at most ")[1].split()[0])
    assert train(texts, tmp_path / "m", largest).vocab_size == largest


def test_a_vocabulary_smaller_than_the_alphabet_says_how_many_it_needs(tmp_path):
    with pytest.raises(UserError, match="need 2[6-9][0-9] pieces, expected at most 262"):
        train(tiny.stories(5)["text"].to_pylist(), tmp_path / "m", 262)


@pytest.mark.parametrize("texts", [[], ["", " \n"]])
def test_no_text_is_said_in_words(tmp_path, texts):
    with pytest.raises(UserError, match="found no text"):
        train(texts, tmp_path / "m", 300)


def test_ids_above_65535_get_four_bytes(trained, monkeypatch):
    large = Tokenizer(trained.model)
    assert large.dtype == np.uint16
    monkeypatch.setattr(large, "vocab_size", (1 << 16) + 1)
    assert large.dtype == np.uint32


def test_what_is_no_model_is_refused(tmp_path):
    (tmp_path / "x.model").write_bytes(b"not a model")
    with pytest.raises(UserError, match="not a SentencePiece model"):
        Tokenizer.load(tmp_path / "x.model")
    with pytest.raises(UserError, match="found no tokenizer at"):
        Tokenizer.load(tmp_path / "y.model")


def test_the_stage_learns_from_train_rows_only_and_measures_val_rows():
    table = tiny.stories(60)
    rows = zip(table["text"].to_pylist(), table["split"].to_pylist(), strict=True)
    secret = pa.array([text + " Zqxj zqxj!" if split == "val" else text for text, split in rows])
    stories = tiny.publish("split", {"part-00000.parquet": table.set_column(1, "text", secret)})
    made = build(stage.STAGE, stage.TokenizerConfig(vocab_size=330), {"stories": stories}, stage.tokenizer)
    pieces = made.table(table="pieces")
    assert not any("Z" in piece for piece in pieces["piece"].to_pylist())
    assert pieces["kind"].to_pylist()[:4] == ["unknown", "control", "control", "byte"] and len(pieces) == 330
    tokenizer = Tokenizer.load(made.file("tokenizer.model"))
    val = [text for text, split in zip(secret.to_pylist(), table["split"].to_pylist(), strict=True) if split == "val"]
    expected = sum(len(text.encode()) for text in val) / sum(len(tokenizer.encode(text)) for text in val)
    facts = {"bytes_per_token": round(expected, 4), "vocab_size": 330, "digest": tokenizer.digest}
    assert made.facts == facts | {"stories": 32}  # the largest power of two of 42 training stories


def test_the_stage_trains_the_kind_that_is_asked_for():
    stories = tiny.publish("split", {"part-00000.parquet": tiny.stories(60)})
    kinds = {
        kind: build(
            stage.STAGE, stage.TokenizerConfig(vocab_size=310, model_type=kind), {"stories": stories}, stage.tokenizer
        )
        for kind in ("bpe", "unigram")
    }
    by_chunks = {kind: opened(made.file("tokenizer.model").read_bytes()).by_chunks for kind, made in kinds.items()}
    assert by_chunks == {"bpe": True, "unigram": False}


def test_the_vocabulary_stays_until_the_corpus_has_doubled(tmp_path):
    def of(count: int, **config: int):
        stories = tiny.publish("split", {"part-00000.parquet": tiny.stories(count)})
        config = stage.TokenizerConfig(vocab_size=330, **config)
        return build(stage.STAGE, config, {"stories": stories}, stage.tokenizer)

    assert of(60).fingerprint == of(75).fingerprint != of(140).fingerprint
    assert of(140, most_stories=32).fingerprint == of(60).fingerprint
    assert of(140, most_stories=33).facts["stories"] == 33


@pytest.mark.skipif(not REAL.exists(), reason="no real stories on this machine")
def test_real_stories_have_the_ids_of_their_rows(trained):
    with REAL.open() as lines:
        texts = [json.loads(line)["text"] for line in lines][:100]
    assert_column_is_exact(trained, texts, pa.array(texts))
