"""Hugging Face: a Llama checkpoint as a folder, read.

In:   a folder with config.json, *.safetensors (one, or shards with an index) and tokenizer.model or tokenizer.json
Out:  the network's shape; its weights as float32 tensors under our names; a tokenizer's bytes for lib/text/tokenizer.py
Relies on lib/model/huggingface.py for the names, and on our network turning channel c with c + C/2, as transformers'.

What this network does not compute is refused by the name of its field. Nothing is unpickled: pytorch_model.bin is
refused, too.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib.errors import UserError
from lib.model.huggingface import renamed
from lib.text.pieces import SentencePieces, packed

if TYPE_CHECKING:
    from torch import Tensor

INDEX, ONE = "model.safetensors.index.json", "model.safetensors"
READ = ("config.json", "tokenizer_config.json", "tokenizer.model", "tokenizer.json", INDEX)
# field of config.json → the only values that this network computes
MUST_BE: Mapping[str, tuple[Any, ...]] = {
    "model_type": ("llama",),
    "hidden_act": ("silu",),
    "attention_bias": (False,),
    "mlp_bias": (False,),
    "rope_interleaved": (False,),
    "partial_rotary_factor": (1, 1.0),
    "quantization_config": (None,),
}
SIZES = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
MORE_SIZES = ("num_key_value_heads", "head_dim", "max_position_embeddings")  # these may be missing, or null
# Beside the weights some repositories hold them again: in folders (onnx/, original/), or as consolidated.safetensors.
TWICE = ("*/*", "consolidated*")


def config_of(folder: Path) -> dict[str, Any]:
    """config.json. UserError where the folder has none, or a broken one."""
    path = folder / "config.json"
    if not path.is_file():
        raise UserError(f"found no config.json in {folder}, expected a Hugging Face model: a folder or hf:OWNER/NAME")
    return _object_of(path)


def _object_of(path: Path) -> dict[str, Any]:
    """A file's JSON object."""
    try:
        found = json.loads(path.read_bytes())
    except ValueError as error:  # a bad encoding, too
        raise UserError(f"found a {path} that is no JSON ({error}): fetch it again") from error
    if not isinstance(found, dict):
        raise UserError(f"found a {type(found).__name__} in {path}, expected an object {{…}}: fetch it again")
    return found


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that hold the weights, named by the index or alone."""
    if (folder / INDEX).is_file():
        places = _object_of(folder / INDEX).get("weight_map")
        if not isinstance(places, dict) or not places or not all(map(_is_file_name, places.values())):
            raise UserError(
                f"found no weight_map in {folder / INDEX} that gives a file of this folder for each tensor: fetch it"
            )
        names = sorted(set(places.values()))
        if missing := [name for name in names if not (folder / name).is_file()]:
            raise UserError(f"found no {', '.join(missing)} in {folder}, which {INDEX} names: fetch the rest")
        return [folder / name for name in names]
    if (folder / ONE).is_file():
        return [folder / ONE]
    pickled = sorted(path.name for path in folder.glob("*.bin"))
    told = f"found {', '.join(pickled)} (a pickle, which can run any code)" if pickled else "found no weights"
    raise UserError(f"{told} in {folder}, expected {ONE}: save the model once more with safe_serialization=True")


def _is_file_name(name: Any) -> bool:
    return isinstance(name, str) and Path(name).name == name


def shape_of(config: Mapping[str, Any], max_length: int) -> dict[str, Any]:
    """Our Shape's fields. UserError, with the field's name, for what this network does not compute."""
    for field, allowed in MUST_BE.items():
        if (found := config.get(field, allowed[0])) not in allowed:
            raise UserError(
                f"found {field} = {found!r} in config.json, expected {allowed[0]!r}: this network has no other"
            )
    if missing := [field for field in SIZES if field not in config]:
        raise UserError(f"found no {', '.join(missing)} in config.json, expected a Llama model's")
    for field in SIZES + MORE_SIZES:
        found = config.get(field)
        if not (field in MORE_SIZES and found is None) and (type(found) is not int or found < 1):
            raise UserError(f"found {field} = {found!r} in config.json, expected a whole number above 0")
    width, heads = config["hidden_size"], config["num_attention_heads"]
    head_dim = config.get("head_dim") or width // heads
    if head_dim * heads != width:
        raise UserError(
            f"found head_dim = {head_dim} with {heads} heads in config.json, "
            f"expected hidden_size / heads = {width / heads:g}"
        )
    return {
        "d_model": width,
        "n_layers": config["num_hidden_layers"],
        "n_heads": heads,
        "n_kv_heads": config.get("num_key_value_heads") or heads,
        "d_ff": config["intermediate_size"],
        "max_length": min(config.get("max_position_embeddings") or 2048, max_length),
        "rope_theta": _theta(config),
        "norm_eps": config.get("rms_norm_eps", 1e-6),
        "tied": config.get("tie_word_embeddings", False),
        "vocab_size": config["vocab_size"],
    }


def _theta(config: Mapping[str, Any]) -> float:
    """rope_theta where transformers 4 or 5 has it; any scaling of the rotations is refused."""
    parameters = config.get("rope_parameters") or {}
    for field, rope in (("rope_scaling", config.get("rope_scaling") or {}), ("rope_parameters", parameters)):
        known = isinstance(rope, dict) and rope.get("rope_type", rope.get("type", "default")) == "default"
        # transformers 5 has moved this one here: of each head only a share of the channels would turn
        if not known or rope.get("partial_rotary_factor", 1) not in MUST_BE["partial_rotary_factor"]:
            raise UserError(
                f"found {field} = {rope!r} in config.json, expected none: this network's rotations have no scaling, "
                "and all channels turn"
            )
    theta = parameters.get("rope_theta", config.get("rope_theta", 10000.0))
    if type(theta) not in (int, float) or theta <= 0:
        raise UserError(f"found rope_theta = {theta!r} in config.json, expected a number above 0")
    return float(theta)


def weights_of(folder: Path) -> "dict[str, Tensor]":
    """Every tensor under our name, float32 whatever it was stored in. UserError for one that our network has not."""
    from safetensors import SafetensorError, safe_open

    found: dict[str, Tensor] = {}
    for path in weight_files(folder):
        try:
            with safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118 (no mapping)
                    if name.endswith("rotary_emb.inv_freq"):
                        continue  # older checkpoints store what is computed
                    found[_ours(name)] = file.get_tensor(name).float()
        except SafetensorError as error:
            raise UserError(f"found a damaged {path} ({error}): fetch it again") from error
    return found


def _ours(name: str) -> str:
    """model.layers.3.self_attn.q_proj.weight → layers.3.attention.wq.weight."""
    from lib.model.huggingface import OUTSIDE, RENAMED

    parts = name.removesuffix(".weight").split(".")
    inner = {theirs: ours for ours, theirs in RENAMED.items()}
    outside = {theirs: ours for ours, theirs in OUTSIDE.items()}
    if parts[:2] == ["model", "layers"] and ".".join(parts[3:]) in inner:
        ours = f"layers.{parts[2]}.{inner['.'.join(parts[3:])]}.weight"
    else:
        ours = f"{outside.get('.'.join(parts), '?')}.weight"
    if "?" in ours or renamed(ours) != name:
        raise UserError(f"found the tensor {name} in the checkpoint, which Llama has not: is it another architecture?")
    return ours


def tokenizer_of(folder: Path, config: Mapping[str, Any]) -> bytes:
    """tokenizer.model where it has the bos and eos that config.json names; else tokenizer.json with those two."""
    bos_id, eos_id = _one(config.get("bos_token_id")), _one(config.get("eos_token_id"))
    if eos_id is None:
        raise UserError("found no eos_token_id in config.json, expected the piece that ends a text")
    bos_id = eos_id if bos_id is None else bos_id  # as in GPT-2: the end of one text is the start of the next
    if (folder / "tokenizer.model").is_file():
        model = (folder / "tokenizer.model").read_bytes()
        pieces = SentencePieces(model)
        if (pieces.bos_id, pieces.eos_id) == (bos_id, eos_id):
            return model
    if not (folder / "tokenizer.json").is_file():
        raise UserError(
            f"found no tokenizer.json in {folder}, nor a tokenizer.model with bos, eos = {bos_id}, {eos_id}: "
            "save the model's tokenizer there"
        )
    _object_of(folder / "tokenizer.json")
    return packed((folder / "tokenizer.json").read_bytes(), bos_id=bos_id, eos_id=eos_id)


def _one(token: int | list[int] | None) -> int | None:
    """A model may have several pieces that end a text; its first is the one of plain text."""
    return next(iter(token), None) if isinstance(token, list) else token


def fetched(name: str, revision: str | None) -> Path:
    """The folder of hf:OWNER/NAME on this machine, at that revision; only what is read here is fetched.

    Where nobody can be asked, what was fetched before serves. UserError where there is neither.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        patterns = {"allow_patterns": [*READ, "*.safetensors"], "ignore_patterns": list(TWICE)}
        return Path(snapshot_download(name, revision=revision, **patterns))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise UserError(
            f"found no model hf:{name} at revision {revision or 'main'} ({error}): check its name and your network"
        ) from error
