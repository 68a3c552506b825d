"""Chat: ask a model for stories at the terminal, or talk with it.

In:   loaded models by name; lines typed by a person
Out:  stories and answers, as they are written
    a cat who could not sleep     a request: "Write a story about a cat who could not sleep"; a model that was taught
                                  tasks gets it as it is typed
    /open Once upon a time        an opening to go on from
    /model base                   another model      /temperature 0.5    how daring
    /memory window 3              what of the talk so far the model is given: lib/web/memory.py
    /forget                       the talk starts anew
    /help                         this list          /quit               or Ctrl-D
Ctrl-C stops the story; at the prompt, it leaves.
"""

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from rich.console import Console
from rich.text import Text

from lib.errors import UserError
from lib.text.template import Turn
from lib.web.engine import Asking, Engine, engine_of, finished_engines
from lib.web.memory import memory_of, modes_of
from lib.web.tables import printable

HELP = """a cat who could not sleep     asks for a story about it
/open Once upon a time        goes on from these words
/model NAME                   {models}
/temperature T                0 (always the likeliest word) to 2; now {temperature}
/memory MODE                  what of the talk so far is given with a request: {memories}; now {memory}
/forget                       the talk so far ({turns} turns)
/quit                         or Ctrl-D; Ctrl-C stops a story"""


@dataclass(frozen=True)
class Setting:
    """What the next story is told with, and the talk so far."""

    model: str
    temperature: float = 0.8
    memory: str | None = None  # None: the model's own
    turns: tuple[Turn, ...] = ()


def chat(
    model: str = "aligned",
    temperature: float = 0.8,
    engines: Mapping[str, Engine] | None = None,
    console: Console | None = None,
    read: Callable[[str], str] = input,
) -> None:
    """Read, tell, repeat. `engines`: every trained model if not given. `read` asks for a line: tests give their own."""
    engines = finished_engines() if engines is None else engines
    console = console or Console(highlight=False)
    if model not in engines:
        raise UserError(f"found no model {model!r}, expected one of {', '.join(engines)}")
    setting = Setting(model, _temperature(str(temperature)))
    console.print(f"{setting.model} is listening. What is the story about? (/help, /quit)", style="dim")
    while True:
        try:
            line = read(f"{setting.model}> ").strip()
        except (EOFError, KeyboardInterrupt):
            console.print()
            return
        if line in ("/quit", "/exit", "/q"):
            return
        try:
            setting = answer(line, setting, engines, console)
        except UserError as error:
            console.print(Text(str(error), style="yellow"))


def answer(line: str, setting: Setting, engines: Mapping[str, Engine], console: Console) -> Setting:
    """Tell a story, or carry out a command; the setting for the next line."""
    command, _, rest = line.partition(" ")
    rest = rest.strip()
    if command == "/model":
        if rest not in engines:
            raise UserError(f"found no model {rest!r}, expected one of {', '.join(engines)}")
        return replace(setting, model=rest, memory=None)
    if command == "/temperature":
        return replace(setting, temperature=_temperature(rest))
    if command == "/memory" and not rest:
        console.print(str(memory_of(setting.memory, engines[setting.model].layout)), style="dim")
    elif command == "/memory":
        return replace(setting, memory=str(memory_of(rest, engines[setting.model].layout)))
    elif command == "/forget":
        return replace(setting, turns=())
    elif command == "/help":
        console.print(_help(setting, engines), style="dim")
    elif command == "/open" and rest:
        tell(Asking(rest, "opening", temperature=setting.temperature), engines[setting.model], console)
    elif line.startswith("/"):
        expected = "/open TEXT, /model, /temperature, /memory, /forget, /help or /quit"
        raise UserError(f"found {command}, expected {expected}")
    elif line:
        asking = Asking(line, temperature=setting.temperature, turns=setting.turns, memory=setting.memory)
        told = tell(asking, engines[setting.model], console)
        return replace(setting, turns=(*setting.turns, Turn(line, told)))
    return setting


def _help(setting: Setting, engines: Mapping[str, Engine]) -> str:
    layout = engines[setting.model].layout
    return HELP.format(
        models=", ".join(engines),
        temperature=setting.temperature,
        memories=", ".join(modes_of(layout)),
        memory=memory_of(setting.memory, layout),
        turns=len(setting.turns),
    )


def sample(
    prompt: str,
    *,
    model: str = "aligned",
    count: int = 1,
    temperature: float = 0.8,
    top_p: float = 0.95,
    seed: int = 0,
    complete: bool = False,
    top_k: int = 0,
    min_p: float = 0.0,
    repetition_penalty: float = 1.0,
    stop: Sequence[str] = (),
    console: Console | None = None,
) -> None:
    """`count` stories for one prompt, the same ones for the same seed; nothing but the stories is written."""
    engine, console = engine_of(model), console or Console(highlight=False)
    mode = "opening" if complete else "request"
    how = {"temperature": temperature, "top_p": top_p, "top_k": top_k, "min_p": min_p}
    how |= {"repetition_penalty": repetition_penalty, "stop": tuple(stop)}
    for number in range(count):
        asking = Asking(prompt, mode, seed=seed + number, **how)
        text = (prompt if complete else "") + "".join(engine.tell(asking))
        console.print(Text(("\n" if number else "") + printable(text)), soft_wrap=True)


def tell(asking: Asking, engine: Engine, console: Console) -> str:
    """Write one story as it comes, and give it back. Ctrl-C ends it and nothing else."""
    telling = engine.tell(replace(asking, seed=secrets.randbits(31)))
    if asking.mode == "opening":
        console.print(Text(printable(asking.text), style="dim"), end="")
    how, told = "out of room", ""
    try:
        for piece in telling:
            told += piece
            console.print(Text(printable(piece)), end="", soft_wrap=True)
        how = "ended by itself" if telling.ended else how
    except KeyboardInterrupt:
        how = "stopped"
    if telling.forgotten:
        how += f"; no room for the first {telling.forgotten} turns: /forget starts anew"
    console.print(f"\n[{telling.tokens} tokens, {how}]\n", style="dim", markup=False)
    return told


def _temperature(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 2:
        raise UserError(f"found temperature {text!r}, expected a number from 0 to 2")
    return value
