"""Align: prompts, roll-outs as rows, guards that stop and keep the best, and a resume that ends in the same bytes."""

import json

import pytest

import lib.stages.align as stage
from lib.errors import UserError
from lib.model import guards
from lib.stages.align import AlignConfig, align
from lib.store import Dataset, build, connect
from lib.text.words import words
from tests import tiny

E_REWARD = f"{__name__}.share_of_e"


def share_of_e(prompts, stories):
    """The share of letters that are an e: what any network can learn in a few updates."""
    return [story.count("e") / max(len(story), 1) for story in stories]


def no_e(prompts, stories):
    """The other way: what makes a story less like those of the corpus."""
    return [-share for share in share_of_e(prompts, stories)]


def nothing(prompts, stories):
    return [0.0] * len(stories)


FREE = {"distinct_2": 0.0, "concept_per_100": 100.0, "share_ended": 0.0, "val_bits_per_byte": 100.0, "kl": 99.0}


def small(**changed) -> AlignConfig:
    settings = {
        "rewards": {E_REWARD: 1.0},
        "unfinished_penalty": 0.0,
        "updates": 4,
        "prompts_per_update": 3,
        "samples_per_prompt": 4,
        "max_new": 12,
        "heldout_prompts": 4,
        "eval_every": 2,
        "eval_stories": 4,
        "checkpoint_every": 1,
        "precision": "fp32",
        "threads": 1,
        "guards": {
            "distinct_2": 0.0,
            "concept_per_100": 100.0,
            "share_ended": 0.0,
            "val_bits_per_byte": 100.0,
            "kl": 99.0,
        },
    }
    return AlignConfig(**(settings | changed))


def trained_with(pieces: Dataset, model: Dataset) -> Dataset:
    """The same model, which names its tokenizer, as the training stages write it."""
    about = json.loads(model.file("model.json").read_bytes()) | {"tokenizer": pieces.fingerprint}
    files = {name: model.file(name).read_bytes() for name in ("model.safetensors", "tokenizer.model")}
    return tiny.publish(model.stage, files | {"model.json": json.dumps(about).encode()}, {"tokenizer": pieces})


@pytest.fixture
def inputs() -> dict[str, Dataset]:
    from lib.stages import tokens

    stories = tiny.stories()
    pieces = tiny.tokenizer()
    split = tiny.publish("split", {"part-00000.parquet": stories})
    natural = build(
        tokens.STAGE, tokens.TokensConfig(layout="natural"), {"stories": split, "tokenizer": pieces}, tokens.tokens
    )
    model = trained_with(pieces, tiny.model("instruct", seed=1))
    return {"model": model, "stories": split, "tokens": natural, "tokenizer": pieces}


def template_of(inputs):
    from lib.text.template import Template
    from lib.text.tokenizer import Tokenizer

    return Template(Tokenizer.load(inputs["tokenizer"].file("tokenizer.model")))


def prompts_of(inputs, config, layout="natural"):
    return stage.prompts_of(inputs["stories"], config, template_of(inputs), layout, 160)


def run(config, inputs, on_progress=None) -> Dataset:
    return build(stage.STAGE, config, inputs, align, on_progress=on_progress)


def test_every_rollout_and_every_update_is_a_row(inputs):
    made = run(small(), inputs)
    rollouts, updates = made.table(table="rollouts").to_pylist(), made.table(table="updates").to_pylist()
    assert len(rollouts) == 4 * 3 * 4
    assert [row["update"] for row in updates] == [1, 2, 3, 4]
    assert [row["heldout_reward"] is None for row in updates] == [True, False, True, False]
    assert all(row["val_bits_per_byte"] is None or row["val_bits_per_byte"] > 0 for row in updates)
    for row in rollouts:
        assert row["prompt"].startswith("Write a story about ")
        assert row["logprob"] < 0
        assert row["kl"] >= 0
        assert 1 <= row["tokens"] <= 12
        assert row["reward"] == pytest.approx(share_of_e([""], [row["text"]])[0])
        assert row["concept"] is None
    groups = [rollouts[n : n + 4] for n in range(0, len(rollouts), 4)]
    assert all(len({row["prompt"] for row in group}) == 1 for group in groups)
    assert all(sum(row["advantage"] for row in group) == pytest.approx(0, abs=1e-5) for group in groups)
    assert max(row["kl"] for row in rollouts if row["update"] == 1) < 1e-9  # the policy is still the reference
    with connect() as db:
        assert db.sql("select count(*) from rollouts").fetchall() == [(48,)]


def test_the_rewarded_stories_become_likelier_on_held_out_prompts(inputs):
    made = run(small(updates=16, prompts_per_update=8, lr=1e-2, kl_coef=0.0, heldout_prompts=5, eval_every=8), inputs)
    facts = made.facts
    assert facts["kept_update"] > 0
    assert facts["reward_after"] > facts["reward_before"] + 0.015
    before, after = (json.loads(each.file("model.json").read_bytes()) for each in (inputs["model"], made))
    assert after == before | {"stage": "align"}
    assert made.file("model.safetensors").read_bytes() != inputs["model"].file("model.safetensors").read_bytes()
    assert made.file("tokenizer.model").read_bytes() == inputs["tokenizer"].file("tokenizer.model").read_bytes()


@pytest.mark.parametrize(
    "changed",
    [
        {"anchor_coef": 0.5, "anchor_rows": 2},
        {"method": "lora", "rank": 2},
        {"form": "tinycatstories"},
        {"form": "grpo", "estimator": "k3", "epochs": 2},
        {"form": "dpo", "epochs": 2},
    ],
    ids=str,
)
def test_a_killed_run_goes_on_to_the_same_bytes(inputs, changed):
    config = small(checkpoint_every=2, updates=5, **changed)

    def kill_after(update):
        def listen(text, done, total):
            if text.startswith(f"update {update}/"):
                raise KeyboardInterrupt

        return listen

    for update in (1, 2, 4):
        with pytest.raises(KeyboardInterrupt):
            run(config, inputs, kill_after(update))
    resumed = run(config, inputs)
    digests = {name: entry["sha256"] for name, entry in resumed.manifest["files"].items() if "_record" not in name}
    from lib.store import delete

    delete(resumed.stage, resumed.name)
    undisturbed = run(config, inputs)
    assert undisturbed.fingerprint == resumed.fingerprint
    assert {n: e["sha256"] for n, e in undisturbed.manifest["files"].items() if "_record" not in n} == digests
    assert ("adapter.safetensors" in digests) == (config.method == "lora")


def test_the_reference_is_the_model_that_was_given(inputs):
    # After updates the roll-outs' KL is against the start: it grows from zero.
    kl = run(small(lr=3e-3), inputs).table(table="updates")["kl"].to_pylist()
    assert kl[0] < 1e-9 < 1e-4 < kl[-1]


def test_a_breach_stops_the_updates_and_keeps_the_best_model_before_it(inputs):
    limits = {"distinct_2": 0.0, "concept_per_100": 100.0, "share_ended": 0.0, "val_bits_per_byte": 1.0}
    made = run(small(updates=40, eval_every=1, lr=3e-2, guards=limits), inputs)
    assert "val_bits_per_byte" in made.facts["stopped"]
    assert "is above" in made.facts["stopped"]
    assert made.facts["updates"] < 40
    assert made.facts["kept_update"] != made.facts["updates"]
    assert made.facts["val_bits_per_byte_after"] <= made.facts["val_bits_per_byte_before"]
    if made.facts["kept_update"] == 0:
        assert made.file("model.safetensors").read_bytes() == inputs["model"].file("model.safetensors").read_bytes()


def test_held_out_prompts_are_of_val_rows_and_never_of_train_rows(inputs):
    template = template_of(inputs)
    rows = inputs["stories"].table(["summary", "split"]).to_pylist()
    found = prompts_of(inputs, small(heldout_prompts=99, report_prompts=99))
    train, choosing, reported = found.train, found.choosing, found.reported
    assert set(train) == {"Write " + row["summary"] for row in rows if row["split"] == "train"}
    held_out = {"Write " + row["summary"] for row in rows if row["split"] == "val"} - set(train)
    assert sorted(choosing + reported) == sorted(held_out)
    assert 0 <= len(choosing) - len(reported) <= 1
    few = prompts_of(inputs, small(heldout_prompts=2, report_prompts=1))
    assert (len(few.choosing), len(few.reported)) == (2, 1)
    with pytest.raises(UserError, match="0 usable prompts from its train rows.*at most 2 tokens"):
        stage.prompts_of(inputs["stories"], small(), template, "natural", 4)


def test_a_story_without_an_end_pays_the_penalty(inputs):
    free = run(small(updates=1, eval_every=1), inputs)
    fined = run(small(updates=1, eval_every=1, unfinished_penalty=0.7), inputs)
    pairs = zip(*(each.table(table="rollouts").to_pylist() for each in (free, fined)), strict=True)
    ends = set()
    for one, other in pairs:
        assert other["text"] == one["text"]
        assert one["reward"] - other["reward"] == pytest.approx(0.0 if one["ended"] else 0.7)
        ends.add(one["ended"])
    assert False in ends


def test_tokens_in_another_layout_than_the_models_are_refused(inputs):
    base = trained_with(inputs["tokenizer"], tiny.model("pretrain", seed=1, layout="pretrain"))
    with pytest.raises(UserError, match="in the layout 'pretrain', but tokens/.* are in 'natural'"):
        run(small(), inputs | {"model": base})


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"samples_per_prompt": 1}, "form rloo needs samples_per_prompt of at least 2"),
        ({"samples_per_prompt": 1, "form": "grpo"}, "form grpo needs samples_per_prompt of at least 2"),
        ({"samples_per_prompt": 1, "form": "dpo"}, "form dpo needs samples_per_prompt of at least 2"),
        ({"epochs": 2, "form": "tinycatstories"}, "takes one step on its stories"),
        ({"rewards": {"judge": 1.0}}, "give judge.model"),
        ({"prompts": ("a",), "prompts_file": "b"}, "expected one of them"),
        ({"prompts": ("a", " \n")}, "found the prompt ' .n', expected words"),
        ({"prompts": ("a", "cat \ud83d")}, "found '.ud83d' in the prompt 'cat .ud83d'"),
    ],
    ids=str,
)
def test_settings_that_cannot_be_learned_with_are_refused(settings, told):
    with pytest.raises(ValueError, match=told):
        AlignConfig(**settings)
    AlignConfig(samples_per_prompt=1, form="tinycatstories")


# ---- a base model, and prompts of the user's own


@pytest.fixture
def base_inputs(inputs) -> dict[str, Dataset]:
    from lib.stages import tokens

    made = {"stories": inputs["stories"], "tokenizer": inputs["tokenizer"]}
    openings = build(tokens.STAGE, tokens.TokensConfig(layout="pretrain"), made, tokens.tokens)
    base = trained_with(inputs["tokenizer"], tiny.model("pretrain", seed=1, layout="pretrain"))
    return inputs | {"model": base, "tokens": openings}


def test_a_base_model_goes_on_from_the_first_words_of_stories(base_inputs):
    made = run(small(updates=2, opening_words=9), base_inputs)
    rows = {row["story_id"]: row for row in base_inputs["stories"].table().to_pylist()}
    for row in made.table(table="rollouts").to_pylist():
        assert row["prompt"] == " ".join(rows[row["story_id"]]["text"].split()[:9])
        assert rows[row["story_id"]]["split"] == "train"
        assert row["text"].startswith(row["prompt"])  # what is rewarded is the whole story
        assert len(row["text"]) > len(row["prompt"])
    assert json.loads(made.file("model.json").read_bytes())["layout"] == "pretrain"
    found = prompts_of(base_inputs, small(opening_words=9), "pretrain")
    assert not set(found.train) & {*found.choosing, *found.reported}
    assert not set(found.choosing) & set(found.reported)


def test_the_users_prompts_are_learned_on_and_val_rows_are_held_out(base_inputs, tmp_path):
    asked = ("One day, Mia saw a red kite", "A frog was sad")
    file = tmp_path / "prompts.txt"
    file.write_text("\n".join([*asked, "", ""]))
    made = run(small(updates=2, prompts=asked), base_inputs)
    rows = made.table(table="rollouts").to_pylist()
    assert {row["prompt"] for row in rows} == set(asked)
    assert {row["story_id"] for row in rows} == {None}
    named = small(updates=2, prompts_file=str(file))
    assert list(prompts_of(base_inputs, named, "pretrain").train) == list(asked)
    assert stage.external(named) != {} == stage.external(small())
    file.write_text("\n \n")
    with pytest.raises(UserError, match="holds no prompt, expected one a line"):
        prompts_of(base_inputs, named, "pretrain")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "asked.txt, which cannot be read .No such file or directory, looked in .*expected a text file in UTF-8"),
        ("folder", "asked.txt, which cannot be read .Is a directory"),
        ("A frog\nA caf\u00e9".encode("latin-1"), "asked.txt, line 2: found the byte 0xe9, expected .*save it anew"),
        (b"\n \n", "asked.txt holds no prompt, expected one a line"),
    ],
    ids=["missing", "folder", "latin-1", "blank"],
)
def test_a_file_of_prompts_that_cannot_be_read_is_said_before_the_chain_starts(tmp_path, monkeypatch, content, told):
    from flows import server, session
    from lib.overrides import with_overrides
    from lib.presets import smoke

    started = []
    monkeypatch.setattr(server, "ensure", lambda: started.append(1))
    file = tmp_path / "asked.txt"
    if content == "folder":
        file.mkdir()
    elif content:
        file.write_bytes(content)
    with pytest.raises(UserError, match=told):
        session.start(with_overrides(smoke(), {"align": {"prompts_file": str(file)}}))
    assert not started


def test_the_optimizer_is_the_configs_and_null_clips_nothing(inputs):
    settings = {"updates": 1, "eval_every": 1, "lr": 1e-2, "warmup": 0}
    last = []  # on the weights that were trained, whichever are kept
    for changed in ({"clip": 1e9}, {"clip": None}, {"clip": 1e-9}, {"clip": 1e9, "weight_decay": 10.0}):
        made = run(small(**settings, **changed), inputs)
        last.append(made.table(table="evals")["bits_per_byte"].to_pylist()[-1])
    plain, free, clipped, decayed = last
    assert plain == free
    assert len({plain, clipped, decayed}) == 3


def test_the_seeds_ten_tokens_are_four_of_the_storys_and_honest_ones_are_ten(base_inputs):
    # tinycatstories counts the six tokens of its prompt among its ten, and divides by ten all the same.
    quirk = {"form": "tinycatstories", "samples_per_prompt": 1, "updates": 1, "eval_every": 1, "kl_factor": 0.0}
    loss = {}
    for name, max_new, length in (("seed", 4, 10), ("seed", 4, 4), ("honest", 10, None), ("told", 10, 10)):
        made = run(small(**quirk, max_new=max_new, length=length), base_inputs)
        rows = made.table(table="rollouts").to_pylist()
        assert max(row["tokens"] for row in rows) == max_new
        expected = -sum(row["logprob"] / (length or max_new) * row["reward"] for row in rows) / len(rows)
        loss[name, length] = made.table(table="updates")["loss"][0].as_py()
        assert loss[name, length] == pytest.approx(expected, rel=1e-4)
    assert loss["seed", 4] == pytest.approx(2.5 * loss["seed", 10], rel=1e-4)
    assert loss["honest", None] == loss["told", 10]


def test_every_layout_is_asked_in_its_own_words_and_rewarded_for_what_was_wanted(inputs):
    summary = inputs["stories"].table(["summary", "split"]).to_pylist()[1]["summary"]
    words = {"natural": f"Write {summary}", "alpaca": f"Write {summary}"}
    words["padded"] = f"Write a story. Summary: {summary} Possible story:"
    for layout, prompt in words.items():
        found = stage.prompts_of(inputs["stories"], small(), template_of(inputs), layout, 400)
        assert prompt in found.train
        assert found.wanted[prompt] == f"Write {summary}"  # not the words that every prompt says


@pytest.mark.parametrize("layout", ["padded", "alpaca"])
def test_a_model_is_aligned_in_its_own_layout(inputs, layout, monkeypatch):
    from lib.stages import tokens

    made = {"stories": inputs["stories"], "tokenizer": inputs["tokenizer"]}
    shards = build(tokens.STAGE, tokens.TokensConfig(layout=layout), made, tokens.tokens)
    monkeypatch.setitem(tiny.SIZES, "max_length", 400)  # an alpaca block takes more than half of 160
    monkeypatch.setattr(tiny, "_weights", tiny._weights.__wrapped__)
    model = trained_with(inputs["tokenizer"], tiny.model("instruct", seed=1, layout=layout))
    aligned = run(small(updates=1, eval_every=1, anchor_coef=0.1), inputs | {"model": model, "tokens": shards})
    assert json.loads(aligned.file("model.json").read_bytes())["layout"] == layout
    assert aligned.manifest["counts"]["rollouts"] == 12


# ---- forms, anchor, guards between looks


def test_the_best_and_the_worst_of_a_prompt_are_a_pair(inputs):
    made = run(small(form="dpo", lr=3e-3, epochs=2), inputs)
    rollouts, updates = made.table(table="rollouts").to_pylist(), made.table(table="updates").to_pylist()
    for start in range(0, len(rollouts), 4):
        group = {row["pair"]: row["reward"] for row in rollouts[start : start + 4] if row["pair"]}
        rewards = [row["reward"] for row in rollouts[start : start + 4]]
        if max(rewards) > min(rewards):
            assert group == {"chosen": max(rewards), "rejected": min(rewards)}
        else:
            assert group == {}
    for row in updates:
        mine = [each["pair"] for each in rollouts if each["update"] == row["update"]]
        assert mine.count("chosen") == mine.count("rejected") == row["pairs"]
    assert updates[0]["pairs"] > 0
    assert updates[0]["margin"] == pytest.approx(0, abs=1e-5)  # the policy is still the reference
    assert run(small(form="dpo", margin=9.0), inputs).table(table="updates")["pairs"].to_pylist() == [0] * 4


def test_every_reward_is_a_column_by_name(inputs):
    made = run(small(rewards={E_REWARD: 1.0, "words": 0.5}, updates=1, eval_every=1), inputs)
    for row in made.table(table="rollouts").to_pylist():
        parts = dict(row["parts"])
        assert set(parts) == {E_REWARD, "words"}
        assert parts["words"] == row["words"]
        assert row["reward"] == pytest.approx(parts[E_REWARD] + 0.5 * parts["words"])
    with connect() as db:
        told = db.sql("select avg(parts['words']) = avg(words) from rollouts").fetchall()
    assert told == [(True,)]


def test_the_anchor_holds_the_loss_on_stories(inputs):
    config = {"updates": 8, "lr": 1e-2, "eval_every": 8, "kl_coef": 0.0}
    free, held = run(small(**config), inputs), run(small(anchor_coef=1.0, anchor_rows=2, **config), inputs)
    rows = held.table(table="updates")["anchor_nats"].to_pylist()
    assert rows[-1] < rows[0]
    assert free.table(table="updates")["anchor_nats"].to_pylist() == [None] * 8
    looks = [each.table(table="evals")["bits_per_byte"].to_pylist()[-1] for each in (free, held)]
    assert looks[1] < looks[0]


def test_the_report_is_of_prompts_that_did_not_choose(inputs):
    made = run(small(updates=2, heldout_prompts=2, report_prompts=3), inputs)
    again = run(small(updates=2, heldout_prompts=2, report_prompts=1), inputs)
    assert made.facts["chosen_by_before"] == again.facts["chosen_by_before"]
    assert made.facts["reward_before"] != again.facts["reward_before"]
    assert made.facts["reward_gain_error"] >= 0


def test_rows_from_before_a_column_was_added_are_still_read(inputs):
    import io

    import pyarrow.parquet as pq

    rows = run(small(updates=1, eval_every=1), inputs).table(table="rollouts").drop_columns(["parts", "pair"])
    file = io.BytesIO()
    pq.write_table(rows, file)
    tiny.publish("align", {"rollouts.parquet": file.getvalue()})  # used last: the views show it
    with connect() as db:
        told = db.sql("select count(*), count(parts), count(pair), max(reward) from rollouts").fetchall()
    assert told == [(12, 0, 0, max(rows["reward"].to_pylist()))]


def says_cat(prompts, stories):
    """A reward that is worth nothing: the share of words that are the one."""
    return [words(story).count("cat") / max(len(words(story)), 1) for story in stories]


@pytest.mark.chain
@pytest.mark.parametrize("eval_every", [40, 2])
def test_a_collapse_is_stopped_in_the_update_that_shows_it(inputs, eval_every):
    # "cat cat cat": the reward pays for nothing else, and with 40 no look is due before the end. A model that has
    # learned to spell is needed: one of random weights never says the word, so it cannot learn to repeat it.
    from lib.stages import pretrain

    learned = {"steps": 60, "batch_size": 4, "optimizer": "muon", "lr": 0.02, "compile": "off", "threads": 1}
    size = {"d_model": 48, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2, "d_ff": 96, "max_length": 160}
    config = pretrain.PretrainConfig(**learned, **size, eval_every=60, eval_stories=4)
    asked = {name: inputs[name] for name in ("tokens", "tokenizer")}
    model = build(pretrain.STAGE, config, asked, pretrain.pretrain)

    limits = guards.Limits(share_ended=0.0, val_bits_per_byte=100.0, kl=99.0)
    settings = {"rewards": {f"{__name__}.says_cat": 1.0}, "prompts_per_update": 4, "samples_per_prompt": 16}
    settings |= {"updates": 40, "eval_every": eval_every, "lr": 2e-3, "kl_coef": 0.0, "max_new": 48, "guards": limits}
    made = run(small(**settings), inputs | {"model": model})
    updates = made.table(table="updates").to_pylist()
    assert "concept_per_100" in made.facts["stopped"]
    assert len(updates) < 12
    shares = [row["concept_per_100"] for row in updates]
    assert all(share <= limits.concept_per_100 for share in shares[:-1])  # not one update passed after it showed
    start, kept = (guards.Health(**made.facts[f"health_{when}"]) for when in ("before", "after"))
    assert guards.breaches(kept, start=start, limits=limits) == []
    assert made.facts["kept_update"] != len(updates)  # one more than that: a step back towards the start
    # Without guards the same run goes on to tell of little else.
    free = small(**settings | {"updates": 12, "guards": limits.model_copy(update=FREE)})
    told = run(free, inputs | {"model": model})
    assert told.facts["stopped"] == ""
    assert told.facts["health_after"]["concept_per_100"] > 30


# ---- guards


def test_a_policy_that_runs_away_is_stopped_at_once(inputs):
    made = run(small(updates=40, lr=1e-2, eval_every=40, guards=FREE | {"kl": 0.05}), inputs)
    kl = made.table(table="updates")["kl"].to_pylist()
    assert made.facts["stopped"] == f"kl {kl[-1]:.3f} is above 0.050"
    assert len(kl) < 40
    assert all(each <= 0.05 for each in kl[:-1])
    assert made.facts["kept_update"] == 0
    assert made.file("model.safetensors").read_bytes() == inputs["model"].file("model.safetensors").read_bytes()


def test_a_model_too_far_away_is_not_kept_though_looks_are_rare(inputs):
    # The look after update 8 is due before update 9, whose stories are that model's, shows 0.838 nats a token.
    limit = 0.8
    settings = {"updates": 10, "prompts_per_update": 8, "lr": 1e-2, "kl_coef": 0.0, "heldout_prompts": 5}
    made = run(small(**settings, eval_every=8, guards=FREE | {"kl": limit}), inputs)
    assert f"is above {limit:.3f}" in made.facts["stopped"]
    assert made.facts["kl"] <= limit
    of_update = dict(enumerate(made.table(table="updates")["kl"].to_pylist()))  # by the update before: whose stories
    assert of_update.get(made.facts["kept_update"], 0.0) <= limit


def test_the_kl_told_is_that_of_the_kept_model(inputs):
    settings = {"updates": 8, "prompts_per_update": 8, "lr": 1e-2, "kl_coef": 0.0, "heldout_prompts": 5}
    made = run(small(**settings, eval_every=8), inputs)
    start, kept = made.facts["health_before"], made.facts["health_after"]
    assert start["kl"] < 1e-9
    assert made.facts["kept_update"] == 8
    assert made.facts["kl"] == kept["kl"] != made.table(table="updates")["kl"][-1].as_py()
    assert kept["kl"] > 0.1
    untouched = run(small(updates=1, eval_every=1, lr=1e-9, rewards={f"{__name__}.nothing": 1.0}), inputs)
    assert untouched.facts["kept_update"] == 0
    assert untouched.facts["kl"] < 1e-9


def good(**changed) -> guards.Health:
    numbers = {"reward": 1.0, "distinct_2": 0.5, "concept_per_100": 3.0, "share_ended": 0.9, "val_bits_per_byte": 1.0}
    return guards.Health(**(numbers | changed))


@pytest.mark.parametrize(
    ("now", "told"),
    [
        ({"distinct_2": 0.39}, "distinct_2 0.390 is below 0.400"),
        ({"share_ended": 0.7}, "share_ended 0.700 is below 0.720"),
        ({"concept_per_100": 8.5}, "concept_per_100 8.50 is above 8.00"),
        ({"val_bits_per_byte": 1.2}, "val_bits_per_byte 1.200 is above 1.150"),
        ({"kl": 1.05}, "kl 1.050 is above 1.000"),
    ],
    ids=lambda value: str(value),
)
def test_each_limit_is_told_with_both_numbers_and_bars_the_model(now, told):
    broken = good(reward=2.0, **now)
    assert guards.breaches(broken, start=good(), limits=guards.Limits()) == [told]
    assert not guards.is_better(broken, best=good(), start=good(), limits=guards.Limits())


def test_a_better_model_within_the_limits_is_kept():
    now = good(reward=1.1, distinct_2=0.41, concept_per_100=7.9, share_ended=0.73, val_bits_per_byte=1.14)
    assert guards.breaches(now, start=good(), limits=guards.Limits()) == []
    assert guards.is_better(now, best=good(), start=good(), limits=guards.Limits())
    assert not guards.is_better(good(), best=now, start=good(), limits=guards.Limits())


def test_what_the_start_model_does_itself_is_no_breach():
    start = good(concept_per_100=12.0)
    assert guards.breaches(start, start=start, limits=guards.Limits()) == []


def test_the_seeds_failure_shows_in_both_counts():
    story = "A cat sat on a mat. Its friend, a big dog, came to play in the warm sun."
    assert guards.concept_per_100("cat", [story]) == pytest.approx(100 / 18)
    assert guards.concept_per_100("cat", ["cat cat cats"]) == 100
    tricked = guards.health(concept="cat", stories=["cat cat cat cat cat"], ended=[True], reward=0.6)
    honest = guards.health(concept="cat", stories=[story], ended=[True], reward=0.4)
    assert guards.breaches(tricked, start=honest, limits=guards.Limits())


# ---- the limit on bits


def test_of_a_stopped_run_a_share_of_the_way_is_kept_that_is_within_the_limit(inputs):
    settings = {"updates": 8, "prompts_per_update": 8, "lr": 1e-2, "kl_coef": 0.0, "heldout_prompts": 5}
    settings["rewards"] = {f"{__name__}.no_e": 1.0}
    free = run(small(**settings, eval_every=8), inputs).facts
    risen = free["val_bits_per_byte_after"] / free["val_bits_per_byte_before"] - 1
    assert free["kept_share"] == 1
    assert risen > 0.001
    limit = 1 + risen / 3
    made = run(small(**settings, eval_every=8, guards=FREE | {"val_bits_per_byte": limit}), inputs)
    kept = made.facts
    assert "val_bits_per_byte" in kept["stopped"]
    evals = {row["step"]: row["bits_per_byte"] for row in made.table(table="evals").to_pylist()}
    assert list(evals) == [0, 8, 9]
    assert evals[kept["kept_update"]] == evals[9] == kept["val_bits_per_byte_after"] < evals[8]
    assert 0 < kept["kept_share"] < 1
    assert kept["val_bits_per_byte_after"] <= limit * kept["val_bits_per_byte_before"]
    assert kept["chosen_by_after"] > kept["chosen_by_before"]
