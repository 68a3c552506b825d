"""One finished chain, read through SQL: what the report, the terminal's summary and the chat page say about it.

In:   the chain's datasets by name (raw, clean, dedup, novelty, split, tokenizer, tokens, instructions,
      pretrain, instruct, align, evaluate); any of them may be missing
Out:  rows
Reads the files that these datasets' own manifests list: never a glob, never another run's newest.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import duckdb

from lib.store import Dataset
from lib.store.schemas import table_of
from lib.web.tables import printable

MODELS = ("base", "instruct", "aligned")
STORIES = ("raw", "clean", "dedup", "novelty", "split")  # the stages that drop rows, in order
# What a reader sees of each metric: its name, how a value is written.
METRICS = {
    "bits_per_byte": ("bits per byte, held-out stories", "{:.3f}"),
    "followed": ("instructions followed", "{:.0%}"),
    "followed_share": ("words asked for that came", "{:.0%}"),
    "answer_rouge_l": ("answers like those held out, ROUGE-L", "{:.3f}"),
    "reward_concept": ("closeness to what was asked", "{:.3f}"),
    "share_ended": ("stories brought to an end", "{:.0%}"),
    "mean_words": ("words a story", "{:.0f}"),
    "distinct_2": ("different word pairs", "{:.0%}"),
    "copy_rate": ("8-word runs copied from training", "{:.1%}"),
}


@dataclass(frozen=True)
class FunnelRow:
    """What one stage did with its rows."""

    stage: str
    rows_in: int
    rows_out: int
    drops: dict[str, int]  # reason → rows


@dataclass(frozen=True)
class Chain:
    """The datasets, and DuckDB with a view `<name>` or `<name>_<table>` for each of their tables."""

    datasets: Mapping[str, Dataset]
    con: duckdb.DuckDBPyConnection

    def has(self, *names: str) -> bool:
        return all(name in self.datasets for name in names)

    def rows(self, sql: str, *values: Any) -> list[tuple]:
        return self.con.execute(sql, list(values)).fetchall()


def open_chain(datasets: Mapping[str, Dataset]) -> Chain:
    """Views over the verified files of these datasets."""
    con = duckdb.connect()
    for name, dataset in datasets.items():
        files = dataset.manifest["files"]
        for table in sorted({table_of(file) for file in files if file.endswith(".parquet")}):
            paths = ", ".join("'" + str(part.path).replace("'", "''") + "'" for part in dataset.parts(table))
            view = name if table == "part" else f"{name}_{table.removeprefix('_')}"
            con.execute(f'create view "{view}" as from read_parquet([{paths}])')  # a name may be a word of SQL
    return Chain(datasets, con)


def funnel(chain: Chain) -> list[FunnelRow]:
    """Rows in, rows out and drops by reason of each stage that drops rows, from the manifests."""
    rows = []
    for name in STORIES:
        if name not in chain.datasets:
            continue
        dataset = chain.datasets[name]
        manifest = dataset.manifest
        drops = dict(sorted(manifest["drops"].items(), key=lambda item: (-item[1], item[0])))
        rows_out = manifest["counts"].get("rows_out", manifest["rows"])
        rows_in = manifest["counts"].get("rows_in", rows_out + sum(drops.values()))
        rows.append(FunnelRow(dataset.stage, rows_in, rows_out, {why: n for why, n in drops.items() if n}))
    return rows


def sides(chain: Chain) -> dict[str, int]:
    """Stories on each side of the split."""
    return (
        dict(chain.rows("select split, count(*) from split group by split order by split"))
        if chain.has("split")
        else {}
    )


def metrics(chain: Chain) -> dict[str, dict[str, float]]:
    """metric → model → value, for the metrics that were measured."""
    found: dict[str, dict[str, float]] = {}
    if chain.has("evaluate"):
        for metric, model, value in chain.rows("select metric, model, value from evaluate_metrics"):
            found.setdefault(metric, {})[model] = value
    return {metric: found[metric] for metric in METRICS if metric in found}


def side_by_side(chain: Chain, kind: str, most: int | None = None) -> list[tuple[str, dict[str, str]]]:
    """The first prompts of one kind, unchosen, with what each model wrote; control characters left out."""
    if not chain.has("evaluate"):
        return []
    rows = chain.rows(
        "select prompt_no, prompt, model, text from evaluate_samples where kind = ? order by prompt_no, model", kind
    )
    told: dict[int, tuple[str, dict[str, str]]] = {}
    for number, prompt, model, text in rows:
        told.setdefault(number, (printable(prompt), {}))[1][model] = printable(text)
    return [told[number] for number in sorted(told)[:most]]


def heldout_reward(chain: Chain) -> tuple[float, float] | None:
    """The reward on held-out prompts of the model that alignment started from, and of the one it kept."""
    facts = chain.datasets["align"].facts if chain.has("align") else {}
    return (facts["reward_before"], facts["reward_after"]) if "reward_before" in facts else None


def show_metric(metric: str, value: float | None) -> str:
    return "–" if value is None else METRICS[metric][1].format(value)
