"""Server: the chat page, and the models as an OpenAI-compatible endpoint on the loopback.

    GET  /                      one page that asks for nothing but this server
    GET  /v1/models
    POST /v1/chat/completions   the last user message is the request; of the turns before it, the model is given what
                                `memory` says (lib/web/memory.py): all that fit, where it was taught turns, else none
    POST /v1/completions        the prompt is a text to go on from

Both take model, stream, stop, seed, n, logprobs, max_tokens, temperature, top_p, top_k, min_p and repetition_penalty;
anything else an OpenAI client sends is ignored, null is as if left out, and a message may come in parts of text.
The first chunk, or the answer, also holds `storymill.prompt`: what the model was given, and `storymill.forgotten`: how
many of the oldest turns had no room.
Stories are written together, and none depends on who else asks; a few may wait, and who comes after them gets 429 with
Retry-After. A client that goes away ends its story.
"""

import base64
import hashlib
import re
import secrets
import socket
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, model_validator
from rich.console import Console
from starlette.exceptions import HTTPException

from lib.errors import UserError
from lib.model.sampling import BATCH
from lib.web.answers import Shape, answer
from lib.web.engine import Asking, Engine, finished_engines
from lib.web.guard import Guard
from lib.web.memory import memory_of, modes_of, turns_of
from lib.web.turns import Busy, Turns

PAGE = Path(__file__).with_name("page.html")
HOST = "127.0.0.1"
MAX_PROMPT = 2000  # characters
MOST = BATCH + 8  # answers on their way: those that are written together, and a few that wait
MOST_CHOICES = 16  # answers to one request


def _of_whole_characters(text: str) -> str:
    """JSON may hold half of a character (\\ud800), which the tokenizer and an answer's UTF-8 have no bytes for."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"found half of a character (a lone surrogate) at {error.start}, expected text") from error
    return text


def _in_one(content: Any) -> Any:
    """A text; of OpenAI's parts those of text, a line each."""
    if not isinstance(content, list):
        return content
    found = [(part.get("type"), part.get("text")) if isinstance(part, dict) else (None, None) for part in content]
    if others := [kind for kind, text in found if kind != "text" or not isinstance(text, str)]:
        raise ValueError(f"found a part of type {str(others[0])[:40]!r}, expected parts of type 'text' with a text")
    return "\n".join(text for _, text in found)


Text = Annotated[str, AfterValidator(_of_whole_characters)]


class Ask(BaseModel):
    """What both endpoints take. Unknown fields are ignored: clients send many that mean nothing here."""

    model: str
    stream: bool = False
    stop: Text | list[Text] | None = None
    seed: int | None = Field(None, ge=0, lt=2**63)
    max_tokens: int = Field(400, ge=1, le=4096)
    temperature: float = Field(0.8, ge=0, le=2)
    top_p: float = Field(0.95, gt=0, le=1)
    top_k: int = Field(0, ge=0)
    min_p: float = Field(0.0, ge=0, le=1)
    repetition_penalty: float = Field(1.0, gt=0, le=10)
    n: int = Field(1, ge=1, le=MOST_CHOICES)
    logprobs: bool | int | None = None  # of the ids told; not of others beside them

    @model_validator(mode="before")
    @classmethod
    def _without_null(cls, body: Any) -> Any:
        return {name: value for name, value in body.items() if value is not None} if isinstance(body, dict) else body

    def asking(self, text: str, mode: str) -> Asking:
        stops = [self.stop] if isinstance(self.stop, str) else self.stop or []
        if not len(text.strip()) > 0 or len(text) > MAX_PROMPT:
            raise UserError(f"found a prompt of {len(text):,} characters, expected 1 to {MAX_PROMPT:,}")
        if len(stops) > 4 or not all(0 < len(stop) <= 100 for stop in stops):
            raise UserError("expected at most 4 stop strings of 1 to 100 characters")
        seed = secrets.randbits(31) if self.seed is None else self.seed
        how = {"top_k": self.top_k, "min_p": self.min_p, "repetition_penalty": self.repetition_penalty}
        return Asking(text, mode, self.max_tokens, self.temperature, self.top_p, seed, tuple(stops), **how)


class Message(BaseModel):
    role: str
    content: Annotated[Text, BeforeValidator(_in_one)]


class ChatAsk(Ask):
    messages: list[Message] = Field(min_length=1, max_length=100)
    max_completion_tokens: int | None = Field(None, ge=1, le=4096)
    memory: str | None = None

    def request(self) -> Asking:
        turns, asked = turns_of([(message.role, message.content) for message in self.messages])
        chosen = self.model_copy(update={"max_tokens": self.max_completion_tokens or self.max_tokens})
        return replace(chosen.asking(asked, "request"), turns=tuple(turns), memory=self.memory)


class TextAsk(Ask):
    prompt: Text

    def request(self) -> Asking:
        return self.asking(self.prompt, "opening")


def create_app(engines: Mapping[str, Engine], most: int = MOST) -> FastAPI:
    """The application over loaded models. `most`: answers that may be on their way at once."""
    page = PAGE.read_text()
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)  # those pages load scripts from elsewhere
    app.add_middleware(Guard, policy=_policy(page))
    turns = app.state.turns = Turns(most)

    @app.get("/")
    def home() -> HTMLResponse:
        return HTMLResponse(page)

    @app.get("/v1/models")
    def models() -> dict[str, Any]:
        about = {
            name: {"parameters": e.num_params, "max_length": e.max_length, "layout": e.layout}
            | {"memories": [str(memory_of(mode, e.layout)) for mode in modes_of(e.layout)]}
            for name, e in engines.items()
        }
        data = [
            {"id": name, "object": "model", "created": 0, "owned_by": "storymill"} | about[name] for name in engines
        ]
        return {"object": "list", "data": data}

    async def answered(ask: ChatAsk | TextAsk, kind: str, http: Request) -> Any:
        engine, scored = _engine(engines, ask.model), ask.logprobs not in (None, False)
        shape = Shape(kind, engine.tokenizer.decode, ask.n, ask.stream, scored)
        return await answer(engine, ask.request(), shape, turns, http)

    @app.post("/v1/chat/completions")
    async def chat(ask: ChatAsk, http: Request) -> Any:
        return await answered(ask, "chat.completion", http)

    @app.post("/v1/completions")
    async def complete(ask: TextAsk, http: Request) -> Any:
        return await answered(ask, "text_completion", http)

    _explain_errors(app)
    return app


def serve(host: str = HOST, port: int = 8000) -> None:
    """Serve every trained model until Ctrl-C, on the loopback alone: there is no login."""
    if host not in ("127.0.0.1", "localhost", "::1"):
        raise UserError(f"found host {host!r}, expected 127.0.0.1, localhost or ::1: the page has no login")
    engines = finished_engines()
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as uvicorn does: a port just left is free
        try:
            taken.bind((host, port))
        except OSError as error:
            raise UserError(f"cannot listen on {host}:{port} ({error.strerror}); choose another with --port") from error
    shown = f"http://{'[::1]' if ':' in host else host}:{port}"
    told = f"{shown}      the page\n{shown}/v1   OpenAI-compatible: {', '.join(engines)}\nCtrl-C ends it."
    Console(highlight=False).print(told)
    uvicorn.run(create_app(engines), host=host, port=port, log_level="warning", limit_concurrency=4 * MOST)


def _engine(engines: Mapping[str, Engine], name: str) -> Engine:
    if name not in engines:
        raise UserError(f"found no model {name[:80]!r}, expected one of {', '.join(engines)}")
    return engines[name]


def _explain_errors(app: FastAPI) -> None:
    """Every refusal in the shape that OpenAI's clients read."""

    def said(status: int, text: str, **headers: str) -> JSONResponse:
        kind = "rate_limit_error" if status == 429 else "invalid_request_error"
        error = {"message": text, "type": kind, "param": None, "code": None}
        return JSONResponse({"error": error}, status, headers)

    @app.exception_handler(UserError)
    async def refused(_: Request, error: UserError) -> JSONResponse:
        return said(400, str(error))

    @app.exception_handler(RequestValidationError)
    async def unreadable(_: Request, error: RequestValidationError) -> JSONResponse:
        told = "; ".join(f"{'.'.join(map(str, e['loc'][1:])) or 'body'}: {e['msg']}" for e in error.errors()[:3])
        return said(400, told)

    @app.exception_handler(HTTPException)  # no such page, another method, JSON that is nested too deep
    async def unknown(_: Request, error: HTTPException) -> JSONResponse:
        return said(error.status_code, str(error.detail), **error.headers or {})

    @app.exception_handler(Busy)
    async def busy(_: Request, error: Busy) -> JSONResponse:
        return said(429, str(error), **{"Retry-After": "5"})


def _policy(page: str) -> str:
    """A content security policy under which nothing runs but this page's own script and style, named by their hash."""

    def hashes(tag: str) -> str:
        bodies = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digests = (base64.b64encode(hashlib.sha256(body.encode()).digest()).decode() for body in bodies)
        return " ".join(f"'sha256-{digest}'" for digest in digests)

    allowed = f"script-src {hashes('script')}; style-src {hashes('style')}; connect-src 'self'; img-src data:"
    return f"default-src 'none'; {allowed}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
