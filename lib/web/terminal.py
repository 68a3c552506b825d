"""Terminal: a chain's results, and a coverage, as tables to read at the prompt.

In:   a finished chain's datasets by name; a Coverage
Out:  lines on a rich console
What models wrote is stripped of control characters: text must not move the cursor or colour the prompt.
"""

from collections.abc import Mapping

from rich.columns import Columns
from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from lib.errors import UserError
from lib.store import Dataset, newest, root
from lib.web import chain as reading
from lib.web.chain import METRICS, MODELS, Chain, show_metric
from lib.web.coverage import Coverage
from lib.web.tables import printable

SHOWN = tuple(metric for metric in METRICS if metric != "mean_words")
LABELS = {"covered": "green", "thin": "yellow", "absent": "red"}
NEXT = """
try next
  storymill chat                                  ask the models for stories
  storymill serve                                 the same in a browser
  storymill sql "select * from metrics"           everything is a table
  storymill coverage "a boy, a bridge, a troll"   do the stories know this?"""
SIDE_BY_SIDE = 90  # columns from which three stories fit beside each other


def render_summary(datasets: Mapping[str, Dataset], console: Console | None = None) -> None:
    """What a run ends with: the funnel, the models' figures, the reward, three requests answered by every model."""
    console = console or Console()
    chain = reading.open_chain(datasets)
    _funnel(chain, console)
    _models(chain, console)
    if held := reading.heldout_reward(chain):
        console.print(
            f"reward on held-out prompts: {held[0]:.3f} before alignment, {held[1]:.3f} after", highlight=False
        )
    for prompt, told in reading.side_by_side(chain, "instruction", 3):
        _stories(prompt, told, console)


def show_summary(datasets: Mapping[str, Dataset], *, seconds: float, page: str) -> None:
    """What `storymill run` ends with."""
    console = Console(highlight=False)
    console.print()
    render_summary(datasets, console)
    minutes, rest = divmod(round(seconds), 60)
    console.print(f"\ndone in {minutes} min {rest} s" if minutes else f"\ndone in {rest} s")
    if "report" in datasets:
        console.print(f"report          {datasets['report'].path / 'report.html'}", soft_wrap=True)
    if "export" in datasets:
        console.print(f"exported model  {datasets['export'].path}", soft_wrap=True)
    console.print(f"Prefect's page  {page}", soft_wrap=True)
    console.print(Text(NEXT))


def show_newest_report() -> None:
    """The figures of the chain that was reported last, and where its page lies."""
    report = newest("report")
    if report is None:
        raise UserError(f"found no report under {root()}; make one first: storymill run")
    console = Console(highlight=False)
    inputs = {name: Dataset.model_validate(each) for name, each in report.manifest["inputs"].items()}
    render_summary(inputs, console)
    console.print(f"\nreport  {report.file('report.html')}", soft_wrap=True)


def _funnel(chain: Chain, console: Console) -> None:
    table = Table(title="stories", title_justify="left", box=None, pad_edge=False)
    for name in ("stage", "in", "out"):
        table.add_column(name, justify="left" if name == "stage" else "right")
    table.add_column("dropped, and why")
    for row in reading.funnel(chain):
        why = ", ".join(f"{reason} {count:,}" for reason, count in row.drops.items())
        table.add_row(row.stage, f"{row.rows_in:,}", f"{row.rows_out:,}", Text(why or "–"))
    if sides := reading.sides(chain):
        table.caption = "kept: " + ", ".join(f"{count:,} {side}" for side, count in sides.items())
        table.caption_justify = "left"
    if table.row_count:
        console.print(table)
        console.print()


def _models(chain: Chain, console: Console) -> None:
    found = reading.metrics(chain)
    table = Table(title="models", title_justify="left", box=None, pad_edge=False)
    table.add_column("")
    for model in MODELS:
        table.add_column(model, justify="right")
    table.add_column("held-out stories", justify="right", style="dim")
    for metric in SHOWN:
        if metric in found:
            cells = [show_metric(metric, found[metric].get(model)) for model in (*MODELS, "reference")]
            table.add_row(METRICS[metric][0], *cells)
    if table.row_count:
        console.print(table)
        console.print()


def _stories(prompt: str, told: Mapping[str, str], console: Console) -> None:
    """Beside each other where the terminal is wide enough, else below each other."""
    models = [model for model in MODELS if model in told]
    console.print()
    console.print(Text(printable(prompt), style="bold italic"))
    wide = console.width >= SIDE_BY_SIDE
    width = (console.width - 2) // len(models) - 1 if wide else console.width
    cards = [Panel(Text(printable(told[model]).strip()), title=model, width=width) for model in models]
    console.print(Columns(cards, padding=(0, 1)) if wide else "", end="")
    for card in () if wide else cards:
        console.print(card)


def render_coverage(found: Coverage, console: Console | None = None) -> None:
    """One row a word, then how many stories hold several of them, then the nearest stories."""
    console = console or Console()
    table = Table(box=None, pad_edge=False)
    table.add_column("word")
    table.add_column("training stories", justify="right")
    table.add_column("share", justify="right")
    if found.words[0].pieces is not None:
        table.add_column("pieces")
    table.add_column("forms found")
    table.add_column("")
    for word in found.words:
        pieces = [Text(" ".join(word.pieces))] if word.pieces is not None else []
        share = f"{word.stories / found.stories:.2%}"
        label = Text(word.label, style=LABELS[word.label])
        table.add_row(word.word, f"{word.stories:,}", share, *pieces, ", ".join(word.forms) or "–", label)
    console.print(table)
    counts = ", ".join(f"{count:,} hold {k}" for k, count in enumerate(found.at_least, 1))
    console.print(
        f"\nof {found.stories:,} training stories, with at least so many of the words: {counts}", highlight=False
    )
    verdict = Text("together: ").append(found.label, style=f"bold {LABELS[found.label]}")
    console.print(verdict.append(f" (covered: {found.threshold:,} stories for each word, 3 for all together)"))
    for near in found.nearest:
        line = Text(f"\n{near.story_id}", style="bold").append(f"  {', '.join(near.words)}\n", style="not bold dim")
        text = printable(" ".join(near.text.split()))
        console.print(line.append(text[:300] + ("…" if len(text) > 300 else ""), style="not bold"))
