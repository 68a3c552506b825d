"""Lineage: one real chain in miniature, asked in SQL where a story came from and where it went."""

import numpy as np
import pytest

from flows import wiring
from lib import presets, stages, store
from lib.overrides import with_overrides
from lib.stages.ingest import IngestConfig
from lib.stages.selfinstruct import SelfinstructConfig
from lib.text.rules import RULE_VERSION
from lib.text.tokenizer import Tokenizer

SMALL = {
    "generate": {
        "plan": {"count": 120, "seed": 1},
        "part_rows": 50,
        "mischief": {"near_copies": 0.2, "malformed": 0.05, "no_usage": 0.05},
        "reasks": 0,
        "price_in": 0.15,
        "price_out": 0.6,
    },
    "clean": {"min_words": 95},
    "split": {"on_contamination": "drop"},
    "tokenizer": {"vocab_size": 512},
    "pretrain": {"steps": 12, "precision": "bf16", "eval_every": 5, "eval_stories": 6},
    "instruct": {"steps": 8, "precision": "bf16", "eval_every": 5, "eval_stories": 6},
    "align": {"updates": 2, "eval_every": 1, "eval_stories": 5, "max_new": 24, "precision": "bf16", "lr": 1e-3},
    "evaluate": {"loss_stories": 2, "instructions": 2, "max_new": 16},
}


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """The data folder, and every dataset by name."""
    folder = tmp_path_factory.mktemp("lineage")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STORYMILL_DATA", str(folder))
        chain = with_overrides(presets.smoke(), SMALL)
        chain = chain.model_copy(update={"align": chain.align.model_copy(update={"rewards": {"words": 1.0}})})
        datasets = wiring.training(chain, lambda stage, config, **inputs: stages.build(stage, config, inputs))
        models = {"base": datasets["pretrain"], "instruct": datasets["instruct"], "aligned": datasets["align"]}
        inputs = models | {"stories": datasets["split"], "tokenizer": datasets["tokenizer"]}
        return folder, datasets | {"evaluate": stages.build("evaluate", chain.evaluate, inputs)}


@pytest.fixture
def made(chain, data_root, monkeypatch):
    """The datasets, and DuckDB over them."""
    folder, datasets = chain
    monkeypatch.setenv("STORYMILL_DATA", str(folder))
    return datasets, store.connect()


def rows(made, query: str, *values: object) -> list[dict]:
    found = made[1].execute(query, list(values))
    names = [column[0] for column in found.description]
    return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


def test_every_story_that_was_asked_for_has_its_prompt_and_ended_somewhere(made):
    stories = rows(made, "select * from lineage")
    assert len(stories) == 120
    for row in stories:
        assert row["prompt"].startswith("Tell a short story")
        assert row["attempts"] >= 1  # one in a hundred is told to come back
        assert row["cost_microdollars"] > 0
        assert (row["split"] is None) == (row["dropped_by"] is not None)
        assert (row["length"] is None) == (row["split"] is None)
        assert bool(row["base_steps"]) <= (row["split"] == "train")
        assert row["base_bits_per_byte"] is None or row["split"] in ("val", "test")
        assert row["rule_version"] == (None if row["dropped_by"] == "generate" else RULE_VERSION)
        assert (row["cluster_id"] is None) == (row["dropped_by"] in ("generate", "clean"))
    assert sum(row["aligned_bits_per_byte"] is not None for row in stories) == 2 + 6
    assert {row["dropped_by"] for row in stories} == {"generate", "clean", "dedup", "split", None}


def test_the_costs_of_all_that_was_asked_for_sum_to_what_was_spent(made):
    sums = """select (select sum(cost_microdollars) from lineage) as of_stories,
                     (select sum(coalesce(cost_microdollars, reserved_microdollars)) from requests) as spent,
                     (select count(*) from requests where cost_microdollars is null) as unknown"""
    (found,) = rows(made, sums)
    assert found["of_stories"] == found["spent"] > 120 and found["unknown"] > 0


def test_a_duplicate_that_went_names_its_cluster(made):
    query = """select cluster_id, cluster_size, kept_id, members from lineage
               join dedup_dropped using (story_id, cluster_id) join clusters using (cluster_id, cluster_size)"""
    found = rows(made, query)
    assert len(found) == made[0]["dedup"].manifest["drops"]["near"] > 0
    for row in found:
        assert row["kept_id"] == row["cluster_id"] in row["members"] and row["cluster_size"] == len(row["members"])


@pytest.mark.parametrize("stories_per_request", [1, 4])
def test_the_costs_of_several_stories_a_request_sum_to_what_was_spent_on_the_plan(data_root, stories_per_request):
    for seed in (0, 1):  # the second plan is shown; the ledger holds both
        plan = {"count": 30, "seed": seed, "stories_per_request": stories_per_request}
        generate = SMALL["generate"] | {"plan": plan, "mischief": {"malformed": 0.3, "truncated": 0.2, "cut": 0.1}}
        config = with_overrides(presets.smoke(), {"generate": generate | {"backoff": 0.01, "tries": 12}})
        made = stages.build("generate", config.generate, {})
    assert set(made.manifest["drops"]) >= {"truncated"}
    assert_costs_sum(made)


def test_the_costs_of_tasks_sum_to_what_was_spent_on_them(data_root):
    selfinstruct = SelfinstructConfig(count=60, price_in=1.0, price_out=2.0, mischief={"truncated": 0.3}, reasks=0)
    made = stages.build("selfinstruct", selfinstruct, {})
    assert made.manifest["drops"]
    assert_costs_sum(made)


def assert_costs_sum(made):
    """Of every row that came and every one that did not, to the micro-dollar."""
    con = store.connect()
    stories = con.execute("select count(*), count(distinct story_id), sum(cost_microdollars) from lineage").fetchone()
    spent = "select sum(coalesce(cost_microdollars, reserved_microdollars)) from requests"
    asked = con.execute("select list(distinct request_id) from lineage").fetchone()
    (paid,) = con.execute(f"{spent} where request_id in (select unnest(?))", [*asked]).fetchone()
    rows_in = made.manifest["counts"]["rows_in"]
    assert stories == (rows_in, rows_in, pytest.approx(paid, abs=1e-6)) and paid > 100


def test_drops_are_those_of_the_stage_that_brought_the_stories_shown(data_root):
    """Tasks, then stories: the tasks that went are no drops of these stories; and so the other way round."""
    tasks = stages.build("selfinstruct", SelfinstructConfig(count=40, mischief={"truncated": 0.4}, reasks=0), {})
    stages_of = "select distinct stage from drops"
    assert tasks.manifest["drops"] and store.connect().execute(stages_of).fetchall() == [("selfinstruct",)]
    config = with_overrides(presets.smoke(), {"generate": SMALL["generate"] | {"mischief": {"malformed": 0.2}}})
    stages.build("generate", config.generate, {})
    assert store.connect().execute(stages_of).fetchall() == [("generate",)]
    store.mark_used(tasks)
    assert store.connect().execute(stages_of).fetchall() == [("selfinstruct",)]
    (data_root / "few.jsonl").write_text('{"text": "The hen sat."}')
    stages.build("ingest", IngestConfig(path=str(data_root / "few.jsonl")), {})
    assert store.connect().execute(stages_of).fetchall() == []


def test_the_span_of_every_story_decodes_to_its_text(made):
    tokens = made[0]["tokens"]
    tokenizer = Tokenizer.load(made[0]["tokenizer"].file("tokenizer.model"))
    found = rows(made, "select text, shard, place.* from stories join lineage as place using (story_id)")
    assert len(found) > 60
    for row in found:
        ids = np.fromfile(tokens.file(f"tokens-{row['shard']:05d}.bin"), tokens.facts["dtype"])
        span = ids[row["offset"] : row["offset"] + row["length"]].tolist()
        assert tokenizer.decode(span[1:-1]) == row["text"]


def test_the_steps_of_a_story_are_those_whose_batches_held_it(made):
    seen = rows(made, "select stage, step, story_id from seen")
    by_story = {(row["stage"], row["story_id"]): [] for row in seen}
    for row in seen:
        by_story[row["stage"], row["story_id"]].append(row["step"])
    assert {row["step"] for row in seen if row["stage"] == "pretrain"} == set(range(1, 13))
    for row in rows(made, "select story_id, base_steps, instruct_steps from lineage"):
        for stage, steps in (("pretrain", row["base_steps"]), ("instruct", row["instruct_steps"])):
            assert (steps or []) == sorted(by_story.get((stage, row["story_id"]), []))


def test_story_losses_sum_to_the_logged_loss_of_each_model(made):
    """Trained in bf16, logged over packed rows; scored again one by one, from the published files."""
    found = rows(made, "select * from loss_check")
    assert {(row["stage"], row["model"]) for row in found} == {
        ("pretrain", "base"), ("instruct", "instruct"), ("align", "aligned")
    }  # fmt: skip
    for row in found:
        assert row["missing_tokens"] == 0
        assert row["stories"] in (5, 6)
        assert row["difference"] < 1e-5
    logged = made[0]["pretrain"].facts["nats_per_token"]
    query = """select sum(nats) / sum(tokens) as loss from story_loss join pretrain_scored using (story_id)
               where model = 'base'"""
    assert rows(made, query)[0]["loss"] == pytest.approx(logged, abs=1e-5)


def test_a_rollout_names_who_wrote_it_and_what_that_model_learnt_from(made):
    found = rows(made, "select * from rollouts order by update")
    names = {stage: made[0][stage].name for stage in ("align", "instruct", "pretrain", "tokens", "split", "tokenizer")}
    for row in found:
        assert {stage: row[f"{stage}_dataset"] for stage in names} == names
        assert row["written_by"] == f"instruct/{names['instruct']} after {row['update'] - 1} updates"
        assert row["words"] is not None
    asked = rows(made, "select prompt, summary, split from rollouts join stories using (story_id)")
    assert len(asked) == len(found)
    assert all(row["prompt"] == f"Write {row['summary']}" and row["split"] == "train" for row in asked)


def test_a_stage_that_runs_again_shows_its_own_lineage(made):
    """Another tokenizer's models: the views follow the run that was used last, and go back with it."""
    name = made[0]["align"].name
    other = stages.build("pretrain", *_pretrain_again(made))
    con = store.connect()
    assert con.execute("select distinct pretrain_dataset from rollouts").fetchall() == [(made[0]["pretrain"].name,)]
    assert con.execute("select max(step) from seen where stage = 'pretrain'").fetchall() == [(4,)]
    assert con.execute("select name from manifests where stage = 'pretrain' and shown").fetchall() == [(other.name,)]
    assert con.execute("select distinct align_dataset from rollouts").fetchall() == [(name,)]
    store.mark_used(made[0]["pretrain"])
    assert store.connect().execute("select max(step) from seen where stage = 'pretrain'").fetchall() == [(12,)]


def _pretrain_again(made):
    chain = with_overrides(presets.smoke(), SMALL | {"pretrain": SMALL["pretrain"] | {"steps": 4}})
    return chain.pretrain, {"tokens": made[0]["tokens"], "tokenizer": made[0]["tokenizer"]}


def test_the_view_labels_words_as_the_command_does(made):
    from lib.web.coverage import coverage

    labels = {row["word"]: row for row in rows(made, "select * from coverage")}
    assert {row["label"] for row in labels.values()} >= {"covered", "thin"}
    found = coverage(made[1], " ".join(sorted(labels)))
    for word in found.words:
        assert (word.label, word.stories) == (labels[word.word]["label"], labels[word.word]["stem_stories"])
        assert list(word.pieces) == labels[word.word]["pieces"]
