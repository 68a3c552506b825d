"""Blocks: the text that stands around an instruction, and around what it is about.

In:   an instruction and an input, or columns of them
Out:  the whole prompt as one text, which lib/text/template.py encodes as one
"""

import re
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc


@dataclass(frozen=True)
class Block:
    """The text of a prompt: around an instruction that stands alone, and around one with an input."""

    alone: str = "{instruction}"
    about: str = "{instruction}\n{input}"


# https://github.com/tatsu-lab/stanford_alpaca, train.py; the newline at the end is alpaca-lora's. Without it Llama's
# tokenizer merges block and answer, where they are encoded as one text, in 13 of 175 tasks; here they never are.
TASK = "### Instruction:\n{instruction}\n\n### Response:\n"
TASK_WITH_INPUT = "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n"
BELOW = "Below is an instruction that describes a task"
WANTED = "Write a response that appropriately completes the request."
ALPACA = Block(
    f"{BELOW}. {WANTED}\n\n{TASK}",
    f"{BELOW}, paired with an input that provides further context. {WANTED}\n\n{TASK_WITH_INPUT}",
)
ALPACA_AGAIN = Block(TASK, TASK_WITH_INPUT)  # a further turn
# Titles of Ryan Li's few-shot chat; the examples are short, as the rows of small models are, and in the words of
# children's stories, which is what those models know.
SAYS = "Human: {instruction}\nAI:"
EXAMPLES = (
    "This is a talk between a human and an AI. The human asks, and the AI answers.\n"
    "Human: What did the cat do?\nAI: The cat sat in the sun. It was happy.\n"
    "Human: Who was sad?\nAI: The little dog was sad, but then he saw his ball.\n"
)


def _pieces(form: str) -> list[str]:
    """A block's text, cut around its two fields."""
    return [piece for piece in re.split(r"(\{instruction\}|\{input\})", form) if piece]


def text_of(block: Block, instruction: str, input: str) -> str:
    """The block with these in it. Not str.format on what a user wrote: braces there are text."""
    fields = {"{instruction}": instruction, "{input}": input}
    return "".join(fields.get(piece, piece) for piece in _pieces(block.about if input else block.alone))


def texts_of(block: Block, instructions: pa.Array | pa.ChunkedArray, inputs: pa.Array | pa.ChunkedArray | None):
    """`text_of` of whole columns."""
    fields = {"{instruction}": instructions, "{input}": inputs}

    def joined(form: str) -> pa.Array | pa.ChunkedArray:
        parts = [fields.get(piece, piece) for piece in _pieces(form)]
        return parts[0] if len(parts) == 1 else pc.binary_join_element_wise(*parts, "")

    alone = joined(block.alone)
    if inputs is None or inputs.null_count == len(inputs):
        return alone
    return pc.if_else(pc.fill_null(pc.not_equal(inputs, ""), False), joined(block.about), alone)
