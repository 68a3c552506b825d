"""Exporting: a trained model as files in a folder of the user's.

In:   a model's name (base, instruct, aligned), a folder that is not there yet or empty
Out:  all that the export stage wrote, copied; the stage's own dataset is made where it is missing
"""

import shutil
from pathlib import Path

from rich.console import Console

from lib import stages
from lib.errors import UserError
from lib.stages.export import ExportConfig
from lib.store import Dataset, find, newest_of, root

STAGES_OF = {"base": ("pretrain", "adopt"), "instruct": ("instruct",), "aligned": ("align",)}
SAID = {
    "hf": "for transformers; README.md says how",
    "llama2c": "for run.c: ./run model.bin -z tokenizer.bin",
    "gguf": "for llama.cpp, Ollama, LM Studio",
    "peft": "the LoRA addition alone, for the model that it was trained on",
    "dataset": "the stories' card",
}


def export(folder: Path, model: str = "aligned") -> None:
    """Copy the newest model of that name. Nothing of the user's is overwritten."""
    if model not in STAGES_OF:
        raise UserError(f"found no model {model!r}, expected one of {', '.join(STAGES_OF)}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is there already and not empty; give a new folder")
    trained = newest_of(STAGES_OF[model])
    if trained is None:
        raise UserError(f"found no {model} model under {root()}; make it first: storymill run")
    inputs = {"model": trained, "tokenizer": _tokenizer_of(trained, model)}
    if stories := _stories_of(trained):
        inputs["stories"] = stories
    made = stages.build("export", ExportConfig(), inputs)
    for name in made.manifest["files"]:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(made.file(name), path)
    console = Console(highlight=False)
    for part in sorted({name.partition("/")[0] for name in made.manifest["files"]}):
        console.print(f"{folder / part}   {SAID[part]}", soft_wrap=True)
    for what, why in made.facts["left_out"].items():
        console.print(f"no {what}: {why}", soft_wrap=True)


def _tokenizer_of(trained: Dataset, model: str) -> Dataset:
    """The tokenizer's dataset; an adopted model is its own."""
    if trained.stage == "adopt":
        return trained
    given = trained.manifest["inputs"]["tokenizer"]
    found = find(given["stage"], given["name"])
    if found is None:
        raise UserError(f"the tokenizer of {model} ({given['name']}) is gone; make it again: storymill run")
    return found


def _stories_of(trained: Dataset) -> Dataset | None:
    """The stories that its tokens are of; None for an adopted model, or where they are gone."""
    dataset: Dataset | None = trained
    for name in ("tokens", "stories"):
        given = dataset.manifest["inputs"].get(name) if dataset else None
        dataset = find(given["stage"], given["name"]) if given else None
    return dataset
