"""Export: the model as other programs want it, and the card of the stories behind it.

In:   model (pretrain, adopt, instruct or align), tokenizer; stories (split), if they are given
Out:  hf/          a Hugging Face folder: AutoModelForCausalLM and AutoTokenizer load it, README.md is its card
      llama2c/     model.bin (run.c), model-v1.bin, model-q8_0.bin (runq.c), tokenizer.bin
      gguf/        model.gguf for llama.cpp, Ollama, LM Studio
      peft/        adapter_config.json, adapter_model.safetensors, where the model was trained by LoRA: the addition to
                   the model it started from, which hf/ has merged in
      dataset/     README.md: the stories' card; with `stories`, the kept stories beside it, for load_dataset
A format that would spell text otherwise than the model's own tokenizer is left out; the fact left_out says why.
Neither torch nor transformers is needed to write them; the tests hold each to this project's own sampler.
"""

import io
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import Field

from lib.errors import UserError
from lib.store import Config, Dataset, Draft, Stage

if TYPE_CHECKING:
    from lib.text.tokenizer import Tokenizer

STAGE = Stage("export", 2)
PEFT = ("adapter_config.json", "adapter_model.safetensors")


class ExportConfig(Config):
    title: str = Field("storymill", min_length=1, description="what the model card calls the model")
    description: str = Field("", description="one more paragraph for the model card")
    license: str = Field("unknown", description="of the model, as Hugging Face names it: mit, apache-2.0, …")
    data_license: str = Field("unknown", description="of the stories, as Hugging Face names it: cdla-sharing-1.0, …")
    stories: bool = Field(False, description="copy the kept stories beside their card, not the card alone")


@dataclass(frozen=True)
class Model:
    """What every format is written from."""

    card: dict[str, Any]  # model.json
    weights: dict[str, np.ndarray]
    tokenizer: "Tokenizer"
    left_out: dict[str, str] = field(default_factory=dict)

    @property
    def shape(self) -> dict[str, Any]:
        return self.card["shape"]


def export(
    draft: Draft, config: ExportConfig, *, model: Dataset, tokenizer: Dataset, stories: Dataset | None = None
) -> None:
    """Write every format from the dataset's own files, verified."""
    from safetensors.numpy import load_file

    from lib.model import cards
    from lib.text.template import Template
    from lib.text.tokenizer import Tokenizer

    pieces = tokenizer.file("tokenizer.model").read_bytes()
    if pieces != model.file("tokenizer.model").read_bytes():
        raise UserError(f"{model.stage}/{model.name} was trained with another tokenizer than {tokenizer.name}")
    card = json.loads(model.file("model.json").read_bytes())
    made = Model(card, load_file(model.file("model.safetensors")), Tokenizer(pieces))
    formats = []
    for number, (name, write) in enumerate({"hf": _hf, "llama2c": _llama2c, "gguf": _gguf}.items()):
        draft.progress(f"writing {name}", number, 4)
        if write(draft, config, made):
            formats.append(name)
    if "peft/adapter_config.json" in model.manifest["files"]:
        for name in PEFT:
            draft.write_bytes(f"peft/{name}", model.file(f"peft/{name}").read_bytes())
        formats.append("peft")
    num_params = sum(int(np.prod(each.shape)) for each in made.weights.values())
    text = cards.model_card(
        cards.Exported(
            **config.model_dump(include={"title", "description", "license"}),
            about=card,
            num_params=num_params,
            template=Template(made.tokenizer),
            model=model,
            tokenizer=tokenizer,
            formats=formats,
            left_out=made.left_out,
        )
    )
    draft.write_text("hf/README.md", text)
    if stories is not None:
        draft.progress("writing the stories' card", 3, 4)
        _dataset(draft, config, stories)
    draft.fact(num_params=num_params, formats=formats, model=f"{model.stage}/{model.name}", left_out=made.left_out)


def _hf(draft: Draft, config: ExportConfig, made: Model) -> bool:
    from safetensors.numpy import save

    from lib.model import huggingface
    from lib.text.chat_template import chat_template

    shape, tokenizer = made.shape, made.tokenizer
    ends = {"bos_token_id": tokenizer.bos_id, "eos_token_id": tokenizer.eos_id}
    special = huggingface.special_tokens(tokenizer.model)
    weights = save(huggingface.weights(made.weights, shape), metadata={"format": "pt"})
    draft.write_bytes("hf/model.safetensors", weights)
    files = {
        "config.json": huggingface.config(shape, ends),
        "generation_config.json": huggingface.generation_config(shape, ends),
        "tokenizer_config.json": huggingface.tokenizer_config(shape, chat_template(made.card["layout"]), special),
        "special_tokens_map.json": special,
    }
    if why := huggingface.why_not(tokenizer.model):
        made.left_out["hf/tokenizer.json"] = why
    else:
        files["tokenizer.json"] = huggingface.tokenizer(tokenizer.model)
    for name, content in files.items():
        draft.write_json(f"hf/{name}", content)
    if tokenizer.is_sentencepiece:
        draft.write_bytes("hf/tokenizer.model", tokenizer.model)
    return True


def _llama2c(draft: Draft, config: ExportConfig, made: Model) -> bool:
    from lib.model import llama2c

    if why := llama2c.why_not(made.tokenizer.model, made.shape):
        made.left_out["llama2c"] = why
        return False
    weights, shape = made.weights, made.shape
    draft.write_bytes("llama2c/model.bin", llama2c.version0(weights, shape))
    draft.write_bytes("llama2c/model-v1.bin", llama2c.version1(weights, shape))
    draft.write_bytes("llama2c/model-q8_0.bin", llama2c.q8_0(weights, shape))
    draft.write_bytes("llama2c/tokenizer.bin", llama2c.tokenizer_bin(made.tokenizer.model))
    return True


def _gguf(draft: Draft, config: ExportConfig, made: Model) -> bool:
    from lib.model import gguf
    from lib.text.chat_template import chat_template

    if why := gguf.why_not(made.tokenizer.model):
        made.left_out["gguf"] = why
        return False
    path = draft.path / "gguf" / "model.gguf"
    path.parent.mkdir(exist_ok=True)
    about = {"name": config.title, "chat_template": chat_template(made.card["layout"])}
    gguf.write(path, made.weights, made.shape, made.tokenizer.model, **about)
    draft.adopt("gguf/model.gguf")
    return True


def _dataset(draft: Draft, config: ExportConfig, stories: Dataset) -> None:
    """The card; with `stories` one file a part and side, which load_dataset("dataset") reads."""
    from lib.model import cards

    files: dict[str, list[str]] = {}
    for part in stories.parts() if config.stories else ():
        table = part.table()
        for side in cards.sides_of(stories):
            rows = table.filter(pc.equal(table["split"], side))
            name = f"{side}-{len(files.get(side, ())):05d}.parquet"
            if rows.num_rows:
                memory = io.BytesIO()
                pq.write_table(rows, memory)
                draft.write_bytes(f"dataset/{name}", memory.getvalue())
                files.setdefault(side, []).append(name)
    card = cards.dataset_card(title=config.title, license=config.data_license, stories=stories, files=files)
    draft.write_text("dataset/README.md", card)
