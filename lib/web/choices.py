"""The presets as a table, for a person who has to choose one. Reads nothing but code.

In:   lib/presets.py
Out:  column names and rows: name, parameters, pieces, tokens it is trained on, what it needs, what it reproduces
"""

import inspect

from lib.choice import FROM_A_BASE
from lib.model.shape import Dimensions, Shape
from lib.model.training import Training
from lib.presets import PRESETS, Chain

COLUMNS = ["preset", "parameters", "pieces", "tokens", "needs", "what it is"]
# 6 · parameters · tokens (Kaplan et al. 2020, arXiv:2001.08361). A laptop core does about 65 GFLOP/s, so 1e14 are half
# an hour on one; llama2.c's 110M, 1.7e19, took four A100 a day, and at 40 % of its peak one does 1e18 in two hours.
A_GPU, SEVERAL_GPUS = 1e15, 1e19


def rows() -> list[tuple]:
    """One row a preset, in the order of the code."""
    table = []
    for name, preset in PRESETS.items():
        chain = preset()
        what = (inspect.getdoc(preset) or "").splitlines()[0]
        size, adopted = shape_of(chain), name in FROM_A_BASE
        wanted = "a base model, several GPUs" if adopted else needs(chain)
        tokens = tokens_of(chain, chain.instruct if adopted else chain.pretrain)
        table.append((name, size.num_params, size.vocab_size, tokens, wanted, what))
    return table


def shape_of(chain: Chain) -> Shape:
    """The network a preset pretrains, with all its pieces."""
    dimensions = {name: getattr(chain.pretrain, name) for name in Dimensions.model_fields}
    return Shape(vocab_size=chain.tokenizer.vocab_size, **dimensions)


def tokens_of(chain: Chain, training: Training) -> int:
    """Positions that a training computes: steps x rows x positions a row."""
    return training.steps * training.batch_size * chain.pretrain.max_length


def needs(chain: Chain) -> str:
    """Text that fills its vocabulary, and the machine that its pretraining asks for."""
    text = [] if chain.tokenizer.vocab_size <= 2048 else [f"text of {chain.tokenizer.vocab_size:,} pieces"]
    flop = 6 * shape_of(chain).num_params * tokens_of(chain, chain.pretrain)
    return ", ".join([*text, "several GPUs" if flop > SEVERAL_GPUS else "a GPU" if flop > A_GPU else "a laptop"])
