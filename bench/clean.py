"""Clean, measured: a soiled JSONL file to Parquet, ours beside what people write today, in MB per CPU-second.

In:   Markov stories with summaries as a teacher gives them, 8 % of them soiled (bench/texts.py), one JSON object a line
Out:  kept stories as Parquet (zstd), text repaired

    ours           JSON blocks through pyarrow, then `clean_part` with every repair and every rule, summaries brought
                   into one form, dropped rows written as well, each with its rule and what tripped it; page checksums,
                   fsync and sha256 of every file as the store does
    plain loop     a row at a time: json.loads, NFC, 16 literal repairs, blanks and newlines, 20–400 words, the
                   character set by one regular expression; pyarrow writes the rows at the end
    datasets map   the same function through Hugging Face `map` and `filter`, a row at a time, `to_parquet`
    datatrove      the same function in a LambdaFilter between JsonlReader and ParquetWriter
    ftfy           the plain loop with `ftfy.fix_text` in place of the literal repairs

No peer looks for special tokens, template leftovers, refusals, personal data, profanity, other languages, repeated
passages or endings, and none says why a row went. Growth: ours on 16 times the rows, time per story.
"""

import hashlib
import json
import re
import tempfile
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.beside import Case, Measured, Row, beside
from bench.texts import markov, soiled

STORIES, GROWN = 48_000, 16
PARTS_OF = 2 << 20  # bytes of JSON, some 2,000 stories: what generate puts into a part
LITERAL = {
    "\u00e2\u20ac\u0153": '"',
    "\u00e2\u20ac\u009d": '"',
    "\u00e2\u20ac\u2122": "'",
    "\u00e2\u20ac\u02dc": "'",
    "\u00e2\u20ac\u201c": "-",
    "\u00e2\u20ac\u201d": "-",
    "\u00e2\u20ac\u00a6": "...",
    "\u00c3\u00a9": "\u00e9",
    "\u00c2\u00a0": " ",
    "\u201c": '"',
    "\u201d": '"',
    "\u2018": "'",
    "\u2019": "'",
    "\u2013": "-",
    "\u2014": "-",
    "\u2026": "...",
}
BLANKS, NEWLINES, ALLOWED = re.compile(r"[ \t]+"), re.compile(r"\n\s*\n+"), re.compile(r"[\x20-\x7e\n\u00e9]*")
Work = Callable[[], dict[str, Any]]


def dirty_file(count: int, stories: str | None) -> Path:
    """The file that everybody reads, written once."""
    name = hashlib.sha256(repr((count, stories, "clean-1")).encode()).hexdigest()[:12]
    path = Path(tempfile.gettempdir()) / "storymill-bench" / f"{name}.jsonl"
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        draft = path.with_suffix(".draft")
        with draft.open("w", encoding="utf-8") as file:
            for n, text in enumerate(soiled(markov(count, path=stories))):
                summary = "a story about " + " ".join(text.split()[3:9]).strip(".,!?\"' ").lower()
                row = {"id": f"s{n}", "text": text, "summary": summary}
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
        draft.replace(path)
    return path


# ---- ours


def ours(count: int = STORIES, stories: str | None = None) -> Work:
    import pyarrow as pa
    import pyarrow.json as pj

    from lib.stages.clean import CleanConfig, clean_part
    from lib.store import files, schemas
    from lib.text.repair import repair
    from lib.text.rules import judge

    pa.set_cpu_count(1)
    path, out, config = dirty_file(count, stories), Path(tempfile.mkdtemp()), CleanConfig()
    judge(pa.array([repair("\u00e2\u20ac\u0153Un petit chat, \u00c3\u00a9t\u00c3\u00a9.") * 20]), config)  # load models

    def parts() -> Any:
        options = pj.ReadOptions(use_threads=False, block_size=PARTS_OF)
        for batch in pj.open_json(path, read_options=options):
            table = pa.table(batch).rename_columns({"id": "story_id"})
            missing = [field for field in schemas.RAW if field.name not in table.column_names]
            for field in missing:
                table = table.append_column(field.name, pa.nulls(len(table), field.type))
            yield table.select(schemas.RAW.names)

    def work() -> dict[str, Any]:
        kept = dropped = 0
        for n, table in enumerate(parts()):
            made = clean_part(table, n, config)
            for name, content in made.files.items():
                files.write_parquet(out / name, schemas.fitted("clean", name, content))
                files.sha256_of(out / name)
            kept, dropped = kept + made.rows_out, dropped + sum(made.drops.values())
        return {"mb": path.stat().st_size / 1e6, "kept": kept, "dropped": dropped}

    return work


# ---- peers


def _cleaned(text: str) -> str | None:
    """The job of every peer: repaired text, or None for a row to drop."""
    text = unicodedata.normalize("NFC", text)
    for broken, whole in LITERAL.items():
        text = text.replace(broken, whole)
    return _judged(text)


def _cleaned_by_ftfy(text: str) -> str | None:
    import ftfy

    return _judged(ftfy.fix_text(text))


def _judged(text: str) -> str | None:
    text = NEWLINES.sub("\n", BLANKS.sub(" ", text)).strip()
    return text if 20 <= len(text.split()) <= 400 and ALLOWED.fullmatch(text) else None


def plain_loop(count: int = STORIES, stories: str | None = None, clean: Callable = _cleaned) -> Work:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path, out = dirty_file(count, stories), Path(tempfile.mkdtemp())

    def work() -> dict[str, Any]:
        rows = []
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                row = json.loads(line)
                if text := clean(row["text"]):
                    row["text"] = text
                    rows.append(row)
        pq.write_table(pa.Table.from_pylist(rows), out / "kept.parquet", compression="zstd")
        return {"mb": path.stat().st_size / 1e6, "kept": len(rows)}

    return work


def ftfy_loop(count: int = STORIES, stories: str | None = None) -> Work:
    import ftfy  # noqa: F401  (loaded before the clock starts)

    return plain_loop(count, stories, _cleaned_by_ftfy)


def datasets_map(count: int = STORIES, stories: str | None = None) -> Work:
    import datasets

    datasets.disable_progress_bars()
    path, out = dirty_file(count, stories), Path(tempfile.mkdtemp())

    def work() -> dict[str, Any]:
        rows = datasets.Dataset.from_json(str(path), cache_dir=str(out))
        rows = rows.map(lambda row: {"text": _cleaned(row["text"])}).filter(lambda row: row["text"] is not None)
        rows.to_parquet(out / "kept.parquet")  # in its own compression
        return {"mb": path.stat().st_size / 1e6, "kept": len(rows)}

    return work


def datatrove(count: int = STORIES, stories: str | None = None) -> Work:
    from datatrove.pipeline.filters import LambdaFilter
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.writers import ParquetWriter
    from loguru import logger

    logger.remove()
    path, out = dirty_file(count, stories), Path(tempfile.mkdtemp())

    def keep(document: Any) -> bool:
        text = _cleaned(document.text)
        document.text = text or ""
        return text is not None

    def work() -> dict[str, Any]:
        rows = JsonlReader(str(path.parent), glob_pattern=path.name).run()
        rows = ParquetWriter(str(out), compression="zstd").run(LambdaFilter(keep).run(rows))
        return {"mb": path.stat().st_size / 1e6, "kept": sum(1 for _ in rows)}

    return work


# ---- the table

PEERS = {"plain loop": ("plain_loop", 2.5), "datasets map": ("datasets_map", None)}
PEERS |= {"datatrove": ("datatrove", 4.0), "ftfy on every row": ("ftfy_loop", None)}


def table(*, rounds: int, stories: str | None, llama2c: str | None = None, count: int = STORIES) -> list[Row]:
    """Ours beside each peer, and ours beside itself on a sixteenth of the rows."""
    full, few = {"count": count, "stories": stories}, {"count": count // GROWN, "stories": stories}
    cases = [Case("ours", __name__, "ours", full), Case("few", __name__, "ours", few)]
    measured = beside(cases + [Case(name, __name__, function, full) for name, (function, _) in PEERS.items()], rounds)
    mine = _speed(measured["ours"])
    rows = [
        Row(
            "clean",
            f"{mine:.1f} MB/CPU-s",
            f"{name} {_speed(measured[name]):.1f}",
            mine / _speed(measured[name]),
            bar,
            f"kept {measured['ours'].figures['kept']:,} and {measured[name].figures['kept']:,} of {count:,}",
        )
        for name, (_, bar) in PEERS.items()
    ]
    return [*rows, growth("clean", measured["few"], measured["ours"], count // GROWN, count)]


def growth(stage: str, few: Measured, many: Measured, count: int, grown: int) -> Row:
    """Time per story on `grown` rows against `count`; at most 1.15."""
    ratio = (many.cpu_s / grown) / (few.cpu_s / count)
    what = f"{1e6 * many.cpu_s / grown:.1f} \u00b5s a story, {many.peak_mb:.0f} MB"
    return Row(
        stage,
        what,
        f"ours on {count:,} rows {1e6 * few.cpu_s / count:.1f}, {few.peak_mb:.0f} MB",
        1 / ratio,
        1 / 1.15,
        f"time per story at {grown // count} times the rows: {ratio:.2f} of that at {count:,} (at most 1.15)",
    )


def _speed(measured: Measured) -> float:
    return measured.figures["mb"] / measured.cpu_s


if __name__ == "__main__":
    for row in table(rounds=2, stories=None):
        print(row)
