"""LoRA: train a low-rank addition to chosen projections, and leave the weights beneath alone.

In:   a Llama, rank r, alpha, dropout, the names of projections
Out:  the same model with LoraLinear in their place; `merge` puts plain nn.Linear back, with the addition in the weights

After Hu et al. 2021 (arXiv:2106.09685): y = W x + (alpha / r) · B A dropout(x), A random, B zero, so that training
starts from the model as it is. New parameters: r · (in + out) for each projection.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save, save_file
from torch import Tensor, nn

from lib.model.huggingface import RENAMED, renamed
from lib.store import Draft


class LoraLinear(nn.Module):
    """A frozen linear layer and its trained addition."""

    def __init__(self, base: nn.Linear, *, rank: int, alpha: float, dropout: float) -> None:
        super().__init__()
        self.base, self.scale = base, alpha / rank
        self.lora_a = nn.Parameter(torch.empty(rank, base.in_features, device=base.weight.device))
        self.lora_b = nn.Parameter(torch.zeros(base.out_features, rank, device=base.weight.device))
        self.dropout = nn.Dropout(dropout)
        nn.init.kaiming_uniform_(self.lora_a, a=math.sqrt(5))  # nn.Linear's own start, as the paper's code has it

    def forward(self, x: Tensor) -> Tensor:
        low = nn.functional.linear(self.dropout(x), self.lora_a)
        return self.base(x) + self.scale * nn.functional.linear(low, self.lora_b)

    def merged(self) -> nn.Linear:
        """The base layer with the addition in its weights; computed in float64, rounded once."""
        addition = self.scale * (self.lora_b.double() @ self.lora_a.double())
        with torch.no_grad():
            self.base.weight.copy_((self.base.weight.double() + addition).to(self.base.weight.dtype))
        self.base.weight.requires_grad_(True)
        return self.base


def add_lora(model: nn.Module, *, rank: int, alpha: float, dropout: float, targets: Sequence[str]) -> int:
    """Freeze `model` and put a LoraLinear around every projection named in `targets`; the number of new parameters."""
    model.requires_grad_(False)
    added = 0
    for name, layer in [(n, m) for n, m in model.named_modules() if n.rpartition(".")[2] in targets]:
        wrapped = LoraLinear(layer, rank=rank, alpha=alpha, dropout=dropout)
        model.set_submodule(name, wrapped.train(layer.training))
        added += wrapped.lora_a.numel() + wrapped.lora_b.numel()
    return added


def save_adapter(model: nn.Module, folder: Path, **settings: Any) -> None:
    """The addition alone: adapter.safetensors with layers.0.attention.wq.lora_a (r, in), .lora_b (out, r) and so on;
    adapter.json with the settings it was made with."""
    trained = {name: weight.detach().cpu() for name, weight in model.named_parameters() if ".lora_" in name}
    save_file({name: weight.contiguous() for name, weight in trained.items()}, folder / "adapter.safetensors")
    (folder / "adapter.json").write_text(json.dumps(settings, indent=1) + "\n")


def publish_adapter(draft: Draft, model: nn.Module, **settings: Any) -> None:
    """The adapter in our names and, under peft/, in peft's; to be called before `merge`."""
    save_adapter(model, draft.path, **settings)
    for name, data in peft(load_file(draft.path / "adapter.safetensors"), settings).items():
        draft.write_bytes(f"peft/{name}", data)
    draft.adopt("adapter.safetensors")
    draft.adopt("adapter.json")


def peft(weights: Mapping[str, Tensor], settings: Mapping[str, Any]) -> dict[str, bytes]:
    """The two files that peft's PeftModel.from_pretrained(base, folder) opens, on the base as this project exports it.

    Our projections lie as transformers' do, so no row changes place; only the names do.
    """
    inner = {name.rpartition(".")[2]: theirs for name, theirs in RENAMED.items()}
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": settings["rank"],
        "lora_alpha": settings["alpha"],
        "lora_dropout": settings["dropout"],
        "target_modules": sorted(inner[name].rpartition(".")[2] for name in settings["targets"]),
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "base_model_name_or_path": None,
    }
    named = {_peft_name(name): weight for name, weight in weights.items()}
    return {
        "adapter_config.json": (json.dumps(config, indent=1) + "\n").encode(),
        "adapter_model.safetensors": save(named, metadata={"format": "pt"}),
    }


def _peft_name(name: str) -> str:
    """layers.0.attention.wq.lora_a → base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight."""
    layer, _, which = name.rpartition(".lora_")
    return f"base_model.model.{renamed(layer).removesuffix('.weight')}.lora_{which.upper()}.weight"


def merge(model: nn.Module) -> None:
    """Put plain nn.Linear layers back. The model then computes the same (to 1e-5) and saves like any other."""
    for name, layer in [(n, m) for n, m in model.named_modules() if isinstance(m, LoraLinear)]:
        model.set_submodule(name, layer.merged())
    model.requires_grad_(True)
