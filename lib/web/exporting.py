"""Exporting: a trained model as files in a folder of the user's.

In:   a model's name (base, instruct, aligned), a folder that is not there yet or empty
Out:  hf/ and llama2c/ of the export stage, copied; the stage's own dataset is made where it is missing
"""

import shutil
from pathlib import Path

from rich.console import Console

from lib import stages
from lib.errors import UserError
from lib.stages.export import ExportConfig
from lib.store import find, newest, root

STAGE_OF = {"base": "pretrain", "instruct": "instruct", "aligned": "align"}


def export(folder: Path, model: str = "aligned") -> None:
    """Copy the newest model of that name. Nothing of the user's is overwritten."""
    if model not in STAGE_OF:
        raise UserError(f"found no model {model!r}, expected one of {', '.join(STAGE_OF)}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is there already and not empty; give a new folder")
    trained = newest(STAGE_OF[model])
    if trained is None:
        raise UserError(f"found no {model} model under {root()}; make it first: storymill run")
    given = trained.manifest["inputs"]["tokenizer"]
    tokenizer = find(given["stage"], given["name"])
    if tokenizer is None:
        raise UserError(f"the tokenizer of {model} ({given['name']}) is gone; make it again: storymill run")
    made = stages.build("export", ExportConfig(), {"model": trained, "tokenizer": tokenizer})
    for name in made.manifest["files"]:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(made.file(name), path)
    console = Console(highlight=False)
    console.print(f"{folder / 'hf'}        for transformers; README.md says how", soft_wrap=True)
    console.print(f"{folder / 'llama2c'}   for run.c: ./run model.bin -z tokenizer.bin", soft_wrap=True)
