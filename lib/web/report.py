"""Report: one chain on one page.

In:   a chain (lib/web/chain.py)
Out:  sections of text, tables, pictures and stories; no date, host or speed, so that equal chains give equal bytes
A section whose datasets are missing is left out.
"""

import json
from collections.abc import Iterator
from typing import Any

from lib.store import Dataset
from lib.text.rubric import JUDGE
from lib.web import chain as reading
from lib.web import plots
from lib.web.blocks import Block, Picture, Section, Stories, Table, Text
from lib.web.chain import MODELS, Chain, show_metric

NUM_SIDE_BY_SIDE = 3
MARKS = ("grammar", "creativity", "consistency", "plot")


def sections(chain: Chain) -> list[Section]:
    """Every section that this chain has something to say in."""
    parts = {
        "In short": in_short,
        "Three requests, three models": requests,
        "The stories": stories,
        "The tokenizer": vocabulary,
        "Training": training,
        "Alignment": alignment,
        "Grades": grades,
        "25 openings": openings,
        "What was run, and where it lies": places,
    }
    made = {title: list(part(chain)) for title, part in parts.items()}
    return [Section(title, blocks) for title, blocks in made.items() if blocks]


def in_short(chain: Chain) -> Iterator[Block]:
    """The models in one table."""
    found = reading.metrics(chain)
    if not found:
        return
    columns = [*MODELS, *(["reference"] if any("reference" in by for by in found.values()) else [])]
    head = ["", *MODELS, *(["the held-out stories"] if len(columns) > len(MODELS) else [])]
    rows = [
        [reading.METRICS[metric][0], *(show_metric(metric, by_model.get(model)) for model in columns)]
        for metric, by_model in found.items()
    ]
    yield Table(head, rows)
    yield Text(
        "Fewer bits per byte are better; vocabularies may differ, bytes do not. Every model got the same prompts "
        "as the same ids and the same seed; the base model was never shown an instruction. "
        "An instruction counts as followed where the story holds at least half of its content words."
    )
    if "reference" in columns:
        yield Text("The last column: the held-out stories themselves, the most that a model of such stories can reach.")
    if "reward_concept" not in found:
        yield Text(
            "Closeness to what was asked was not measured: the extra `embed` is not installed, or it is turned off."
        )


def requests(chain: Chain) -> Iterator[Block]:
    told = reading.side_by_side(chain, "instruction", NUM_SIDE_BY_SIDE)
    if told:
        yield Text("The first held-out requests, not chosen: no model has seen them in training.")
    yield from (_stories(prompt, by_model) for prompt, by_model in told)


def stories(chain: Chain) -> Iterator[Block]:
    """The funnel with every reason, and the lengths."""
    funnel = reading.funnel(chain)
    if not funnel:
        return
    if len(funnel) > 1:
        counts = {f"before {funnel[0].stage}": funnel[0].rows_in} | {f"after {r.stage}": r.rows_out for r in funnel}
        yield Picture("funnel.png", "Stories left after each stage.", plots.bars(counts))
    rows = []
    for row in funnel:
        rows.append([row.stage, f"{row.rows_in:,}", f"{row.rows_out:,}", f"{sum(row.drops.values()):,}"])
        rows += [[f"    – {reason}", "", "", f"{count:,}"] for reason, count in row.drops.items()]
    yield Table(["stage", "rows in", "rows out", "dropped"], rows)
    if by_side := reading.sides(chain):
        yield Text("Kept: " + ", ".join(f"{count:,} {side}" for side, count in by_side.items()) + ".")
        yield _lengths(chain)


def _lengths(chain: Chain) -> Picture:
    width, most = 10, 400
    rows = chain.rows(
        f"select least(words, {most - 1}) // {width} as bin, count(*) from split group by bin order by bin"
    )
    counts = dict(rows)
    edges = list(range(0, most + 1, width))
    values = [counts.get(number, 0) for number in range(most // width)]
    png = plots.histogram(
        edges, {"stories": values}, x=f"words (the last bin holds all from {most - width})", y="stories"
    )
    return Picture("lengths.png", "Length of the kept stories.", png)


def vocabulary(chain: Chain) -> Iterator[Block]:
    """What the tokenizer is, and how many tokens it makes of the stories."""
    if not chain.has("tokenizer"):
        return
    rows = _numbers(chain.datasets["tokenizer"], "tokenizer: ")
    for name in ("tokens", "instructions"):
        if chain.has(name):
            total, longest = chain.rows(f'select sum(length), max(length) from "{name}"')[0]
            rows += [[f"{name}: tokens in all", f"{total or 0:,}"], [f"{name}: longest story", f"{longest or 0:,}"]]
    if rows:
        yield Table(["", ""], rows)


def training(chain: Chain) -> Iterator[Block]:
    """Loss over tokens: training in nats per token, held-out stories in bits per byte."""
    for name in ("pretrain", "instruct"):
        if not chain.has(name):
            continue
        steps = chain.rows(f"select tokens, loss, step from {name}_train_steps order by step")
        seen = {step: tokens for tokens, _, step in steps}
        evals = chain.rows(f"select step, bits_per_byte from {name}_evals where split = 'val' order by step")
        rows = _numbers(chain.datasets[name])
        if steps:
            pictured = {"training loss, nats per token": ([row[0] for row in steps], [row[1] for row in steps])}
            held = [(seen.get(step, 0), bits) for step, bits in evals]
            pictured["held-out, bits per byte"] = ([tokens for tokens, _ in held], [bits for _, bits in held])
            png = plots.panels(pictured, x="tokens seen")
            yield Picture(f"loss-{name}.png", f"{name.capitalize()}: loss over tokens.", png)
        if rows:
            yield Table([name, ""], rows)


def alignment(chain: Chain) -> Iterator[Block]:
    """Reward, distance from the start, variety; reward up while variety falls is a reward being hacked."""
    if not chain.has("align"):
        return
    columns = {"reward": "reward", "kl": "KL, nats per token", "distinct_2": "different word pairs"}
    rows = chain.rows(f'select "update", {", ".join(columns)} from align_updates order by "update"')
    if rows:
        steps = [row[0] for row in rows]
        lines = {title: (steps, [row[n] for row in rows]) for n, title in enumerate(columns.values(), 1)}
        yield Picture("align.png", "Alignment: what moved with each update.", plots.panels(lines, x="update"))
    told = []
    if held := reading.heldout_reward(chain):
        told.append(["reward on held-out prompts", f"{held[0]:.3f}", f"{held[1]:.3f}"])
    by_model = reading.metrics(chain).get("reward_concept", {})
    if "instruct" in by_model and "aligned" in by_model:
        told.append(["closeness to held-out requests", f"{by_model['instruct']:.3f}", f"{by_model['aligned']:.3f}"])
    if told:
        yield Table(["", "before", "after"], told)
    if facts := _numbers(chain.datasets["align"]):
        yield Table(["align", ""], facts)


def grades(chain: Chain) -> Iterator[Block]:
    if not chain.has("evaluate"):
        return
    means = ", ".join(f"avg({mark})" for mark in MARKS)
    rows = chain.rows(
        f"select model, judge, mode(age), {means} from evaluate_grades group by model, judge order by model"
    )
    order = {model: number for number, model in enumerate(MODELS)}
    rows.sort(key=lambda row: order.get(row[0], len(order)))
    judges = sorted({row[1] for row in rows})
    if rows:
        cells = [[row[0], *(f"{value:.1f}" for value in row[3:]), row[2]] for row in rows]
        yield Table(["0 to 10", *MARKS, "age, most often"], cells)
        yield Text(f"Judge: {', '.join(judges)}.")
    if JUDGE in judges:
        yield Text(
            "It counts what can be counted (sentences that stop, quotes that close, names that come back) and "
            "understands nothing. Compare its grades with each other, never with a language model's or a person's."
        )


def openings(chain: Chain) -> Iterator[Block]:
    yield from (_stories(prompt, by_model) for prompt, by_model in reading.side_by_side(chain, "opening"))


def places(chain: Chain) -> Iterator[Block]:
    """Each dataset's folder below data/, and the settings that made it."""
    rows = []
    for name, dataset in chain.datasets.items():
        config = json.dumps(_settings(dataset), ensure_ascii=False, separators=(", ", ": "))
        rows.append([name, f"{dataset.stage}/{dataset.name}", f"{dataset.manifest['rows']:,}", config])
    if rows:
        yield Table(["what", "folder below data/", "rows", "settings"], rows, words=True)
        yield Text(
            "Each folder's _manifest.json holds its inputs, counts, drops and checksums. "
            'storymill sql "from manifests" lists them; storymill sql "from lineage limit 5" follows five stories.'
        )


def _stories(prompt: str, by_model: dict[str, str]) -> Stories:
    return Stories(prompt, [(model, by_model[model]) for model in MODELS if model in by_model])


def _numbers(dataset: Dataset, before: str = "") -> list[list[str]]:
    """The dataset's facts that are numbers."""
    facts = dataset.facts.items()
    kept = [(key, value) for key, value in facts if isinstance(value, int | float) and not isinstance(value, bool)]
    return [
        [before + key.replace("_", " "), f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"]
        for key, value in kept
    ]


def _settings(dataset: Dataset) -> dict[str, Any]:
    """The config fields that can change a byte, nested ones too."""
    manifest = dataset.manifest

    def kept(config: Any, identity: Any) -> Any:
        if not isinstance(config, dict) or not isinstance(identity, dict):
            return config
        return {key: kept(value, identity[key]) for key, value in config.items() if key in identity}

    return kept(manifest["config"], manifest["identity"])
