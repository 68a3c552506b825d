"""Clean: repair every story's text, then keep the stories a child could read to the end and record why the others went.

In:   raw stories (generate or ingest)
Out:  kept rows, repaired, + `words, chars`; others, as they came, under _dropped/ with `reason, detail, rule_version`
Relies on lib/text/repair.py, lib/text/rules.py and lib/text/summary.py, which say what each step does and why.

Every kept story has a summary in the form "a story about ...": the source's own, or one taken from the story. Rows with
an `instruction` are no stories: lib/text/alpaca_rules.py mends and judges them, and they get no summary.
"""

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lib.errors import UserError
from lib.store import Dataset, Draft, PartResult, Stage
from lib.text.alpaca_rules import INSTRUCTION_RULES_VERSION, judge_instructions, repair_instructions
from lib.text.repair import repair_column
from lib.text.rules import RULE_VERSION, Limits, judge
from lib.text.summary import request_summaries

STAGE = Stage("clean", 2)


class CleanConfig(Limits):
    """What a kept story may look like: the limits of lib/text/rules.py."""


def clean(draft: Draft, config: CleanConfig, *, stories: Dataset) -> None:
    """Write one cleaned part per raw part. Raises UserError if no story passes."""
    draft.each_part(stories, config, lambda table, n: clean_part(table, n, config))
    if not draft.counts["rows_out"]:
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in draft.drops.most_common()) or "there were none"
        raise UserError(
            f"clean kept none of {draft.counts['rows_in']:,} stories ({reasons}), expected at least one: "
            "is this English text with whole stories? If so, set clean.min_words and clean.max_words to fit it"
        )
    columns = ["summary", "instruction"]
    without = sum(_num_without_summary(part.table(columns)) for part in stories.parts())  # part by part: memory is flat
    draft.fact(rule_version=RULE_VERSION, instruction_rules_version=INSTRUCTION_RULES_VERSION)
    draft.count(summaries_made=without - _num_dropped_without(draft))


def clean_part(table: pa.Table, n: int, config: CleanConfig) -> PartResult:
    """One part of raw stories, judged."""
    mended = repair_instructions(table)
    tasks = pc.is_valid(table["instruction"]).combine_chunks()
    texts = repair_column(mended["text"].combine_chunks())
    reasons, details, words = judge(texts, config)
    if pc.any(tasks).as_py():  # a program's indentation and a one-word answer are as they should be
        texts = pc.if_else(tasks, mended["text"].combine_chunks(), texts)
        reasons, details = _chosen(tasks.to_pylist(), judge_instructions(mended), (reasons, details))
    reason = pa.array(reasons, pa.string())
    stays = pc.is_null(reason)
    kept_texts = texts.filter(stays)
    given = repair_column(pc.fill_null(table["summary"].combine_chunks().filter(stays), ""))
    summaries = request_summaries(given, kept_texts)
    summaries = pc.if_else(tasks.filter(stays), pa.scalar(None, pa.string()), summaries)
    kept = _with(mended.filter(stays), text=kept_texts, summary=summaries)
    kept = _with(kept, words=pa.array(words, pa.int32()).filter(stays), chars=pc.utf8_length(kept_texts))
    dropped = _with(table, reason=reason, detail=pa.array(details, pa.string())).filter(pc.invert(stays))
    versions = pc.if_else(pc.is_valid(dropped["instruction"]), INSTRUCTION_RULES_VERSION, RULE_VERSION)
    dropped = _with(dropped, rule_version=versions.cast(pa.int32()))
    return PartResult(
        files={f"part-{n:05d}.parquet": kept, f"_dropped/part-{n:05d}.parquet": dropped},
        rows_in=len(table),
        rows_out=len(kept),
        drops={entry["values"]: entry["counts"] for entry in pc.value_counts(dropped["reason"]).to_pylist()},
    )


def _chosen(tasks: list[bool], of_tasks: tuple[list, list], of_stories: tuple[list, list]) -> tuple[list, list]:
    """Reasons and details: those of the task rules where a row is a task, those of the story rules elsewhere."""
    both = zip(tasks, zip(*of_tasks, strict=True), zip(*of_stories, strict=True), strict=True)
    reasons, details = zip(*(task if is_task else story for is_task, task, story in both), strict=True)
    return list(reasons), list(details)


def _with(table: pa.Table, **columns: pa.Array | pa.ChunkedArray) -> pa.Table:
    """`table` with these columns, new or in place of the old."""
    for name, column in columns.items():
        at = table.schema.get_field_index(name)
        table = table.append_column(name, column) if at < 0 else table.set_column(at, name, column)
    return table


def _num_without_summary(table: pa.Table) -> int:
    """Stories, that is, rows without an instruction, that came without a summary."""
    table = table.filter(pc.is_null(table["instruction"]))
    return pc.sum(pc.equal(pc.utf8_trim_whitespace(pc.fill_null(table["summary"], "")), "")).as_py() or 0


def _num_dropped_without(draft: Draft) -> int:
    """Dropped rows that came without a summary, from the files of this draft (their parts may be linked, not made)."""
    names = [name for name in draft.files if name.startswith("_dropped/")]
    return sum(
        _num_without_summary(pq.read_table(draft.path / name, columns=["summary", "instruction"])) for name in names
    )
