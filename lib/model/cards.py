"""Cards: what stands in a README.md beside an exported model, and beside the stories it learned from.

In:   the model's own model.json, the manifests of the datasets above it
Out:  Markdown with the YAML head that Hugging Face reads
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lib.store import Dataset, find
from lib.text.requests import by_summary
from lib.text.template import Template

SUMMARY = "a story about a cat who could not sleep"


@dataclass(frozen=True)
class Exported:
    """What a model's card tells."""

    title: str
    description: str
    license: str
    about: Mapping[str, Any]  # model.json
    num_params: int
    template: Template
    model: Dataset
    tokenizer: Dataset
    formats: Sequence[str]
    left_out: Mapping[str, str]  # format → why


def model_card(made: Exported) -> str:
    """What the model is, how to ask it, what was measured, and the fingerprints of what it was made from."""
    shape = made.about["shape"]
    return f"""---
library_name: transformers
pipeline_tag: text-generation
language: en
license: {made.license}
tags: [storymill, tinystories, llama]
---

# {made.title}

A story model of {made.num_params:,} parameters: {shape["n_layers"]} layers of width {shape["d_model"]},
{shape["n_heads"]} heads ({shape["n_kv_heads"]} for keys and values), {shape["vocab_size"]:,} pieces,
at most {shape["max_length"]} tokens in a row.
It writes short stories in the words of small children, and can do nothing else: fiction only, no facts, no advice.
{made.description}

Formats: {", ".join(made.formats)}.
{"".join(f"- no {name}: {why}" + chr(10) for name, why in made.left_out.items())}
## How to ask

{_usage(made.about["layout"], made.template)}

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("hf")
model = AutoModelForCausalLM.from_pretrained("hf")
{_example(made.about["layout"])}
story = model.generate(ids, max_length={shape["max_length"]})
print(tokenizer.decode(story[0, ids.shape[1]:], skip_special_tokens=True))
```

{_measured(made.model)}
{_lineage(made.model, made.tokenizer)}"""


def _measured(model: Dataset) -> str:
    facts = {key: value for key, value in sorted(model.facts.items()) if isinstance(value, int | float)}
    rows = "".join(f"| {key} | {value:,.4g} |\n" for key, value in facts.items())
    return f"## What was measured\n\n| what | value |\n|---|---|\n{rows}"


def _lineage(model: Dataset, tokenizer: Dataset) -> str:
    inputs = {key: each["fingerprint"] for key, each in sorted(model.manifest["inputs"].items())}
    return f"""## Made from

Fingerprints of content: whoever makes the same rows gets the same ones.

| dataset | fingerprint |
|---|---|
{_table({model.stage: model.fingerprint, "tokenizer": tokenizer.fingerprint} | inputs)}"""


def _table(lineage: Mapping[str, str]) -> str:
    return "".join(f"| {key} | `{fingerprint}` |\n" for key, fingerprint in lineage.items())


def _asked(layout: str) -> str | None:
    """A request in the layout's own words; None for a layout without requests."""
    return {"pretrain": None, "padded": by_summary(SUMMARY)}.get(layout, f"Write {SUMMARY}")


def _usage(layout: str, template: Template) -> str:
    asked = _asked(layout)
    if asked is None:
        return f"`{_shown(template.completion_prefix('Once upon a time'), template)}`: it goes on from any beginning."
    shown = _shown(template.prefix(layout, asked), template)
    return f"The chat template writes a request so:\n\n```text\n{shown}\n```"


def _shown(ids: list[int], template: Template) -> str:
    """Ids as text, the names of bos and eos where they stand."""
    tokenizer = template.tokenizer
    names = tokenizer.pieces()["piece"]
    text, run = "", []
    for token in [*ids, None]:
        if token is None or token in (tokenizer.bos_id, tokenizer.eos_id):
            text, run = text + tokenizer.decode(run) + ("" if token is None else names[token].as_py()), []
        else:
            run.append(token)
    return text


def _example(layout: str) -> str:
    asked = _asked(layout)
    if asked is None:
        return 'ids = tokenizer("Once upon a time", return_tensors="pt").input_ids'
    return (
        f'chat = [{{"role": "user", "content": "{asked}"}}]\n'
        'ids = tokenizer.apply_chat_template(chat, return_tensors="pt", return_dict=False)'
    )


# ---- the stories


def dataset_card(*, title: str, license: str, stories: Dataset, files: Mapping[str, list[str]]) -> str:
    """How many stories there are on each side, what was dropped on the way and why, where they came from.

    `files`: side → Parquet files beside the card, for `load_dataset`; none where only the card was asked for.
    """
    configs = "".join(f"  - split: {side}\n    path: [{', '.join(paths)}]\n" for side, paths in files.items())
    head = f"configs:\n- config_name: default\n  data_files:\n{configs}" if configs else ""
    return f"""---
language: en
license: {license}
task_categories: [text-generation]
tags: [storymill, synthetic, children, stories]
{head}---

# {title}: the stories

{"The Parquet files hold" if files else "Not copied here:"} the stories that {stories.stage}/{stories.name} kept.

| side | stories |
|---|---|
{"".join(f"| {side} | {count:,} |" + chr(10) for side, count in sides_of(stories).items())}
Columns: story_id, text, summary, source, split and how the story was asked for (verb, noun, adjective, features).

## What was dropped, and why

| stage | rows in | rows out | dropped |
|---|---|---|---|
{_funnel(stories)}
## Made from

| dataset | fingerprint |
|---|---|
{_table({f"{each.stage}/{each.name}": each.fingerprint for each in _above(stories)})}"""


def sides_of(stories: Dataset) -> dict[str, int]:
    """Stories on each side of the split."""
    counted: dict[str, int] = {}
    for part in stories.parts():
        for each in part.table(["split"])["split"].value_counts().to_pylist():
            counted[each["values"]] = counted.get(each["values"], 0) + each["counts"]
    return dict(sorted(counted.items()))


def _above(stories: Dataset) -> list[Dataset]:
    """The stories' dataset and those it was made of, as far as they are still there, the newest first."""
    found = [stories]
    while given := found[-1].manifest["inputs"].get("stories"):
        dataset = find(given["stage"], given["name"])
        if dataset is None:
            break
        found.append(dataset)
    return found


def _funnel(stories: Dataset) -> str:
    lines = []
    for dataset in reversed(_above(stories)):
        manifest = dataset.manifest
        drops = {reason: count for reason, count in manifest["drops"].items() if count}
        rows_out = manifest["counts"].get("rows_out", manifest["rows"])
        rows_in = manifest["counts"].get("rows_in", rows_out + sum(drops.values()))
        told = ", ".join(f"{reason} {count:,}" for reason, count in drops.items()) or "–"
        lines.append(f"| {dataset.stage} | {rows_in:,} | {rows_out:,} | {told} |\n")
    return "".join(lines)
