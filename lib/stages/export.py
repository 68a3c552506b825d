"""Export: the model as other programs want it.

In:   model (pretrain, instruct or align), tokenizer
Out:  hf/          a Hugging Face folder: AutoModelForCausalLM and AutoTokenizer load it, README.md is its card
      llama2c/     model.bin (run.c), model-v1.bin, model-q8_0.bin (runq.c), tokenizer.bin
Neither torch nor transformers is needed to write them; the tests hold both formats to this project's own sampler.
"""

import json

import numpy as np
from pydantic import Field

from lib.errors import UserError
from lib.store import Config, Dataset, Draft, Stage

STAGE = Stage("export", 1)

# `[EOS] instruction [BOS]`: the natural layout of lib/text/template.py, as a chat template.
CHAT_TEMPLATE = (
    "{% if messages|length != 1 or messages[0]['role'] != 'user' %}"
    "{{ raise_exception('this model takes one user message: Write a story about ...') }}{% endif %}"
    "{{ eos_token }}{{ messages[0]['content'] }}{{ bos_token }}"
)


class ExportConfig(Config):
    title: str = Field("storymill", min_length=1, description="what the model card calls the model")
    description: str = Field("", description="one more paragraph for the model card")


def export(draft: Draft, config: ExportConfig, *, model: Dataset, tokenizer: Dataset) -> None:
    """Write both formats from the dataset's own files, verified."""
    from safetensors.numpy import load_file, save

    from lib.model import huggingface, llama2c

    card = json.loads(model.file("model.json").read_bytes())
    shape, weights = card["shape"], load_file(model.file("model.safetensors"))
    pieces = tokenizer.file("tokenizer.model").read_bytes()
    if pieces != model.file("tokenizer.model").read_bytes():
        raise UserError(f"{model.stage}/{model.name} was trained with another tokenizer than {tokenizer.name}")
    draft.progress("writing the Hugging Face folder", 0, 2)
    natural = card["layout"] == "natural"
    draft.write_bytes("hf/model.safetensors", save(huggingface.weights(weights, shape), metadata={"format": "pt"}))
    draft.write_bytes("hf/tokenizer.model", pieces)
    for name, content in {
        "config.json": huggingface.config(shape),
        "generation_config.json": huggingface.generation_config(shape),
        "tokenizer.json": huggingface.tokenizer(pieces),
        "tokenizer_config.json": huggingface.tokenizer_config(shape, CHAT_TEMPLATE if natural else None),
        "special_tokens_map.json": huggingface.special_tokens(),
    }.items():
        draft.write_json(f"hf/{name}", content)
    num_params = sum(int(np.prod(tensor.shape)) for tensor in huggingface.weights(weights, shape).values())
    draft.write_text("hf/README.md", model_card(config, card, num_params, model, tokenizer))
    draft.progress("writing llama2.c's files", 1, 2)
    draft.write_bytes("llama2c/model.bin", llama2c.version0(weights, shape))
    draft.write_bytes("llama2c/model-v1.bin", llama2c.version1(weights, shape))
    draft.write_bytes("llama2c/model-q8_0.bin", llama2c.q8_0(weights, shape))
    draft.write_bytes("llama2c/tokenizer.bin", llama2c.tokenizer_bin(pieces))
    draft.fact(num_params=num_params, formats=["hf", "llama2c"], model=f"{model.stage}/{model.name}")


def model_card(config: ExportConfig, card: dict, num_params: int, model: Dataset, tokenizer: Dataset) -> str:
    """README.md: what the model is, how to ask it, and the fingerprints of what it was made from."""
    shape = card["shape"]
    facts = {key: value for key, value in sorted(model.facts.items()) if isinstance(value, int | float)}
    inputs = {key: each["fingerprint"] for key, each in sorted(model.manifest["inputs"].items())}
    lineage = {model.stage: model.fingerprint, "tokenizer": tokenizer.fingerprint} | inputs
    measured = "".join(f"| {key} | {value:,.4g} |\n" for key, value in facts.items())
    return f"""---
library_name: transformers
pipeline_tag: text-generation
language: en
tags: [storymill, tinystories, llama]
---

# {config.title}

A story model of {num_params:,} parameters: {shape["n_layers"]} layers of width {shape["d_model"]},
{shape["n_heads"]} heads ({shape["n_kv_heads"]} for keys and values), {shape["vocab_size"]:,} pieces,
at most {shape["max_length"]} tokens in a row.
It writes short stories in the words of small children, and can do nothing else: fiction only, no facts, no advice.
{config.description}

## How to ask

{_usage(card["layout"])}

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("hf")
model = AutoModelForCausalLM.from_pretrained("hf")
{_example(card["layout"])}
story = model.generate(ids, max_length={shape["max_length"]})
print(tokenizer.decode(story[0, ids.shape[1]:], skip_special_tokens=True))
```

## What was measured

| what | value |
|---|---|
{measured}
## Made from

Fingerprints of content: whoever makes the same rows gets the same ones.

| dataset | fingerprint |
|---|---|
{"".join(f"| {key} | `{fingerprint}` |" + chr(10) for key, fingerprint in lineage.items())}"""


def _usage(layout: str) -> str:
    if layout == "natural":
        return "`</s>Write a story about a cat who could not sleep<s>`: the chat template writes it so."
    return "`<s>Once upon a time`: it goes on from any beginning."


def _example(layout: str) -> str:
    if layout == "natural":
        return (
            'chat = [{"role": "user", "content": "Write a story about a cat who could not sleep"}]\n'
            'ids = tokenizer.apply_chat_template(chat, return_tensors="pt", return_dict=False)'
        )
    return 'ids = tokenizer("Once upon a time", return_tensors="pt").input_ids'
