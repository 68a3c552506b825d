"""Adopted, measured: the bits per byte of a public model on given stories, in the way llama2.c's models are measured.

    python -m bench.adopted MODEL STORIES.jsonl [TOKENIZER]

In:   what --adopt.path takes, with the tokenizer of a .bin; stories, one JSON object with `text` a line
Out:  one line

Paragraphs are joined by one newline, what is not ASCII is left out, a story counts with its first 512 ids, BOS among
them. Neither BOS nor EOS is scored: llama2.c's stories have no EOS.
"""

import json
import os
import re
import sys
import tempfile
from pathlib import Path

from lib.model.scoring import StoryLoss, story_losses
from lib.store import Dataset

MOST_IDS = 512


def plain(text: str) -> str:
    """A story as llama2.c's was."""
    return re.sub(r"\s*\n\s*", "\n", text).strip().encode("ascii", "ignore").decode()


def measure(model: Dataset, stories: Path) -> StoryLoss:
    """The loss of an adopted model over these stories."""
    from lib.model.network import load_model
    from lib.text.tokenizer import Tokenizer

    tokenizer = Tokenizer.load(model.file("tokenizer.model"))
    texts = [plain(json.loads(line)["text"]) for line in stories.read_text().splitlines()]
    ids = [[tokenizer.bos_id, *tokenizer.encode(text)][:MOST_IDS] for text in texts]
    num_bytes = [len(tokenizer.decode(each).encode()) for each in ids]
    losses = story_losses(load_model(model.path), ids, num_bytes)
    return StoryLoss(sum(loss.nats for loss in losses), sum(loss.tokens for loss in losses), sum(num_bytes))


def main() -> None:
    from lib import stages
    from lib.stages.adopt import AdoptConfig

    model, stories, *tokenizer = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        os.environ["STORYMILL_DATA"] = folder
        made = stages.build("adopt", AdoptConfig(path=model, tokenizer=tokenizer[0] if tokenizer else None), {})
        found = measure(made, Path(stories))
    per_token = found.nats / found.tokens
    print(f"{found.bits_per_byte:.4f} bits per byte, {per_token:.4f} nats per token, {found.bytes:,} bytes")


if __name__ == "__main__":
    main()
