"""The page, the endpoint and the terminal chat, over random weights; the endpoint through a real server and client."""

import asyncio
import http.client
import json
import random
import re
import socket
import threading
import time

import httpx
import openai
import pytest
import torch
import uvicorn
from rich.console import Console

from lib.errors import UserError
from lib.model import sampling
from lib.model.cache import Cache
from lib.model.draw import Draws
from lib.model.sampling import Batch
from lib.web import chat
from lib.web.desk import Desk
from lib.web.engine import Asking, Engine, Telling
from lib.web.guard import MAX_BODY
from lib.web.memory import as_request
from lib.web.server import PAGE, create_app
from lib.web.turns import Busy, Turns
from lib.web.unfolding import Unfolding, stop_at
from tests import tiny

ASK = {"model": "instruct", "messages": [{"role": "user", "content": "a cat"}], "seed": 3, "max_tokens": 24}


@pytest.fixture(autouse=True)
def one_thread():
    """Threads that wait for each other are slow where tests share two cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def engines():
    return {name: Engine.of(name, dataset) for name, dataset in tiny.models().items()}


@pytest.fixture
def app(engines):
    return create_app(engines, most=3)


@pytest.fixture
def base_url(app):
    """A real server on a free port, in a thread."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join()


@pytest.fixture
def client(base_url):
    with openai.OpenAI(base_url=f"{base_url}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_the_openai_client_streams_what_it_also_gets_whole(client):
    whole = client.chat.completions.create(**ASK)
    chunks = list(client.chat.completions.create(stream=True, **ASK))
    streamed = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert streamed == whole.choices[0].message.content
    assert len(chunks) > 2  # the first, the last, and text between: how much comes at once is the machine's affair
    assert chunks[-1].choices[0].finish_reason == whole.choices[0].finish_reason
    assert chunks[-1].usage == whole.usage
    assert chunks[0].storymill["prompt"] == "</s>Write a story about a cat<s>"


TALK = [
    {"role": "user", "content": "Sort a list."},
    {"role": "assistant", "content": "Use sort."},
    {"role": "user", "content": "Why?"},
]


@pytest.fixture
def talking(engines):
    """The models again, one of them taught tasks, in rows that hold a talk."""
    for name, layout in (("base", "pretrain"), ("instruct", "alpaca")):
        engines[name] = Engine.of(name, tiny.model("instruct", seed=1, layout=layout, max_length=600))
    return engines


def given(client, model, messages=TALK, **more):
    ask = {"model": model, "messages": messages, "max_tokens": 4, "seed": 1, "extra_body": more}
    whole = client.chat.completions.create(**ask).storymill
    streamed = list(client.chat.completions.create(stream=True, **ask))[0].storymill
    assert whole["prompt"] == streamed["prompt"] and whole["forgotten"] == streamed["forgotten"]
    return whole["prompt"], whole["forgotten"]


def test_a_model_of_tasks_is_given_the_talk_and_a_model_of_stories_the_request(talking, client):
    prompt, _ = given(client, "instruct")
    assert prompt.count("### Instruction:") == 2 and "Use sort.</s>" in prompt
    assert given(client, "instruct", memory="none")[0].count("### Instruction:") == 1
    assert "Sort a list.\nUse sort.\nWhy?\n\n### Response:" in given(client, "instruct", memory="joined")[0]
    assert given(client, "aligned")[0] == "</s>Write a story about Why?<s>"
    assert given(client, "base", memory="few-shot")[0].endswith("Sort a list.\nAI: Use sort.\nHuman: Why?\nAI:")
    with pytest.raises(openai.BadRequestError, match="expected one of none, few-shot for this model"):
        given(client, "aligned", memory="blocks")


def test_turns_without_room_are_counted_and_the_models_say_what_they_remember(talking, client):
    prompt, forgotten = given(client, "instruct", TALK[:2] * 20 + TALK)
    assert forgotten + prompt.count("### Instruction:") == 22 and forgotten > 0
    memories = {model.id: model.memories for model in client.models.list()}
    assert memories == {
        "base": ["none", "few-shot"],
        "instruct": ["blocks", "window 3", "joined", "none", "few-shot"],
        "aligned": ["none", "few-shot"],
    }


def test_a_title_ends_a_few_shot_answer_while_it_is_written(talking, monkeypatch):
    engine = talking["base"]
    written = engine.tokenizer.encode("It sat.\nHuman: Who ran? and so on for ever")
    drawn = []

    class Written(Draws):
        """Draws what is written, a piece a step."""

        def __call__(self, logits_BV, uniform_B, seen_BV=None):
            drawn.append(written[len(drawn)])
            return torch.tensor(drawn[-1:]), torch.zeros(1)

    monkeypatch.setattr(sampling, "Draws", Written)
    telling = engine.tell(Asking("Who sat?", memory="few-shot"))
    assert "".join(telling) == "It sat." and telling.ended
    assert engine.tokenizer.decode(drawn).endswith("Human:")  # nothing was drawn behind the title


def test_a_completion_goes_on_from_the_prompt(client):
    done = client.completions.create(model="base", prompt="One day, Tom", max_tokens=12, temperature=0)
    assert done.storymill["prompt"] == "<s>One day, Tom"
    assert done.usage.completion_tokens <= 12
    again = client.completions.create(model="base", prompt="One day, Tom", max_tokens=12, temperature=0)
    assert again.choices[0].text == done.choices[0].text


def test_a_stop_string_ends_the_story_before_it(client):
    whole = client.chat.completions.create(**ASK).choices[0].message.content
    stop = whole[10:13]
    cut = client.chat.completions.create(**ASK, stop=stop)
    assert cut.choices[0].message.content == whole[: whole.index(stop)]
    assert cut.choices[0].finish_reason == "stop"


def test_models_are_listed(client):
    assert [model.id for model in client.models.list()] == ["base", "instruct", "aligned"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model": "gpt-5"}, "expected one of base, instruct, aligned"),
        ({"temperature": 3}, "temperature"),
        ({"n": 17}, "n:"),
        ({"extra_body": {"min_p": 1.5}}, "min_p"),
        ({"extra_body": {"repetition_penalty": 0}}, "repetition_penalty"),
        ({"messages": [{"role": "system", "content": "x"}]}, "no message of role user"),
        ({"messages": [{"role": "user", "content": "cat " * 501}]}, "expected 1 to 2,000"),
        ({"messages": [{"role": "user", "content": "🐸" * 60}]}, "tokens"),
    ],
)
def test_a_bad_request_is_explained(client, change, says):
    with pytest.raises(openai.BadRequestError, match=says):
        client.chat.completions.create(**(ASK | change))


BROKEN = "a cat \\ud800"  # as JSON has it: half of a character, which no UTF-8 says


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("chat/completions", f'{{"model": "instruct", "messages": [{{"role": "user", "content": "{BROKEN}"}}]}}'),
        ("chat/completions", f'{{"model": "{BROKEN}", "messages": [{{"role": "user", "content": "a cat"}}]}}'),
        ("completions", f'{{"model": "base", "prompt": "{BROKEN}"}}'),
        ("completions", f'{{"model": "base", "prompt": "a cat", "stop": "{BROKEN}"}}'),
        ("completions", f'{{"model": "base", "prompt": "a cat", "stop": ["x", "{BROKEN}"]}}'),
        ("completions", '{"model": "base", "prompt": ' + "[" * 30_000),
        ("completions", '{"model": "base", "prompt": '),
        ("completions", '{"prompt": "a cat"}'),
        ("completions", "[]"),
        ("nothing", "{}"),
        ("models", "{}"),
    ],
    ids=["message", "model", "prompt", "stop", "stops", "nested", "cut", "missing", "list", "page", "method"],
)
def test_what_cannot_be_read_is_refused_in_the_shape_of_openai(base_url, path, body):
    headers = {"Content-Type": "application/json"}
    answer = httpx.post(f"{base_url}/v1/{path}", content=body, headers=headers)
    assert answer.status_code == {"nothing": 404, "models": 405}.get(path, 400)
    assert answer.json()["error"]["type"] == "invalid_request_error"
    assert len(answer.json()["error"]["message"]) > 8


def test_what_openai_allows_is_the_same_request(client):
    whole = client.chat.completions.create(**ASK)
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "cat"}]
    nothing = dict.fromkeys(("temperature", "top_p", "n", "stop", "max_completion_tokens", "logprobs", "stream"))
    same = client.chat.completions.create(**ASK, extra_body=nothing)
    assert same.choices[0].message.content == whole.choices[0].message.content
    assert client.chat.completions.create(**(ASK | {"max_tokens": None})).usage.completion_tokens > 24
    asked = [
        client.chat.completions.create(**(ASK | {"messages": [{"role": "user", "content": content}]}))
        for content in ("a\ncat", parts)
    ]
    assert asked[0].storymill == asked[1].storymill
    with pytest.raises(openai.BadRequestError, match="image_url"):
        image = {"type": "image_url", "image_url": {"url": "x"}}
        client.chat.completions.create(**(ASK | {"messages": [{"role": "user", "content": [image]}]}))


def test_another_host_origin_type_or_size_is_refused(base_url):
    def status(**headers):
        return httpx.post(f"{base_url}/v1/chat/completions", json=ASK, headers=headers).status_code

    assert status() == 200
    assert status(Host="evil.example:80") == 403
    assert status(Host="127.0.0.1.evil.example") == 403
    assert status(Origin="http://evil.example") == 403
    assert status(Origin=base_url) == 200
    assert httpx.get(base_url, headers={"Host": "localhost"}).status_code == 200
    assert httpx.post(f"{base_url}/v1/chat/completions", content=json.dumps(ASK)).status_code == 415
    big = ASK | {"user": "x" * MAX_BODY}
    assert httpx.post(f"{base_url}/v1/chat/completions", json=big).status_code == 413


def test_a_body_that_grows_past_its_limit_is_refused(base_url):
    connection = http.client.HTTPConnection(base_url.removeprefix("http://"))
    parts = (b" " * 8192 for _ in range(MAX_BODY // 8192 + 2))
    headers = {"Content-Type": "application/json", "Transfer-Encoding": "chunked"}
    connection.request("POST", "/v1/completions", body=parts, headers=headers, encode_chunked=True)
    assert connection.getresponse().status == 413
    connection.close()


def test_every_answer_forbids_what_the_page_does_not_need(base_url):
    for path in ("/", "/v1/models", "/nothing"):
        headers = httpx.get(base_url + path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert "access-control-allow-origin" not in headers


def test_the_page_is_one_file_that_writes_text_only():
    page = PAGE.read_text()
    assert not re.findall(r"https?://|//cdn|@import|innerHTML|outerHTML|insertAdjacent|document\.write|eval\(", page)
    assert not re.findall(r"\son\w+=|style=", page)  # inline handlers and styles would need a weaker policy


def held(monkeypatch):
    """Nothing is drawn before the gate opens."""
    gate, step = threading.Event(), Batch.step
    monkeypatch.setattr(Batch, "step", lambda self: gate.wait(20) and step(self))
    return gate


def until(true):
    for _ in range(500):
        if true():
            return
        time.sleep(0.01)
    pytest.fail("waited 5 s")


def test_who_comes_after_a_full_queue_is_told_when_to_return(base_url, app, monkeypatch):
    answers, gate = [], held(monkeypatch)

    def ask():
        answers.append(httpx.post(f"{base_url}/v1/chat/completions", json=ASK, timeout=30).status_code)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    until(lambda: app.state.turns.inside == 3)
    refused = httpx.post(f"{base_url}/v1/chat/completions", json=ASK)
    gate.set()
    for thread in threads:
        thread.join()
    assert refused.status_code == 429
    assert refused.headers["retry-after"] == "5"
    assert answers == [200, 200, 200]
    assert app.state.turns.inside == 0


def test_a_client_that_goes_away_gives_its_turn_back(base_url):
    for _ in range(5):  # more than may be inside at once
        with httpx.stream("POST", f"{base_url}/v1/chat/completions", json=ASK | {"stream": True}) as response:
            next(response.iter_text())
    for _ in range(50):
        if (status := httpx.post(f"{base_url}/v1/chat/completions", json=ASK).status_code) == 200:
            break
        time.sleep(0.05)
    assert status == 200


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_goes_away_ends_its_story(base_url, app, engines, monkeypatch, stream):
    gate, ask = held(monkeypatch), ASK | {"stream": stream, "max_tokens": 140, "n": 2}
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{base_url}/v1/chat/completions", json=ask, timeout=0.3)
    until(lambda: app.state.turns.inside == 0)
    gate.set()
    until(lambda: engines["instruct"].desk._thread is None)  # with nobody left the desk does not write on
    assert not any(thread.name == "desk" for thread in threading.enumerate())


def test_turns_refuse_more_than_may_be_inside():
    turns = Turns(most=3)
    turns.enter(), turns.enter(2)
    with pytest.raises(Busy):
        turns.enter()
    turns.leave(2)
    turns.enter()
    with pytest.raises(Busy):
        turns.enter(2)


def test_a_story_is_the_same_alone_and_among_others(base_url, engines):
    app = create_app(engines)
    asks = [
        ASK | {"seed": seed, "temperature": (0, 0.7, 1.2)[seed % 3], "top_p": (1, 0.9)[seed % 2], "min_p": 0.01}
        | {"top_k": (0, 20)[seed % 2], "repetition_penalty": (1, 1.2)[seed % 2], "max_tokens": 20 + 5 * seed}
        for seed in range(8)
    ]  # fmt: skip

    async def together():
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:80") as client:
            sent = [client.post("/v1/chat/completions", json=ask) for ask in asks]
            return [answer.json() for answer in await asyncio.gather(*sent)]

    alone = [httpx.post(f"{base_url}/v1/chat/completions", json=ask).json() for ask in asks]
    for one, other in zip(alone, asyncio.run(together()), strict=True):
        assert one["choices"] == other["choices"]
        assert one["usage"] == other["usage"]


def test_requests_at_once_are_written_together(engines, monkeypatch):
    gate, sizes, came, submit = held(monkeypatch), [], [], Desk.submit
    waiting = Batch.step
    monkeypatch.setattr(Batch, "step", lambda self: sizes.append(len(rows := waiting(self))) or rows)
    monkeypatch.setattr(Desk, "submit", lambda self, ticket: submit(self, ticket) or came.append(ticket))
    tellings = [engines["base"].tell(Asking("a cat", seed=n, max_tokens=30)) for n in range(5)]
    texts = [""] * 5
    threads = [threading.Thread(target=lambda n=n: texts.__setitem__(n, "".join(tellings[n]))) for n in range(5)]
    for thread in threads:
        thread.start()
    until(lambda: len(came) == 5)
    gate.set()
    for thread in threads:
        thread.join()
    assert max(sizes) > 3
    assert all(texts)


def test_an_error_of_the_desk_reaches_who_asked_and_the_next_story_is_told(engines, monkeypatch):
    engine = engines["base"]
    with monkeypatch.context() as broken:
        broken.setattr(Cache, "join", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            list(engine.tell(Asking("a cat")))
    assert list(engine.tell(Asking("a cat", max_tokens=9)))


def test_several_answers_to_one_request_differ_and_are_counted_together(client):
    ask = ASK | {"n": 3, "logprobs": True}
    whole = client.chat.completions.create(**ask)
    texts = [choice.message.content for choice in whole.choices]
    assert len(set(texts)) == 3
    assert texts[0] == client.chat.completions.create(**ASK).choices[0].message.content
    assert whole.usage.completion_tokens == sum(len(choice.logprobs.content) for choice in whole.choices)
    for choice in whole.choices:
        assert "".join(each.token for each in choice.logprobs.content) == choice.message.content
    streamed, scores = ["", "", ""], [[], [], []]
    for chunk in client.chat.completions.create(stream=True, **ask):
        [choice] = chunk.choices
        streamed[choice.index] += choice.delta.content or ""
        scores[choice.index] += [each.logprob for each in choice.logprobs.content]
    assert streamed == texts
    assert chunk.usage == whole.usage
    assert scores == [[each.logprob for each in choice.logprobs.content] for choice in whole.choices]
    assert all(score <= 0 for each in scores for score in each)


def test_tokens_behind_a_stop_string_are_not_written(client, engines):
    whole = client.chat.completions.create(**ASK)
    text, stop = whole.choices[0].message.content, whole.choices[0].message.content[10:13]
    cut = client.chat.completions.create(**ASK, stop=stop)
    assert cut.usage.completion_tokens < whole.usage.completion_tokens
    assert cut.choices[0].message.content == text[: text.index(stop)]


@pytest.mark.parametrize(
    ("typed", "asked"),
    [
        ("a cat", "Write a story about a cat"),
        ("A story about a cat", "Write a story about a cat"),
        ("a short story about a cat", "Write a short story about a cat"),
        ("write a story about a cat", "Write a story about a cat"),
        ("Please tell me a story about  a cat ", "Write a story about a cat"),
        ("the storyteller", "Write a story about the storyteller"),
    ],
)
def test_what_people_type_becomes_the_instruction_the_models_know(typed, asked):
    assert as_request(typed) == asked


def test_text_that_may_become_a_stop_string_is_held_back():
    assert stop_at("He said En", ("End", "xx"), 0) == (8, False)
    assert stop_at("He said End.", ("End",), 0) == (8, True)
    assert stop_at("He said", (), 0) == (7, False)


@pytest.mark.parametrize("opening", [False, True])
def test_text_unfolds_to_what_decoding_everything_at_once_gives(engines, opening):
    """Any ids, bytes and control pieces among them, and stop strings anywhere."""
    decode, dice = engines["base"].tokenizer.decode, random.Random(3)
    before = engines["base"].template.completion_prefix("One day, Tom") if opening else []
    for length in range(1, 120):
        ids = [dice.choice((dice.randrange(340), dice.randrange(3, 259))) for _ in range(length)]
        if length % 2:
            ids = [i for i in ids if i >= 259] or [300]
        whole = decode(before + ids)[len(decode(before)) :]
        stops = [whole[length // 2 : length // 2 + 3] or "?", "zzz"] if length % 3 == 0 else []
        unfolding, told = Unfolding(decode, before, stops), ""
        while ids:
            few = dice.choice((1, 1, 2, 5))
            told += unfolding.add(ids[:few])
            ids = ids[few:]
            if unfolding.found:
                break
        told += unfolding.rest()
        assert told == whole[: stop_at(whole, stops, 0)[0] if unfolding.found else None]
        assert unfolding.found == any(stop in whole for stop in stops)


def test_pieces_join_to_the_whole_text_whatever_bytes_come(engines):
    """Random weights write broken characters often: what was told must never have to be taken back."""
    engine = engines["base"]
    for seed in range(5):
        asking = Asking("a cat", temperature=1.5, seed=seed, max_tokens=60)
        [done] = engine.sampler.generate(
            [engine.prefix(asking)], max_new=60, temperature=1.5, top_p=0.95, stop_ids={1, 2}, seed=seed
        )
        story = engine.template.cut("natural", done.ids)
        assert "".join(engine.tell(asking)) == engine.tokenizer.decode(story)


def chatted(engines, *lines):
    console, left = Console(record=True, width=200, highlight=False), iter(lines)

    def read(prompt):
        line = next(left, EOFError)
        if isinstance(line, type):
            raise line
        return line

    chat.chat(engines=engines, console=console, read=read)
    return console.export_text()


def test_the_terminal_tells_switches_and_explains(engines):
    text = chatted(
        engines, "a cat", "/model base", "/temperature 0", "/open One day", "/model x", "/temperature 9", "/no"
    )
    assert "aligned is listening" in text
    assert text.count("tokens, ") == 2
    for told in ("found no model 'x'", "a number from 0 to 2", "found /no, expected"):
        assert told in text


def test_the_terminal_remembers_forgets_and_says_what_had_no_room(talking, monkeypatch):
    asked = []
    monkeypatch.setattr(
        Engine, "tell", lambda self, asking, tell=Engine.tell: asked.append(asking) or tell(self, asking)
    )
    talk = ["/model instruct", "/temperature 0", *["Sort a list."] * 3, "/memory window 2", "Why?", "/help"]
    text = chatted(talking, *talk, "/forget", "Why?", "/model base", "/memory few-shot", "Who sat?", "/memory blocks")
    assert [len(asking.turns) for asking in asked] == [0, 1, 2, 3, 0, 1]
    assert [asking.memory for asking in asked] == [None] * 3 + ["window 2"] * 2 + ["few-shot"]
    assert asked[1].turns[0].prompt == "Sort a list." and asked[1].turns[0].answer
    assert "no room for the first 1 turns" in text and "now window 2" in text and "(4 turns)" in text
    assert "found memory 'blocks', expected one of none, few-shot" in text
    assert chatted(talking, "/model instruct", "/memory window 2", "/memory").rstrip().endswith("window 2")


def test_ctrl_c_stops_the_story_and_not_the_program(engines, monkeypatch):
    def interrupted(self, *rest):
        yield "One day"
        raise KeyboardInterrupt

    monkeypatch.setattr(Telling, "__iter__", interrupted)
    text = chatted(engines, "a cat", "/quit")
    assert "One day" in text
    assert "stopped]" in text


def test_a_sample_is_the_same_for_the_same_seed(engines):
    def sampled(**how):
        console = Console(record=True, width=200)
        chat.sample("One day", model="base", complete=True, console=console, **how)
        return console.export_text()

    assert sampled(seed=4) == sampled(seed=4) != sampled(seed=5)
    assert sampled(temperature=0).startswith("One day")
    assert sampled(temperature=0) == sampled(top_k=1, seed=9) == sampled(min_p=1.0, seed=3)
    assert sampled(temperature=0, repetition_penalty=2.0) != sampled(temperature=0)
    text = sampled(seed=4).replace("\n", "")
    assert text.startswith(cut := sampled(seed=4, stop=[text[20:24]]).replace("\n", ""))
    assert len(cut) <= 24


def test_an_unknown_model_is_refused_before_anything_is_read(engines):
    with pytest.raises(UserError, match="expected one of base"):
        chat.chat("big", engines=engines, read=lambda _: pytest.fail("read"))
