"""The storyteller: stories that hold what was asked, no two alike; a server that misbehaves only when told."""

import json
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter

import openai
import pytest
from pydantic import ValidationError

from lib.text.prompts import FEATURES, Ask, PromptPlan, asks, messages
from lib.text.replies import response_format
from lib.text.storyteller import MODEL, Mischief, running, words
from lib.text.storyteller.beats import FORESHADOWING
from lib.text.storyteller.mischief import parse_planted
from lib.text.storyteller.server import near_copy
from lib.text.storyteller.story import BY_KIND, PLOTS, Told, Wish, tell
from lib.text.storyteller.wish import wish_of

CHARACTERS = re.compile(r"[A-Za-z ,.!?:'\"\n]+")


def told(num: int, **plan) -> list[tuple[Ask, Told]]:
    asked = asks(PromptPlan(count=num, **plan))
    return [(ask, tell(Wish(ask.verb, ask.noun, ask.adjective, ask.features), ask.index)) for ask in asked]


def shingles(text: str) -> set[tuple[str, ...]]:
    found = re.findall(r"[a-z']+", text.lower())
    return {tuple(found[n : n + 5]) for n in range(len(found) - 4)}


def jaccard(a: set, b: set) -> float:
    return len(a & b) / len(a | b)


# ---- the grammar


def test_a_story_is_a_function_of_wish_and_seed():
    wish = Wish("jump", "hat", "brave", ("dialogue",))
    assert tell(wish, 3) == tell(wish, 3)
    assert len({tell(wish, seed).story for seed in range(50)}) == 50


def test_the_asked_words_are_in_story_and_summary():
    for ask, each in told(400):
        verb, noun = words.verb(ask.verb), words.noun(ask.noun)
        for text, forms in ((each.story, {verb.base, verb.past}), (each.summary, {verb.base, words.third(verb.base)})):
            found = set(re.findall(r"[a-z]+", text.lower()))
            assert forms & found, (ask, text)
            assert {noun.word, ask.adjective} <= found, (ask, text)


def test_the_summary_names_the_hero_of_the_story():
    for _, each in told(300):
        hero = re.fullmatch(r"a story about an? [a-z ]+ named ([A-Z][a-z]+) who [^.]+", each.summary)
        assert hero, each.summary
        assert each.story.count(hero[1]) >= 2


def test_a_story_has_sixty_to_two_hundred_fifty_words_in_two_to_five_paragraphs():
    counts = []
    everything_happy = Wish("climb", "lantern", "shiny", tuple(each for each in FEATURES if each != "bad ending"))
    long = [(None, tell(everything_happy, seed)) for seed in range(2500)]
    for _, each in told(600) + long:
        counts.append(len(each.story.split()))
        paragraphs = each.story.split("\n")
        assert 2 <= len(paragraphs) <= 5
        assert all(text and text == text.strip() and text[-1] in '.!?"' for text in paragraphs), each.story
        assert CHARACTERS.fullmatch(each.story), each.story
        assert "  " not in each.story
    assert min(counts) >= 60
    assert max(counts) <= 250
    assert 130 <= sum(counts[:600]) / 600 <= 160


def test_every_sentence_begins_with_a_capital_and_articles_fit():
    for _, each in told(300):
        assert not re.search(r"(?:^|[a-z][.!] )[a-z]", each.story), each.story
        assert not re.search(r"\b[Aa] [aeio]|\b[Aa]n [^aeiouh]", each.story), each.story


def test_no_two_of_many_stories_are_near_duplicates():
    sets = [shingles(each.story) for _, each in told(1500)]
    owners: dict[tuple, list[int]] = {}
    for n, shingled in enumerate(sets):
        for shingle in shingled:
            owners.setdefault(shingle, []).append(n)
    # Two stories at 0.8 share most of their shingles, rare ones included.
    pairs = {(a, b) for few in owners.values() if len(few) <= 15 for a in few for b in few if a < b}
    near = {b for a, b in pairs if jaccard(sets[a], sets[b]) >= 0.8}
    assert len(near) < 0.005 * 1500


def test_features_are_expressed():
    signs = {
        "dialogue": lambda text: text.count('"') >= 4,
        "plot twist": lambda text: re.search(
            r"surprise|strange happened|shiny|could not believe|Suddenly|not all", text
        ),
        "moral value": lambda text: re.search(r"moral of the story|knew that it is|learned that", text),
        "conflict": lambda text: re.search(r"fight|angry|laughed at|lazy|mean crow", text),
    }
    for feature, sign in signs.items():
        for seed in range(60):
            story = tell(Wish("jump", ("hat", "duck", "hill")[seed % 3], "red", (feature,)), seed).story
            assert sign(story), (feature, story)


def test_what_is_foreshadowed_comes_true():
    for seed in range(60):
        story = tell(Wish("jump", "hat", "red", ("foreshadowing",)), seed).story
        told_of = [n for n, pair in enumerate(FORESHADOWING) if all(holds(story, (half,)) for half in pair)]
        assert len(told_of) == 1, story


def holds(story: str, ways: tuple[str, ...]) -> bool:
    """Is one of these ways told in the story, whatever its keys were filled with?"""
    patterns = (re.sub(r"\\{\w+\\}", "[A-Za-z' ]+", re.escape(way)) for way in ways)
    return any(re.search(pattern, story) for pattern in patterns)


def test_a_bad_ending_takes_the_place_of_the_good_one():
    for seed in range(60):
        noun = ("hat", "duck", "hill")[seed % 3]
        good, bad = (tell(Wish("jump", noun, "red", features), seed).story for features in ((), ("bad ending",)))
        plots = BY_KIND[words.noun(noun).kind]
        assert any(holds(bad, plot.bad) for plot in plots) and not any(holds(bad, plot.solve) for plot in plots), bad
        assert any(holds(good, plot.solve) for plot in plots) and not any(holds(good, plot.bad) for plot in plots), good


def test_there_are_plots_for_every_kind_of_noun():
    assert len(PLOTS) >= 12
    assert all(len(plots) >= 6 for plots in BY_KIND.values())
    for plot in PLOTS:
        assert all("{ax" in want or "{adjx}" in want for want in plot.want), plot.name


def test_the_vocabulary_is_small():
    vocabulary = {
        word for _, each in told(3000) for word in re.findall(r"[a-z']+", (each.story + each.summary).lower())
    }
    assert len(vocabulary) < 2500


@pytest.mark.parametrize(
    ("word", "past", "third"),
    [("carry", "carried", "carries"), ("catch", "caught", "catches"), ("hop", "hopped", "hops"), ("lie", "lay", "lies"),
     ("play", "played", "plays"), ("zap", "zapped", "zaps"), ("forgive", "forgave", "forgives"),
     ("fix", "fixed", "fixes"), ("whittle", "whittled", "whittles"), ("have", "had", "has"), ("go", "went", "goes"),
     ("visit", "visited", "visits")],
)  # fmt: skip
def test_verbs_have_their_forms(word, past, third):
    assert (words.verb(word).past, words.third(word)) == (past, third)


@pytest.mark.parametrize(
    ("phrase", "expected"),
    [("hat", "a hat"), ("old hat", "an old hat"), ("honest boy", "an honest boy"), ("hour", "an hour"),
     ("unicorn", "a unicorn"), ("useful box", "a useful box"), ("unusual box", "an unusual box"),
     ("ugly duck", "an ugly duck")],
)  # fmt: skip
def test_articles_go_by_sound(phrase, expected):
    assert words.with_article(phrase) == expected


@pytest.mark.parametrize(
    ("noun", "phrase"),
    [("kindness", "book about kindness"), ("scissors", "box of scissors"), ("gizmo", "gizmo"), ("glass", "glass")],
)
def test_words_of_somebody_else_are_placed(noun, phrase):
    each = tell(Wish("whittle", noun, "purplish"), 5)
    assert phrase in each.story
    assert re.search(r"\bwhittle", each.story) and "purplish" in each.story
    assert "whittle" in each.summary


def test_a_wish_is_read_from_any_prompt():
    ask = Ask(0, "jump", "hat", "brave", ("plot twist", "conflict"))
    assert wish_of(messages(ask), 1) == Wish("jump", "hat", "brave", ("plot twist", "conflict"))
    free = [{"role": "user", "content": "Write a story about a brave rabbit who loves to dance. Add a bad ending!"}]
    assert wish_of(free, 1) == Wish("dance", "rabbit", "brave", ("bad ending",))
    nothing = [{"role": "user", "content": [{"type": "text", "text": "Tell me one."}]}]
    assert wish_of(nothing, 1) == wish_of(nothing, 1) != wish_of(nothing, 2)


def test_near_copies_are_near_but_not_the_same():
    first, second = near_copy(7, 1), near_copy(7, 3)
    assert first.story != second.story
    assert 0.8 < jaccard(shingles(first.story), shingles(second.story)) < 1


# ---- the server


@pytest.fixture(scope="module")
def teacher():
    with running(seed=1) as base_url, openai.OpenAI(base_url=base_url, api_key="none", max_retries=0) as client:
        yield client


def create(client: openai.OpenAI, ask: Ask, **more):
    request = {"model": MODEL, "messages": messages(ask), "seed": 5, "response_format": response_format()} | more
    return client.chat.completions.create(**request)


def stats(client: openai.OpenAI) -> dict:
    with urllib.request.urlopen(str(client.base_url).replace("/v1/", "/stats?keys=1")) as answer:
        return json.load(answer)


ASK = Ask(0, "climb", "lantern", "shiny", ("moral value",))


def test_an_answer_is_json_with_story_and_summary(teacher):
    answer = create(teacher, ASK)
    content = json.loads(answer.choices[0].message.content)
    assert set(content) == {"story", "summary"}
    assert "lantern" in content["story"] and content["summary"].startswith("a story about ")
    assert answer.model == MODEL == "storyteller-1"
    assert answer.choices[0].finish_reason == "stop"
    assert "not a language model" in answer.system_fingerprint


def test_the_same_request_gets_the_same_story_and_another_seed_another(teacher):
    same = [create(teacher, ASK).choices[0].message.content for _ in range(3)]
    assert len(set(same)) == 1
    assert create(teacher, ASK, seed=6).choices[0].message.content != same[0]
    two = create(teacher, ASK, n=2).choices
    assert two[0].message.content == same[0] != two[1].message.content


def test_without_a_format_the_story_comes_as_text_under_headings(teacher):
    answer = create(teacher, ASK, response_format={"type": "text"}).choices[0].message.content
    told = json.loads(create(teacher, ASK).choices[0].message.content)
    assert answer == f"Story: {told['story']}\n\nSummary: {told['summary']}"


def test_max_tokens_cuts_and_says_so(teacher):
    for name in ("max_tokens", "max_completion_tokens"):
        answer = create(teacher, ASK, **{name: 40})
        assert answer.choices[0].finish_reason == "length"
        assert answer.usage.completion_tokens == 40


def test_stats_and_usage_agree(teacher):
    before = stats(teacher)
    answers = [create(teacher, ask) for ask in asks(PromptPlan(seed=9), 0, 20)]
    again = create(teacher, asks(PromptPlan(seed=9), 3, 4)[0])
    after = stats(teacher)
    assert after["requests"] - before["requests"] == after["answered"] - before["answered"] == 21
    assert after["distinct"] - before["distinct"] == 20
    assert after["answered_again"] - before["answered_again"] == 1
    for kind in ("prompt_tokens", "completion_tokens"):
        assert after[kind] - before[kind] == sum(getattr(each.usage, kind) for each in [*answers, again])
    assert [2, 2] in after["keys"].values()


def test_it_names_its_only_model_and_refuses_what_it_cannot_do(teacher):
    assert [model.id for model in teacher.models.list()] == [MODEL]
    with pytest.raises(openai.NotFoundError, match="found model 'gpt-4o', expected 'storyteller-1'"):
        create(teacher, ASK, model="gpt-4o")
    with pytest.raises(openai.BadRequestError, match="whole stories only"):
        create(teacher, ASK, stream=True)
    with pytest.raises(openai.BadRequestError, match="no list of messages"):
        create(teacher, ASK, messages=[])
    with pytest.raises(urllib.error.HTTPError, match="404") as error:
        urllib.request.urlopen(str(teacher.base_url).replace("/v1/", "/elsewhere"))
    error.value.close()


def test_mischief_shows_up_at_its_rates_and_a_retry_can_succeed():
    rates = {"rate_limited": 0.15, "server_error": 0.15, "malformed": 0.15, "refusal": 0.15, "truncated": 0.15}
    mischief = Mischief(**rates, near_copies=0.2, planted={"troll": 0.2, "robot": 0.1}, retry_after=0.25)
    seen, stories = Counter(), []
    with running(mischief) as base_url, openai.OpenAI(base_url=base_url, api_key="none", max_retries=0) as client:
        for ask in asks(PromptPlan(), 0, 300):
            for _ in range(20):
                kind, story = outcome(client, ask)
                seen[kind] += 1
                if story:
                    stories.append(story)
                    break
        faults = stats(client)["faults"]
    assert len(stories) == 300, "every request succeeds in the end"
    tries = seen.total()
    for kind in rates:
        assert 0.06 < seen[kind] / tries < 0.22, (kind, seen)
        assert seen[kind] == faults[kind]
    assert 30 < sum("troll" in story for story in stories) < 80
    sets = [shingles(story) for story in stories]
    near = sum(any(jaccard(sets[n], other) >= 0.8 for other in sets[:n]) for n in range(300))
    assert 15 < near < 75


def outcome(client: openai.OpenAI, ask: Ask) -> tuple[str, str | None]:
    """What a careful client makes of one try: the kind of fault, or "story" and the story."""
    try:
        choice = create(client, ask).choices[0]
    except openai.RateLimitError as error:
        assert error.response.headers["retry-after"] == "0.25"
        return "rate_limited", None
    except openai.InternalServerError as error:
        assert error.status_code == 500
        return "server_error", None
    if choice.finish_reason == "length":
        return "truncated", None
    if choice.message.refusal or "cannot write" in choice.message.content:
        return "refusal", None
    try:
        return "story", json.loads(choice.message.content)["story"]
    except json.JSONDecodeError:
        return "malformed", None


LOST = ("garbled", "slow_drip", "cut", "oversized")


@pytest.mark.parametrize("fault", ["unavailable", *LOST, "no_usage", "filtered", "empty"])
def test_every_fault_is_what_it_says_and_is_billed_as_it_is(fault):
    mischief = Mischief(**{fault: 1.0}, drip_seconds=60.0)
    with running(mischief) as base_url, openai.OpenAI(base_url=base_url, api_key="none", max_retries=0) as client:
        assert fault in symptoms(client)
        seen = stats(client)
    assert seen["faults"] == {fault: 1} and seen["requests"] == 1
    assert seen["answered"] == (0 if fault in LOST or fault == "unavailable" else 1)
    bill = seen["bill"]["live"].get(fault, {})
    assert bool(bill) == (fault != "unavailable")
    assert bill.get("prompt_tokens", 0) == seen["prompt_tokens"] and bill.get("answers", 0) == len(seen["bill"]["live"])


def symptoms(client: openai.OpenAI) -> str:
    """What a plain reader of bytes meets."""
    body = json.dumps({"model": MODEL, "messages": messages(ASK), "response_format": response_format()}).encode()
    try:
        with urllib.request.urlopen(str(client.base_url) + "chat/completions", data=body, timeout=10) as answer:
            started, data = time.monotonic(), b""
            while chunk := answer.read1(10_000_000):
                data += chunk
                if time.monotonic() - started > 3:
                    return "slow_drip"
    except urllib.error.HTTPError as error:
        with error:
            return {503: "unavailable"}[error.code]
    if len(data) < int(answer.headers["content-length"]):
        return "cut"
    if len(data) > 4_000_000:
        return "oversized"
    if data.startswith(b"<html>"):
        return "garbled"
    reply = json.loads(data)
    choice = reply["choices"][0]
    if not choice["message"]["content"]:
        return "empty"
    return "no_usage" if "usage" not in reply else {"content_filter": "filtered"}[choice["finish_reason"]]


def test_what_was_sent_before_is_cached_and_a_batch_has_a_bill_of_its_own(tmp_path):
    request = {"model": MODEL, "messages": messages(ASK), "seed": 5}
    line = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": request}
    lines = [line, line | {"custom_id": "b", "body": request | {"model": "other"}}]
    text = "".join(json.dumps(each) + "\n" for each in lines).encode()
    with running() as base_url, openai.OpenAI(base_url=base_url, api_key="none", max_retries=0) as client:
        first, second = (client.chat.completions.create(**request).usage for _ in range(2))
        assert (first.prompt_tokens_details.cached_tokens, first.prompt_tokens) == (0, second.prompt_tokens)
        assert 0 < second.prompt_tokens_details.cached_tokens < second.prompt_tokens
        file = client.files.create(file=("lines.jsonl", text), purpose="batch")
        made = client.batches.create(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h", metadata={"key": "mine"}
        )
        assert [(each.id, each.metadata) for each in client.batches.list()] == [(made.id, {"key": "mine"})]
        states = [client.batches.retrieve(made.id).status for _ in range(3)]
        assert (made.status, *states) == ("validating", "in_progress", "completed", "completed")
        done = client.batches.retrieve(made.id)
        good, bad = (
            json.loads(client.files.content(each).content) for each in (done.output_file_id, done.error_file_id)
        )
        seen = stats(client)
        with pytest.raises(openai.NotFoundError):
            client.batches.retrieve("batch_of_somebody_else")
    assert (good["custom_id"], bad["custom_id"], bad["response"]["status_code"]) == ("a", "b", 404)
    assert seen["bill"]["batch"]["ok"]["answers"] == 1 and seen["bill"]["live"]["ok"]["answers"] == 2


def test_slow_means_seconds_before_the_answer():
    with running(Mischief(slow=0.3)) as base_url, openai.OpenAI(base_url=base_url, api_key="none") as client:
        started = time.monotonic()
        create(client, ASK)
        assert time.monotonic() - started >= 0.3


def test_mischief_refuses_impossible_rates():
    with pytest.raises(ValidationError):
        Mischief(refusal=1.5)
    with pytest.raises(ValidationError):
        Mischief(lazyness=0.5)
    assert parse_planted(["troll=0.01", "a robot = 0.5"]) == {"troll": 0.01, "a robot": 0.5}
    with pytest.raises(ValueError, match="expected CONCEPT=RATE"):
        parse_planted(["troll"])


PARENT = """
import time
from lib.text.storyteller import running
with running() as url:
    print(url, flush=True)
    time.sleep(60)
"""


def is_up(base_url: str) -> bool:
    try:
        with urllib.request.urlopen(base_url + "/models", timeout=2) as answer:
            return answer.status == 200
    except OSError:
        return False


def test_the_server_ends_with_the_block_and_with_a_killed_parent():
    with running() as base_url:
        assert is_up(base_url)
    assert not is_up(base_url)
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True) as parent:
        base_url = parent.stdout.readline().strip()
        assert is_up(base_url)
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        deadline = time.monotonic() + 5
        while is_up(base_url) and time.monotonic() < deadline:
            time.sleep(0.05)
    assert not is_up(base_url)
