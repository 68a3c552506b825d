"""Near duplicates: ours beside rensa and datasketch, by CPU seconds; whether ours finds what all pairs find; memory.

    python -m bench.near                       the table: 20,000 and 200,000 stories
    python -m bench.near --stage 2000000       the whole stage once on so many stories: peak memory, at most 1.5 GB

Every case gets a list of Python strings and returns how many stories are copies of an earlier one. The peers work as
their manuals show, on sets of 5-word shingles of `text.lower().split()`: 128 permutations, threshold 0.8; rensa with 16
bands and its own estimate for the last word.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa

from bench import bulk
from bench.beside import HOUSE, Case, Measured, Row, alone, beside

Work = Callable[[], dict]
STORIES, MORE = 20_000, 200_000
BASE_MB, BAR_KB = 300, 0.6  # what the stage may hold: imports and buffers, and for each story; 1.5 GB for 2,000,000
SAMPLE = 4000  # stories compared with all others by a sparse product


def stories(kind: str, count: int, path: str | None) -> Iterator[pa.Array]:
    return {"markov": bulk.chained, "repetitive": bulk.repetitive}[kind](count, path=path)


def texts(kind: str, count: int, path: str | None) -> list[str]:
    return [text for some in stories(kind, count, path) for text in some.to_pylist()]


def shingle_set(text: str) -> set[str]:
    words = text.lower().split()
    return {" ".join(words[at : at + 5]) for at in range(max(1, len(words) - 4))}


# ---- the cases


def ours(kind: str, count: int, path: str | None) -> Work:
    import pyarrow.compute  # noqa: F401

    from lib.text.near import Comparison

    told = texts(kind, count, path)

    def work() -> dict:
        with Comparison(len(told)) as comparison:
            for start in range(0, len(told), bulk.AT_ONCE):  # part by part, as the stage does
                comparison.add(pa.array(told[start : start + bulk.AT_ONCE]))
            return {"copies": int((comparison.verdicts().kept >= 0).sum())}

    return work


def rensa(kind: str, count: int, path: str | None) -> Work:
    from rensa import RMinHash, RMinHashLSH

    told = texts(kind, count, path)

    def work() -> dict:
        index, kept, copies = RMinHashLSH(threshold=0.8, num_perm=128, num_bands=16), {}, 0
        for n, text in enumerate(told):
            sketch = RMinHash(num_perm=128, seed=42)
            sketch.update(list(shingle_set(text)))
            if any(sketch.jaccard(kept[other]) >= 0.8 for other in index.query(sketch)):
                copies += 1
            else:
                kept[n] = sketch
                index.insert(n, sketch)
        return {"copies": copies}

    return work


def datasketch(kind: str, count: int, path: str | None, in_bulk: bool) -> Work:
    from datasketch import MinHash, MinHashLSH

    told = texts(kind, count, path)

    def sketches() -> Iterator[MinHash]:
        if in_bulk:
            for start in range(0, len(told), 1000):
                some = told[start : start + 1000]
                yield from MinHash.bulk([[s.encode() for s in shingle_set(text)] for text in some], num_perm=128)
            return
        for text in told:
            sketch = MinHash(num_perm=128)
            sketch.update_batch([s.encode() for s in shingle_set(text)])
            yield sketch

    def work() -> dict:
        index, copies = MinHashLSH(threshold=0.8, num_perm=128), 0
        for n, sketch in enumerate(sketches()):
            if index.query(sketch):
                copies += 1
            else:
                index.insert(n, sketch)
        return {"copies": copies}

    return work


def exactness(kind: str, count: int, path: str | None) -> Work:
    """Our pairs against those of all pairs, counted by the product of the text-shingle matrix with its transpose."""
    import numpy as np
    from scipy.sparse import csr_matrix

    from lib.text.near import near_pairs

    told = texts(kind, count, path)

    def all_pairs() -> set[tuple[int, int]]:
        sets = [{tuple(words[at : at + 5]) for at in range(len(words) - 4)} for words in map(_words, told)]
        numbers: dict = {}
        columns = [numbers.setdefault(shingle, len(numbers)) for each in sets for shingle in each]
        sizes = np.array([len(each) for each in sets])
        starts = np.concatenate([[0], np.cumsum(sizes)])
        matrix = csr_matrix((np.ones(len(columns), np.int32), columns, starts), (len(sets), len(numbers)))
        common = (matrix @ matrix.T).tocoo()
        near = common.data / (sizes[common.row] + sizes[common.col] - common.data) >= 0.8
        near &= common.row < common.col
        return set(zip(common.row[near].tolist(), common.col[near].tolist(), strict=True))

    def work() -> dict:
        found, truth = {(i, j) for i, j, _ in near_pairs(told)}, all_pairs()
        right = len(found & truth)
        return {"pairs": len(truth), "precision": right / len(found), "recall": right / len(truth)}

    return work


def _words(text: str) -> list[str]:
    return [word for chunk in text.split() if (word := "".join(c for c in chunk.lower() if c.isalnum()))]


def stage(kind: str, count: int, path: str | None, folder: str) -> Work:
    """The stage itself on `count` clean stories in parts of 10,000, which another process writes before."""
    from lib.stages import dedup
    from lib.store import Dataset, build

    os.environ["STORYMILL_DATA"] = folder
    call = f"from bench.near import write; print(write({kind!r}, {count}, {path!r}))"
    written = subprocess.run([sys.executable, "-c", call], cwd=HOUSE, capture_output=True, text=True, check=True)
    clean = Dataset.model_validate_json(written.stdout)

    def work() -> dict:
        made = build(dedup.STAGE, dedup.DedupConfig(), {"stories": clean}, dedup.dedup)
        return made.manifest["counts"] | made.manifest["drops"]

    return work


def write(kind: str, count: int, path: str | None) -> str:
    from lib.store import Config, Draft, Stage, build
    from lib.store.schemas import CLEAN

    def fill(draft: Draft, config: Config) -> None:
        for n, some in enumerate(stories(kind, count, path)):
            table = pa.table({field.name: pa.nulls(len(some), field.type) for field in CLEAN})
            ids = pa.array([f"s{n * bulk.AT_ONCE + row:08d}" for row in range(len(some))])
            for name, column in (("story_id", ids), ("text", some)):
                table = table.set_column(CLEAN.get_field_index(name), name, column)
            draft.write_table(f"part-{n:05d}.parquet", table)

    return build(Stage("clean", 1), Config(), {}, fill).model_dump_json()


# ---- the table


def table(*, rounds: int, stories: str | None, llama2c: str | None) -> list[Row]:
    """Lines for bench/data.py."""
    sizes = [("markov", STORIES), ("markov", MORE), ("repetitive", STORIES), ("repetitive", MORE)]
    cases = [Case(f"ours {kind} {n}", "bench.near", "ours", _what(kind, n, stories)) for kind, n in sizes]
    cases += [
        Case("rensa", "bench.near", "rensa", _what("markov", STORIES, stories)),
        Case("bulk", "bench.near", "datasketch", _what("markov", STORIES, stories) | {"in_bulk": True}),
        Case("usual", "bench.near", "datasketch", _what("markov", STORIES, stories) | {"in_bulk": False}),
    ]
    found = beside(cases, rounds)
    ours_small, ours_large = (found[f"ours markov {n}"] for n in (STORIES, MORE))
    rows = [
        _faster(f"near-duplicates, {STORIES:,}", ours_small, found[name], peer, bar)
        for name, peer, bar in (
            ("rensa", "rensa + LSH", 2.5),
            ("bulk", "datasketch bulk", 8),
            ("usual", "datasketch", 8),
        )
    ]
    per_story = {
        name: measured.cpu_s / int(name.split()[-1]) * 1e6 for name, measured in found.items() if "ours" in name
    }
    growth = per_story[f"ours markov {MORE}"] / per_story[f"ours markov {STORIES}"]
    rows.append(
        Row(
            "near-duplicates, time per story",
            f"{per_story[f'ours markov {MORE}']:.1f} us at {MORE:,}",
            f"{per_story[f'ours markov {STORIES}']:.1f} us at {STORIES:,} (ours)",
            1 / growth,
            1 / 1.8,
            f"grows {growth:.2f} times; memory {ours_small.peak_mb:.0f} and {ours_large.peak_mb:.0f} MB with the texts",
        )
    )
    for n in (STORIES, MORE):
        slower = per_story[f"ours repetitive {n}"] / per_story[f"ours markov {n}"]
        rows.append(
            Row(
                f"near-duplicates, repetitive text, {n:,}",
                f"{per_story[f'ours repetitive {n}']:.1f} us a story",
                f"{per_story[f'ours markov {n}']:.1f} us on Markov text (ours)",
                1 / slower,
                1 / 3,
                f"takes {slower:.2f} times as long",
            )
        )
    return [*rows, *(_exact(kind, stories) for kind in ("markov", "repetitive")), memory("markov", MORE, stories)]


def memory(kind: str, count: int, path: str | None) -> Row:
    """The whole stage once: its peak beside what it may be at that size."""
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix="_near-") as folder:
        measured = alone(Case("stage", "bench.near", "stage", _what(kind, count, path) | {"folder": folder}))
    most = BASE_MB + BAR_KB * count / 1000
    note = f"{measured.cpu_s:.0f} CPU seconds; {measured.figures['rows_out']:,} stay"
    told = (f"{measured.peak_mb:,.0f} MB at {count:,}", f"at most {most:,.0f} MB")
    return Row("dedup, peak memory", *told, most / measured.peak_mb, 1.0, note)


def _what(kind: str, count: int, path: str | None) -> dict:
    return {"kind": kind, "count": count, "path": path}


def _faster(what: str, ours: Measured, peer: Measured, name: str, bar: float) -> Row:
    speeds = [f"{STORIES / each.cpu_s:,.0f} stories a CPU second" for each in (ours, peer)]
    note = f"copies found: {ours.figures['copies']:,}, {name} {peer.figures['copies']:,}"
    return Row(what, speeds[0], f"{name}: {speeds[1]}", peer.cpu_s / ours.cpu_s, bar, note)


def _exact(kind: str, path: str | None) -> Row:
    figures = alone(Case("exactness", "bench.near", "exactness", _what(kind, SAMPLE, path))).figures
    p, r = figures["precision"], figures["recall"]
    note = f"{figures['pairs']} near pairs among {SAMPLE:,} {kind} stories"
    return Row("near-duplicates, all pairs found", f"P {p:.3f}, R {r:.3f}", "all pairs, counted", min(p, r), 1, note)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--stories", help="a .jsonl of stories to imitate; without it the built-in storyteller's")
    parser.add_argument("--stage", type=int, help="run the whole stage once on so many stories")
    parser.add_argument("--kind", choices=["markov", "repetitive"], default="markov")
    given = parser.parse_args()
    if not given.stage:
        for row in table(rounds=given.rounds, stories=given.stories, llama2c=None):
            print(row)
        return
    row = memory(given.kind, given.stage, given.stories)
    print(row)
    if row.ratio < row.bar:
        sys.exit(f"{row.ours}, expected {row.peer}")


if __name__ == "__main__":
    main()
