"""The store's promises: nothing half-written is read, damage is named, names follow content, parts are remembered."""

import json
import logging
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import duckdb
import pyarrow as pa
import pytest

from lib import store
from lib.errors import UserError
from lib.store import Config, Draft, PartResult, Stage, runtime

CLEAN = Stage("clean", 1)
INGEST = Stage("ingest", 1)


class Setting(Config):
    keep: int = 1
    workers: int = runtime(2)


def rows(*texts: str) -> pa.Table:
    blank = dict.fromkeys(store.schemas.RAW.names)
    return pa.Table.from_pylist(
        [blank | {"story_id": f"s{n}", "text": text, "source": "test"} for n, text in enumerate(texts)],
        schema=store.schemas.RAW,
    )


def make(*texts: str, part_rows: int = 2) -> store.Dataset:
    """A small ingest dataset of these stories."""

    def fill(draft, config):
        table = rows(*texts)
        for number, start in enumerate(range(0, len(texts), part_rows)):
            draft.write_table(f"part-{number:05d}.parquet", table.slice(start, part_rows))
        draft.count(rows_in=len(texts), rows_out=len(texts))

    return store.build(INGEST, Setting(), {}, fill, external={"texts": store.digest(list(texts))})


def test_a_finished_dataset_is_not_made_again():
    assert make("one", "two") == make("one", "two")
    calls = []
    store.build(CLEAN, Setting(), {}, lambda draft, config: calls.append(draft.write_text("a.txt", "a")))
    store.build(CLEAN, Setting(), {}, lambda draft, config: calls.append(draft.write_text("a.txt", "a")))
    assert len(calls) == 1


def test_runtime_fields_do_not_change_the_name_and_others_do():
    name = store.request_name(CLEAN, Setting(), {})
    assert store.request_name(CLEAN, Setting(workers=7), {}) == name
    assert store.request_name(CLEAN, Setting(keep=2), {}) != name
    assert store.request_name(Stage("clean", 2), Setting(), {}) != name


def test_equal_content_upstream_means_the_same_dataset_downstream():
    first = make("one", "two")
    store.delete(first.stage, first.name)
    again = make("one", "two")
    assert again.fingerprint == first.fingerprint
    assert store.request_name(CLEAN, Setting(), {"stories": first}) == store.request_name(
        CLEAN, Setting(), {"stories": again}
    )


def test_a_value_without_a_stable_identity_raises():
    with pytest.raises(TypeError, match="no stable identity"):
        store.digest({"a": {1, 2}})


def test_a_failed_attempt_publishes_nothing_and_leaves_its_draft():
    def fail(draft, config):
        draft.write_text("half.txt", "half")
        raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        store.build(CLEAN, Setting(), {}, fail)
    name = store.request_name(CLEAN, Setting(), {})
    assert store.find("clean", name) is None
    assert (store.root() / "clean" / f"_draft-{name}" / "half.txt").exists()

    made = store.build(CLEAN, Setting(), {}, lambda draft, config: draft.write_text("whole.txt", "whole"))
    assert sorted(made.manifest["files"]) == ["whole.txt"]
    assert not (made.path / "half.txt").exists(), "a killed attempt's leftovers must not be published"


def test_rows_must_close():
    def lose_one(draft, config):
        draft.count(rows_in=3, rows_out=1, drops={"too_short": 1})

    with pytest.raises(AssertionError, match="do not close"):
        store.build(CLEAN, Setting(), {}, lose_one)


def damage(path, how):
    data = bytearray(path.read_bytes())
    if how == "flip":
        data[len(data) // 2] ^= 4
    path.write_bytes(bytes(data if how == "flip" else data[:-10]))


@pytest.mark.parametrize("how", ["flip", "cut"])
@pytest.mark.parametrize("name", ["part-00000.parquet", "_manifest.json"])
def test_damage_is_named_and_rebuilt(how, name, caplog):
    first = make("one", "two", "three")
    damage(first.path / name, how)
    with pytest.raises(store.CorruptDataset, match=name):
        store.find(first.stage, first.name)
    with caplog.at_level(logging.WARNING):
        assert make("one", "two", "three") == first
    assert name in caplog.text
    assert store.find(first.stage, first.name) == first


def test_a_missing_file_is_damage_too():
    first = make("one")
    (first.path / "part-00000.parquet").unlink()
    with pytest.raises(store.CorruptDataset, match="missing"):
        first.table()


def test_measured_times_are_no_part_of_the_fingerprint():
    def fill(seconds):
        def write(draft, config):
            draft.write_text("a.txt", "a")
            draft.write_text("_record/seconds.txt", seconds)

        return write

    first = store.build(CLEAN, Setting(), {}, fill("1"))
    store.delete(first.stage, first.name)
    assert store.build(CLEAN, Setting(), {}, fill("2")) == first


def upper(seen):
    def work(table, number):
        seen.append(number)
        kept = table.append_column("words", pa.array([1] * len(table), pa.int32()))
        kept = kept.append_column("chars", pa.array([1] * len(table), pa.int32()))
        return PartResult({f"part-{number:05d}.parquet": kept}, len(table), len(table))

    return work


def cleaned(source, seen):
    return store.build(
        CLEAN,
        Setting(),
        {"stories": source},
        lambda draft, config, stories: draft.each_part(stories, config, upper(seen)),
    )


def test_only_new_parts_are_worked_on_and_old_ones_keep_their_digest():
    seen: list[int] = []
    before = cleaned(make("a", "b", "c", "d"), seen)
    after = cleaned(make("a", "b", "c", "d", "e"), seen)
    assert seen == [0, 1, 2]
    assert [p.sha256 for p in after.parts()][:2] == [p.sha256 for p in before.parts()]
    assert before.manifest["counts"] == {"rows_in": 4, "rows_out": 4, "rows_made": 4}
    assert after.manifest["counts"] == {"rows_in": 5, "rows_out": 5, "rows_made": 1}


def test_a_damaged_part_memo_is_made_again():
    seen: list[int] = []
    first = cleaned(make("a", "b"), seen)
    damage(first.path / "part-00000.parquet", "flip")  # a hard link: the memo is damaged with it
    assert cleaned(make("a", "b"), seen) == first
    assert seen == [0, 0]


def test_two_datasets_that_share_parts_can_be_made_at_once():
    small, large = make("a", "b", "c", "d"), make("a", "b", "c", "d", "e", "f")

    def slowly(table, number):
        time.sleep(0.05)  # both are at the same part, neither has published it
        return upper([])(table, number)

    def build(source):
        return store.build(
            CLEAN,
            Setting(),
            {"stories": source},
            lambda draft, config, stories: draft.each_part(stories, config, slowly),
        )

    with ThreadPoolExecutor(2) as pool:
        made = list(pool.map(build, [small, large]))
    assert [len(each.table()) for each in made] == [4, 6]
    assert [p.sha256 for p in made[0].parts()] == [p.sha256 for p in made[1].parts()][:2]


def test_a_folder_that_was_deleted_is_named():
    first = make("one")
    shutil.rmtree(first.path)
    with pytest.raises(store.CorruptDataset, match="is gone"):
        first.table()


def test_what_a_killed_attempt_can_resume_from_lives_until_the_dataset_is_published():
    def fill(draft, config):
        (draft.path / "_resume").mkdir(exist_ok=True)
        (draft.path / "_resume" / "step").write_text("7")
        draft.write_text("a.txt", "a")
        draft.tidy()
        assert (draft.path / "_resume" / "step").exists()

    assert not (store.build(CLEAN, Setting(), {}, fill).path / "_resume").exists()


def test_a_wrong_column_is_refused():
    with pytest.raises(ValueError, match="extra columns \\['colour'\\]"):
        store.build(
            INGEST,
            Setting(),
            {},
            lambda draft, config: draft.write_table(
                "part-00000.parquet", rows("a").append_column("colour", pa.array(["red"]))
            ),
        )


def test_a_full_disk_is_one_clear_error():
    def full(draft, config):
        raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match="disk is full.*bytes are free"):
        store.build(CLEAN, Setting(), {}, full)


def test_every_view_is_there_before_anything_has_run():
    con = store.connect()
    names = {name for (name,) in con.execute("select view_name from duckdb_views() where not internal").fetchall()}
    wanted = (
        "manifests requests costs stories drops clusters tokens train_steps story_loss rollouts grades coverage lineage"
    )
    assert set(wanted.split()) <= names
    for name in names:
        assert con.execute(f'select count(*) from "{name}"').fetchone() == (0,), name


def test_every_table_shows_its_rows_in_its_view():
    def fill(draft: Draft, config: Setting, *, stage: str) -> None:
        for (of, table), schema in store.schemas.TABLES.items():
            if of == stage:
                name = {"part": "part-00000", "_dropped": "_dropped/part-00000"}.get(table, table)
                draft.write_table(f"{name}.parquet", pa.table({each.name: pa.nulls(1, each.type) for each in schema}))

    for stage in dict.fromkeys(stage for stage, _ in store.schemas.TABLES):
        store.build(Stage(stage, 1), Setting(), {}, partial(fill, stage=stage))
        con = store.connect()
        for view in (store.catalogue.view_name(*each) for each in store.schemas.TABLES if each[0] == stage):
            kept = "dedup_kept" if view == "dedup" else view
            assert con.execute(f'select count(*) from "{kept}"').fetchone() == (1,), view
    assert duckdb.connect(str(store.write_catalogue()), read_only=True).execute("from lineage").fetchall() is not None


def test_views_show_what_was_used_last():
    make("old")
    make("new", "newer")
    assert store.connect().execute("select count(*) from raw").fetchone() == (2,)
    make("old")  # a hit, not a new dataset
    assert store.connect().execute("select text from raw").fetchall() == [("old",)]


def test_the_catalogue_opens_from_another_folder(tmp_path, monkeypatch):
    make("one", "two")
    path = store.write_catalogue()
    monkeypatch.chdir(tmp_path)
    con = duckdb.connect(str(path), read_only=True)
    assert con.execute("select count(*) from raw").fetchone() == (2,)


def test_a_damaged_dataset_is_left_out_of_the_views_and_named(caplog):
    first = make("one")
    damage(first.path / "part-00000.parquet", "flip")
    assert store.connect().execute("select count(*) from raw").fetchone() == (0,)
    assert first.name in caplog.text


def test_the_manifest_says_what_made_it():
    first = make("one", "two")
    manifest = json.loads((first.path / "_manifest.json").read_text())
    assert manifest["counts"] == {"rows_in": 2, "rows_out": 2}
    assert manifest["files"]["part-00000.parquet"]["rows"] == 2
    assert manifest["config"] == {"keep": 1, "workers": 2}
    assert manifest["versions"]["pyarrow"]


@pytest.mark.parametrize("name", ["b*c", "b?c", "b[cd]"])
def test_a_data_folder_that_duckdb_would_read_as_a_pattern_is_refused(name, tmp_path, monkeypatch):
    monkeypatch.setenv("STORYMILL_DATA", str(tmp_path / name / "data"))
    with pytest.raises(UserError, match=r"expected none of \* \? \[: set STORYMILL_DATA to another folder"):
        make("a")
    assert not (tmp_path / name).exists()
