"""The two libraries behind a tokenizer: SentencePiece, and Hugging Face's `tokenizers`.

In:   the bytes of a model: a SentencePiece .model, or what `packed` makes of a tokenizer.json
Out:  ids of texts, text of ids, the vocabulary; bos_id, eos_id, unk_id (None where there is no such piece), vocab_size

With either, text never becomes a control piece: "</s>" in a story is spelled out. `tokenizers` would parse it by
default; it is told not to, and a tokenizer that does it all the same is refused when it is opened.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import pyarrow as pa

from lib.errors import UserError

NORMAL, CONTROL, BYTE, UNKNOWN = "normal", "control", "byte", "unknown"
KINDS = {1: "unigram", 2: "bpe"}  # sentencepiece_model.proto's TrainerSpec.ModelType
USER_DEFINED = 4  # and its ModelProto.SentencePiece.Type: such pieces are cut out of text before anything else


class Pieces(Protocol):
    """One opened model."""

    bos_id: int
    eos_id: int
    unk_id: int | None
    vocab_size: int
    by_chunks: bool  # no piece spans a blank, and what stands before a blank changes nothing behind it

    def encode(self, texts: Sequence[str]) -> list[list[int]]: ...

    def decode(self, ids: Iterable[int]) -> str: ...

    def table(self) -> pa.Table: ...


def opened(model: bytes) -> Pieces:
    """The model behind these bytes; UserError for what is neither kind, or lacks bos or eos."""
    return JsonPieces(model) if model.lstrip()[:1] == b"{" else SentencePieces(model)


def packed(tokenizer_json: bytes, *, bos_id: int, eos_id: int) -> bytes:
    """tokenizer.json with what it does not say itself: which of its pieces begin and end a text."""
    held = {"bos_id": bos_id, "eos_id": eos_id, "tokenizer": json.loads(tokenizer_json)}
    return json.dumps(held, ensure_ascii=False, separators=(",", ":")).encode()


def unpacked(model: bytes) -> dict[str, Any] | None:
    """The content of the tokenizer.json in a model that `packed` made; None for a SentencePiece model."""
    return json.loads(model)["tokenizer"] if model.lstrip()[:1] == b"{" else None


class SentencePieces:
    """A SentencePiece model: byte-pair encoding or unigram."""

    def __init__(self, model: bytes) -> None:
        import sentencepiece

        try:
            self._pieces = sentencepiece.SentencePieceProcessor(model_proto=model)
        except RuntimeError as error:
            raise UserError(f"found {len(model)} bytes that are not a SentencePiece model ({error})") from error
        self.unk_id, self.bos_id, self.eos_id = self._pieces.unk_id(), self._pieces.bos_id(), self._pieces.eos_id()
        self.vocab_size = self._pieces.vocab_size()
        for name, piece_id in (("bos", self.bos_id), ("eos", self.eos_id)):
            if piece_id < 0 or not self._pieces.is_control(piece_id):
                raise UserError(
                    f"found a SentencePiece model without a control piece for {name} (id {piece_id}), expected one: "
                    "give a tokenizer that marks where a text begins and ends"
                )
        self.kind = _kind_of(model)
        # Unigram's best path adds up float32 scores from the start of a text: of two spellings equally good, nothing
        # says that the same one wins further on. (Of 491 real stories none differed.)
        self.by_chunks = self.kind == "bpe"

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return self._pieces.encode(list(texts), num_threads=1)

    def decode(self, ids: Iterable[int]) -> str:
        return self._pieces.decode([int(i) for i in ids])

    def table(self) -> pa.Table:
        ids = range(self.vocab_size)
        return vocabulary(
            [self._pieces.id_to_piece(i) for i in ids],
            [self._pieces.get_score(i) for i in ids],
            [self._kind(i) for i in ids],
        )

    def _kind(self, piece_id: int) -> str:
        if self._pieces.is_unknown(piece_id):
            return UNKNOWN
        if self._pieces.is_control(piece_id):
            return CONTROL
        return BYTE if self._pieces.is_byte(piece_id) else NORMAL


def _kind_of(model: bytes) -> str | None:
    """bpe or unigram for a vocabulary that cuts text at blanks and changes none of it, as `FLAGS` in tokenizer.py have
    it; None for any other."""
    from sentencepiece import sentencepiece_model_pb2

    proto = sentencepiece_model_pb2.ModelProto.FromString(model)
    trainer, normalizer = proto.trainer_spec, proto.normalizer_spec
    plain = not normalizer.precompiled_charsmap and not normalizer.remove_extra_whitespaces
    ours = (
        trainer.split_by_whitespace
        and trainer.byte_fallback
        and not trainer.treat_whitespace_as_suffix
        and (plain and normalizer.add_dummy_prefix and normalizer.escape_whitespaces)
        and not any(piece.type == USER_DEFINED for piece in proto.pieces)
    )
    return KINDS.get(trainer.model_type) if ours else None


class JsonPieces:
    """A tokenizer.json of Hugging Face's, from `packed`. It has no unknown piece that anything here relies on."""

    unk_id, by_chunks = None, False

    def __init__(self, model: bytes) -> None:
        import tokenizers

        held = json.loads(model)
        try:
            self._tokenizer = tokenizers.Tokenizer.from_str(json.dumps(held["tokenizer"]))
        except Exception as error:  # what the library raises has no class of its own
            raise UserError(f"found a tokenizer.json that `tokenizers` cannot read ({error})") from error
        self.bos_id, self.eos_id = held["bos_id"], held["eos_id"]
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._tokenizer.encode_special_tokens = True  # the name misleads: special strings in text are spelled out
        self._names = {i: name for name, i in self._tokenizer.get_vocab().items()}
        self.vocab_size = max(self._names) + 1
        self._controls = self._marked() | {self.bos_id, self.eos_id}
        self._refuse_what_text_can_forge()

    def _marked(self) -> set[int]:
        added: Mapping[int, Any] = self._tokenizer.get_added_tokens_decoder()
        return {i for i, token in added.items() if token.special}

    def _refuse_what_text_can_forge(self) -> None:
        for name, piece_id in (("bos", self.bos_id), ("eos", self.eos_id)):
            if piece_id not in self._names:
                raise UserError(
                    f"found {name} = {piece_id}, which tokenizer.json does not hold ({len(self._names)} ids)"
                )
        controls = sorted(self._controls & set(self._names))
        for control, ids in zip(controls, self.encode([self._names[i] for i in controls]), strict=True):
            if self._controls & set(ids):
                raise UserError(
                    f"found a tokenizer that makes the control piece {control} of the text {self._names[control]!r}, "
                    "expected one that spells it out: a story could forge a turn"
                )

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return [each.ids for each in self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]

    def decode(self, ids: Iterable[int]) -> str:
        kept = [i for i in map(int, ids) if i not in self._controls]
        return self._tokenizer.decode(kept, skip_special_tokens=False)

    def table(self) -> pa.Table:
        ids = range(self.vocab_size)
        kinds = [CONTROL if i in self._controls else NORMAL for i in ids]
        return vocabulary([self._names.get(i, "") for i in ids], [None] * len(ids), kinds)


def vocabulary(pieces: list[str], scores: list[float | None], kinds: list[str]) -> pa.Table:
    """piece_id, piece, score, kind: one row a piece."""
    return pa.table(
        {
            "piece_id": pa.array(range(len(pieces)), pa.int32()),
            "piece": pa.array(pieces, pa.string()),
            "score": pa.array(scores, pa.float32()),
            "kind": pa.array(kinds, pa.string()),
        }
    )
