"""Adopt: start from a public model instead of pretraining one.

In:   a llama2.c .bin with its tokenizer; a Hugging Face folder of a Llama model; or hf:OWNER/NAME
Out:  as pretrain: model.safetensors (float32), model.json, tokenizer.model, scored (none is); and pieces, as the
      tokenizer stage. It stands for both of them in the chain.
Relies on lib/model/llama2c_reading.py and lib/model/hub.py, which say what they refuse.

tokenizer.model is SentencePiece's, or a tokenizer.json with its bos and eos (lib/text/pieces.py).
"""

import hashlib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from lib.errors import UserError
from lib.store import Config, Draft, Stage

if TYPE_CHECKING:
    from torch import Tensor

STAGE = Stage("adopt", 1)
HUB = "hf:"


class AdoptConfig(Config):
    """Which model, and how long its rows are here."""

    path: str = Field(description="llama2.c's MODEL.bin, a Hugging Face folder, or hf:OWNER/NAME")
    tokenizer: str | None = Field(
        None, description="of a .bin: tokenizer.bin or a SentencePiece .model; looked for beside it if not given"
    )
    revision: str | None = Field(None, description="of hf: a branch, tag or commit")
    max_length: int = Field(512, ge=2, description="most positions in a row; the model's own where those are fewer")


def external(config: AdoptConfig) -> dict[str, str]:
    """sha256 of every file that is read: another model under the same path is another dataset.

    What a config.json asks for that the network has not is said here: before a plan is made or a story is bought.
    """
    from lib.model import hub

    if folder := _folder(config):
        hub.shape_of(hub.config_of(folder), config.max_length)
    return {path.name: _digest(path) for path in _files(config)}


def adopt(draft: Draft, config: AdoptConfig) -> None:
    """Write the model as this project holds one. UserError, with the field or file, for what cannot be adopted."""
    from lib.model.network import MODEL_FILES, save_model
    from lib.store.schemas import SCORED
    from lib.text.template import digest_of
    from lib.text.tokenizer import Tokenizer

    draft.progress(f"reading {config.path}")
    shape, weights, model = _read(config)
    tokenizer = Tokenizer(model)
    shape, cut = _fitted(shape, weights, tokenizer.vocab_size)
    network = _network(shape, weights)
    about = {"layout": "pretrain", "template": digest_of("pretrain"), "stage": STAGE.name}
    save_model(network, draft.path, tokenizer=hashlib.sha256(model).hexdigest(), **about)
    for name in MODEL_FILES:
        draft.adopt(name)
    draft.write_bytes("tokenizer.model", model)
    draft.write_table("pieces.parquet", tokenizer.pieces())
    draft.write_table("scored.parquet", SCORED.empty_table())
    draft.fact(num_params=network.shape.num_params, vocab_size=tokenizer.vocab_size, rows_cut=cut)
    draft.fact(digest=tokenizer.digest, source=config.path)


def _read(config: AdoptConfig) -> "tuple[dict[str, Any], dict[str, Tensor], bytes]":
    """Shape, weights and the tokenizer's bytes."""
    import torch

    from lib.model import hub, llama2c_reading

    folder = _folder(config)
    if folder:
        told = hub.config_of(folder)
        shape = hub.shape_of(told, config.max_length)
        return shape, hub.weights_of(folder), hub.tokenizer_of(folder, told)
    model, pieces = _files(config)
    shape, arrays = llama2c_reading.network(model.read_bytes())
    shape["max_length"] = min(shape["max_length"], config.max_length)
    data = pieces.read_bytes()
    if pieces.suffix == ".bin":
        data = llama2c_reading.tokenizer_model(data, shape["vocab_size"])
    return shape, {name: torch.tensor(array) for name, array in arrays.items()}, data


def _fitted(shape: dict[str, Any], weights: "dict[str, Tensor]", num_pieces: int) -> tuple[dict[str, Any], int]:
    """The shape with as many rows of vocabulary as there are pieces, the weights cut to it; how many rows went.

    Some models have more rows than pieces, to make the number round; nothing can ever stand for those.
    """
    if num_pieces > shape["vocab_size"]:
        raise UserError(
            f"found a tokenizer of {num_pieces:,} pieces, expected at most the model's {shape['vocab_size']:,}: "
            "give the one that the model was trained with"
        )
    for name in {"tok_embeddings.weight", "output.weight"} & set(weights):
        weights[name] = weights[name][:num_pieces]
    return shape | {"vocab_size": num_pieces}, shape["vocab_size"] - num_pieces


def _network(shape: dict[str, Any], weights: "dict[str, Tensor]") -> Any:
    """Our network around these very tensors: nothing is initialised, nothing is held twice. Where the output layer is
    tied, what a checkpoint may hold of it is the embedding once more."""
    import torch
    from pydantic import ValidationError

    from lib.model.network import Llama
    from lib.model.shape import Shape

    try:
        with torch.device("meta"):
            model = Llama(Shape(**shape))
        given = weights | ({"output.weight": weights["tok_embeddings.weight"]} if shape["tied"] else {})
        model.load_state_dict(given, assign=True)
    except ValidationError as error:
        told = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
        raise UserError(f"found a model that this network cannot be ({told}); its shape is {shape}") from None
    except (KeyError, RuntimeError) as error:
        raise UserError(f"found weights that do not fit the model's shape {shape}: {error}") from error
    return model


# ---- where it lies


def _folder(config: AdoptConfig) -> Path | None:
    """The Hugging Face folder; None for a llama2.c file."""
    from lib.model import hub

    if config.path.startswith(HUB):
        return hub.fetched(config.path.removeprefix(HUB), config.revision)
    return Path(config.path) if Path(config.path).is_dir() else None


def _files(config: AdoptConfig) -> list[Path]:
    """Every file that is read; of llama2.c the model and its tokenizer."""
    from lib.model import hub

    if folder := _folder(config):
        hub.config_of(folder)
        return [path for name in hub.READ if (path := folder / name).is_file()] + hub.weight_files(folder)
    path = Path(config.path)
    if path.suffix != ".bin":
        raise UserError(
            f"found {config.path!r}, expected llama2.c's MODEL.bin, a Hugging Face folder, or hf:OWNER/NAME"
        )
    if not path.is_file():
        raise UserError(f"found no file {path} (looked in {Path.cwd()}): give the path of a model that exists")
    beside = [path.with_name(name) for name in ("tokenizer.bin", "tokenizer.model")]
    places = [Path(config.tokenizer)] if config.tokenizer else beside
    pieces = next((place for place in places if place.is_file()), None)
    if pieces is None:
        looked = ", ".join(map(str, places))
        raise UserError(f"found no tokenizer for {path} (looked for {looked}): give it with --adopt.tokenizer")
    if pieces.suffix not in (".bin", ".model"):
        raise UserError(f"found the tokenizer {pieces}, expected llama2.c's tokenizer.bin or a SentencePiece .model")
    return [path, pieces]


def _digest(path: Path) -> str:
    file = path.stat()
    return _sha256(path, file.st_size, file.st_mtime_ns)


@cache
def _sha256(path: Path, size: int, changed: int) -> str:
    """Read once a process: a run asks for a model's name several times, and a model has gigabytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
