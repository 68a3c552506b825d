"""A byte-level tokenizer such as SmolLM2's, made in a moment: for tests of what public models bring."""

from functools import cache

from tests import tiny

END = "<|endoftext|>"


@cache
def byte_level_json() -> bytes:
    """A tokenizer such as SmolLM2's: byte-level pairs, digits apart, one piece for both ends of a text."""
    from tokenizers import Tokenizer as Their
    from tokenizers import decoders, models, pre_tokenizers, trainers

    made = Their(models.BPE())
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=340,
        special_tokens=[END, "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(tiny.stories(40)["text"].to_pylist(), trainer)
    return made.to_str().encode()
