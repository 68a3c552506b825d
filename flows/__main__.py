"""The command line: `storymill`, or `python -m flows`.

Each command imports what it needs when it runs: the ones that only read start at once, without Prefect and torch.
"""

import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Annotated, Literal, NoReturn

from cyclopts import App, Parameter, validators

from flows import wiring
from lib import choice, overrides, presets, store
from lib.errors import Stopped, TransientError, UserError

app = App(
    name="storymill",
    help="Small story models, end to end: stories, tokenizer, pretraining, instructions, alignment.",
    version=metadata.version("storymill"),
    suppress_keyboard_interrupt=False,  # main says that the same command goes on
)
Overrides = overrides.overrides_of(presets.Chain, presets.laptop())
Changes = Annotated[Overrides | None, Parameter(name="*", group="Settings of each stage (laptop's in brackets)")]
Source = Annotated[choice.Source, Parameter(name="*")]
Seed = Annotated[int, Parameter(validator=validators.Number(gte=0))]
More = Annotated[int | None, Parameter(validator=validators.Number(gte=0))]
ASIS = choice.Source()
Model = Literal["aligned", "instruct", "base"]


@app.command
def run(
    *,
    source: Source = ASIS,
    more: More = None,
    changes: Changes = None,
) -> None:
    """Run the whole chain; what is finished already comes from the cache.

    Parameters
    ----------
    more
        Stories to add to those this plan has made so far.
    """
    from flows import session

    config = choice.chosen(source, changes)
    choice.require_base(source, config)
    session.run(config, more)


@app.command
def generate(
    *,
    source: Source = ASIS,
    more: More = None,
    thin: str | None = None,
    count: Annotated[int | None, Parameter(validator=validators.Number(gte=1))] = None,
    changes: Changes = None,
) -> None:
    """Make (or read) stories and nothing else: ask the teacher, clean, drop duplicates, split.

    Parameters
    ----------
    more
        Stories to add to those this plan has made so far.
    thin
        A question such as "a boy crossing a bridge with a troll under it": ask for more stories with those of its
        words that the stories so far cover too little.
    count
        With --thin: how many stories for each such word; as many as it lacks if not given.
    """
    from flows import session

    if thin is not None and more is not None:
        raise UserError(
            "found --more beside --thin; --thin adds its own stories to those made so far: leave out --more"
        )
    if thin is None and count is not None:
        raise UserError("found --count without --thin; how many stories a plan asks for is --generate.plan.count")
    config = choice.chosen(source, changes)
    if thin is not None:
        session.generate_thin(config, thin, count)
    else:
        session.generate(config, more)


@app.command
def plan(
    *,
    source: Source = ASIS,
    pilot: Annotated[int | None, Parameter(validator=validators.Number(gte=1))] = None,
    changes: Changes = None,
) -> None:
    """Say per stage whether a run would find it cached, and if not, why; and what its requests would cost.

    Parameters
    ----------
    pilot
        Send this many of the missing requests for real, to estimate the cost of the rest; without it nothing changes.
    """
    from lib.web import cost, tables
    from lib.web.plan import Plan

    found = Plan()
    wiring.everything(choice.chosen(source, changes), found.do)
    tables.show(["stage", "a run would", "why"], [(line.stage, line.what, line.why) for line in found.lines], "table")
    if config := found.unmade.get("generate") or found.unmade.get("selfinstruct"):
        if pilot:
            cost.pilot(config, pilot, lambda text, *_: print(text, file=sys.stderr))
        print("\nrequests:", *cost.lines(config), sep="\n  ")


@app.command(name="presets")
def show_presets() -> None:
    """List the presets: parameters, what each needs, and whose model it reproduces."""
    from lib.web import choices, tables

    tables.show(choices.COLUMNS, choices.rows(), "table")


@app.command
def sql(query: str | None = None, /, *, format: Literal["table", "csv", "json"] = "table") -> None:
    """Ask DuckDB a question of everything there is; without a question, list the views.

    Parameters
    ----------
    query
        One SQL query, for example: select split, count(*) from stories group by split
    format
        For a reader, a spreadsheet or a program.
    """
    from lib.web import tables

    tables.show(*tables.ask(store.connect(), query or tables.VIEWS), format)


@app.command
def coverage(question: str, /, *, plot: Path | None = None) -> None:
    """Count how well the stories cover a question such as "a boy crossing a bridge with a troll under it".

    Parameters
    ----------
    question
        What somebody may ask a model for.
    plot
        A PNG to draw the counts into.
    """
    from lib.web import coverage as reader

    found = reader.coverage(store.connect(), question)
    reader.show(found)
    if plot:
        plot.write_bytes(reader.picture(found))
        print(f"\nplot  {plot}")


@app.command
def sample(
    prompt: str,
    /,
    *,
    model: Model = "aligned",
    count: int = 1,
    temperature: float = 0.8,
    top_p: float = 0.95,
    seed: Seed = 0,
    complete: bool = False,
    top_k: int = 0,
    min_p: float = 0.0,
    repetition_penalty: float = 1.0,
    stop: list[str] | None = None,
) -> None:
    """Write a story for an instruction, or, with --complete, go on from an opening.

    Parameters
    ----------
    top_k
        Draw from so many of the likeliest pieces; 0 from all.
    min_p
        Draw from pieces with at least this share of the likeliest's probability.
    repetition_penalty
        Above 1, pieces that stand there already become less likely.
    stop
        A text before which the story ends; may be given several times.
    """
    from lib.web import chat

    how = {"temperature": temperature, "top_p": top_p, "top_k": top_k, "min_p": min_p}
    how |= {"repetition_penalty": repetition_penalty, "stop": tuple(stop or ())}
    chat.sample(prompt, model=model, count=count, seed=seed, complete=complete, **how)


@app.command
def chat(*, model: Model = "aligned", temperature: float = 0.8) -> None:
    """Talk to a model in the terminal."""
    from lib.web import chat as talk

    talk.chat(model=model, temperature=temperature)


@app.command
def serve(*, host: str = "127.0.0.1", port: int = 8000) -> None:
    """Serve a chat page and an OpenAI-compatible endpoint of the three models."""
    from lib.web import server

    server.serve(host=host, port=port)


@app.command
def report() -> None:
    """Print the newest report and say where its page lies."""
    from lib.web import terminal

    terminal.show_newest_report()


@app.command
def export(folder: Path, /, *, model: Model = "aligned") -> None:
    """Copy a model, in Hugging Face's and llama2.c's formats, into a folder."""
    from lib.web import exporting

    exporting.export(folder, model)


@app.command
def ui() -> None:
    """Start the Prefect server, deploy the schedules of prefect.yaml, and work on what is due until Ctrl-C."""
    from flows import session

    session.ui()


@app.command
def down() -> None:
    """Stop the Prefect server that run and ui start."""
    from flows import server

    print("stopped" if server.stop() else "no server of ours was running")


def main() -> None:
    """Run the command; a user's error is one message on stderr and exit code 1, a stop that was asked for is code 3."""
    try:
        _with_a_full_disk_told_as_one(app)
    except Stopped as stop:
        _end(str(stop), 3)
    except (UserError, TransientError, store.CorruptDataset) as error:
        _end(str(error), 1)
    except KeyboardInterrupt:
        _end("stopped; the same command goes on from here", 130)


def _with_a_full_disk_told_as_one(command: Callable[[], None]) -> None:
    try:
        command()
    except OSError as error:
        store.raise_if_full(error, "the data folder")
        raise


def _end(text: str, code: int) -> NoReturn:
    from lib.web.tables import printable

    print(f"storymill: {printable(text)}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
