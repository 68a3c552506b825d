"""Chat: ask a model for stories at the terminal.

In:   loaded models by name; lines typed by a person
Out:  stories, as they are written
    a cat who could not sleep     a request: "Write a story about a cat who could not sleep"
    /open Once upon a time        an opening to go on from
    /model base                   another model      /temperature 0.5    how daring
    /help                         this list          /quit               or Ctrl-D
Ctrl-C stops the story; at the prompt, it leaves.
"""

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from rich.console import Console
from rich.text import Text

from lib.errors import UserError
from lib.web.engine import Asking, Engine, engine_of, finished_engines
from lib.web.tables import printable

HELP = """a cat who could not sleep     asks for a story about it
/open Once upon a time        goes on from these words
/model NAME                   {models}
/temperature T                0 (always the likeliest word) to 2; now {temperature}
/quit                         or Ctrl-D; Ctrl-C stops a story"""


@dataclass(frozen=True)
class Setting:
    """What the next story is told with."""

    model: str
    temperature: float = 0.8


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
        return replace(setting, model=rest)
    if command == "/temperature":
        return replace(setting, temperature=_temperature(rest))
    if command == "/help":
        console.print(HELP.format(models=", ".join(engines), temperature=setting.temperature), style="dim")
    elif command == "/open" and rest:
        tell(Asking(rest, "opening", temperature=setting.temperature), engines[setting.model], console)
    elif line.startswith("/"):
        raise UserError(f"found {command}, expected /open TEXT, /model, /temperature, /help or /quit")
    elif line:
        tell(Asking(line, "request", temperature=setting.temperature), engines[setting.model], console)
    return setting


def sample(
    prompt: str,
    *,
    model: str = "aligned",
    count: int = 1,
    temperature: float = 0.8,
    top_p: float = 0.95,
    seed: int = 0,
    complete: bool = False,
    console: Console | None = None,
) -> None:
    """`count` stories for one prompt, the same ones for the same seed; nothing but the stories is written."""
    engine, console = engine_of(model), console or Console(highlight=False)
    mode = "opening" if complete else "request"
    for number in range(count):
        asking = Asking(prompt, mode, temperature=temperature, top_p=top_p, seed=seed + number)
        text = (prompt if complete else "") + "".join(engine.tell(asking))
        console.print(Text(("\n" if number else "") + printable(text)), soft_wrap=True)


def tell(asking: Asking, engine: Engine, console: Console) -> None:
    """Write one story as it comes. Ctrl-C ends it and nothing else."""
    telling = engine.tell(replace(asking, seed=secrets.randbits(31)))
    if asking.mode == "opening":
        console.print(Text(printable(asking.text), style="dim"), end="")
    how = "out of room"
    try:
        for piece in telling:
            console.print(Text(printable(piece)), end="", soft_wrap=True)
        how = "ended by itself" if telling.ended else how
    except KeyboardInterrupt:
        how = "stopped"
    console.print(f"\n[{telling.tokens} tokens, {how}]\n", style="dim", markup=False)


def _temperature(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 2:
        raise UserError(f"found temperature {text!r}, expected a number from 0 to 2")
    return value
