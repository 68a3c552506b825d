"""A batch is a pure function of (seed, step), holds whole stories, and scores what it says."""

import numpy as np
import pytest
import torch

from lib.errors import UserError
from lib.model.batches import BOS, PAD_DOCUMENT, Batches, Corpus, Plan, ahead
from lib.model.inputs import lead_of
from lib.model.network import IGNORE
from lib.text.template import Template
from lib.text.tokenizer import Tokenizer
from tests.tiny_tokens import story, tokenizer_of, tokens_of

EOS = 2
HELD_OUT = {"lead": [EOS], "loss_on": "evaluation"}


def batches(layout: str = "pretrain", split: str = "train", **changes: object) -> Batches:
    tokens = tokens_of(tokenizer_of(), layout=layout)
    options = {"row_length": 128, "batch_size": 3, "seed": 4} | changes
    return Batches(corpus=Corpus(tokens=tokens, split=split), **options)


def same(one, other) -> bool:
    return torch.equal(one.ids_BT, other.ids_BT) and torch.equal(one.targets_BT, other.targets_BT)


def test_a_batch_depends_on_seed_and_step_alone():
    walked, jumped, reseeded = batches(), batches(), batches(seed=5)
    seen = [walked.batch(step) for step in range(12)]
    assert same(jumped.batch(11), seen[11]) and same(jumped.batch(2), seen[2])
    assert not same(reseeded.batch(2), seen[2])


def test_each_epoch_sees_every_story_once_in_another_order():
    one = batches(batch_size=1)
    rows = [one.plan(0).num_rows, one.plan(1).num_rows]
    first = np.concatenate([one.pieces_of(step)[0] for step in range(rows[0])])
    second = np.concatenate([one.pieces_of(step)[0] for step in range(rows[0], sum(rows))])
    for epoch in (first, second):
        seen = [(number, place) for number, start, size in epoch.tolist() for place in range(start, start + size)]
        assert sorted(seen) == [(s, place) for s in range(len(one.corpus)) for place in range(one.sizes[s])]
    assert first.tolist() != second.tolist()


def test_rows_follow_one_another_across_an_epoch():
    one, three = batches(batch_size=1), batches(batch_size=3)
    rows = [row.tolist() for step in range(14) for row in three.stories_of(step)]
    assert rows == [one.stories_of(step)[0].tolist() for step in range(42)]
    assert one.plan(0).num_rows < 42


@pytest.mark.parametrize("layout", ["pretrain", "natural"])
def test_what_a_row_holds_decodes_to_whole_stories(layout):
    one = batches(layout, row_length=1024)  # of the little corpus this is one row and a half: nothing has to be broken
    pieces = Tokenizer.load(tokenizer_of().file("tokenizer.model"))
    batch, texts = one.batch(0), {story(n)[1] for n in range(60)}
    assert one.fits.all()
    for b, stories in enumerate(one.stories_of(0)):
        for document in range(len(stories)):
            here = batch.document_BT[b] == document
            written = batch.ids_BT[b, here].tolist() + batch.targets_BT[b, here][-1:].tolist()
            assert written[-1] == EOS
            assert pieces.decode(written[written.index(BOS) :]) in texts


def test_targets_are_the_next_token_of_the_same_story():
    batch = batches().batch(0)
    inside = batch.document_BT[:, :-1] == batch.document_BT[:, 1:]
    inside &= batch.document_BT[:, 1:] != PAD_DOCUMENT
    assert torch.equal(batch.targets_BT[:, :-1][inside], batch.ids_BT[:, 1:][inside])
    assert (batch.targets_BT[batch.document_BT == PAD_DOCUMENT] == IGNORE).all()
    assert batch.num_targets == (batch.document_BT != PAD_DOCUMENT).sum()


def scored(loss_on: str, layout: str = "natural", lead: tuple[int, ...] = (EOS,)) -> list[int]:
    """The scored targets of the first story of a batch."""
    batch = batches(layout, loss_on=loss_on, lead=lead).batch(0)
    targets = batch.targets_BT[0, batch.document_BT[0] == 0].tolist()
    return [target for target in targets if target != IGNORE]


def test_loss_on_all_scores_the_instruction_and_on_story_does_not():
    everything, own, evaluation = scored("all"), scored("story"), scored("evaluation")
    assert own[0] == BOS and everything[-len(own) :] == own and len(everything) > len(own)
    assert evaluation == own[1:] and evaluation[-1] == EOS


def test_evaluation_scores_the_same_tokens_in_every_layout():
    natural = batches("natural", "val", loss_on="evaluation", lead=(EOS,)).in_order()
    plain = batches("pretrain", "val", loss_on="evaluation").in_order()
    count = [sum(batch.num_targets for batch in layout) for layout in (natural, plain)]
    assert count[0] == count[1]
    text_bytes = sum(len(story(n)[1].encode()) for n in range(0, 60, 5))
    assert [sum(batch.text_bytes for batch in layout) for layout in (natural, plain)] == [text_bytes] * 2


def ends_of(one: Batches) -> int:
    return sum(int((one.batch(step).targets_BT == EOS).sum()) for step in range(one.plan(0).num_rows))


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("loss_on", ["all", "story"])
def test_an_example_longer_than_a_row_is_left_out_and_named_and_every_other_one_ends(packed, loss_on):
    one = batches("natural", row_length=45, batch_size=1, lead=[EOS], loss_on=loss_on, packed=packed)
    fits = one.corpus.length <= 45  # the lead goes in front, the last token is only a target
    assert 0 < fits.sum() < len(fits)
    assert ends_of(one) == fits.sum() == len(np.unique(np.concatenate([one.plan(0).pieces[:, 0]])))
    gone = one.too_long.to_pylist()
    assert {row["story_id"] for row in gone} == set(one.corpus.story_ids.filter(~fits).to_pylist())
    assert {row["reason"] for row in gone} == {"too_long"}
    assert gone[0]["detail"].endswith(" positions, more than 45")
    assert one.fill == one.sizes[fits].sum() / (one.plan(0).num_rows * 45) <= 1


def test_rows_may_be_longer_than_any_example_in_them():
    one = batches("natural", row_length=180, longest=45, batch_size=1)
    assert max(size for _, _, size in one.plan(0).pieces) <= 45 and len(one.too_long) > 0
    assert one.batch(0).ids_BT.shape == (1, 180) and len(one.stories_of(0)[0]) >= 4


def test_no_example_that_fits_is_named():
    with pytest.raises(UserError, match=r"none of 48 sequences fits whole into 20 positions.*shortest fills \d+\)"):
        batches("natural", row_length=20)


def test_the_end_is_scored_where_bos_and_eos_are_one_id():
    apart, alike = (batches("natural", "val", bos_id=bos, **HELD_OUT) for bos in (BOS, EOS))
    alike.corpus.shards = {shard: np.where(ids == BOS, EOS, ids) for shard, ids in alike.corpus.shards.items()}
    expected, found = apart.in_order(), alike.in_order()
    assert [batch.num_targets for batch in found] == [batch.num_targets for batch in expected]
    assert sum(int((batch.targets_BT == EOS).sum()) for batch in found) == len(alike.corpus)


def test_a_held_out_story_longer_than_a_row_is_cut():
    assert batches("pretrain", row_length=20).fits.all()  # it goes on in another row
    held_out = batches("pretrain", "val", row_length=20, loss_on="evaluation").in_order()
    whole = batches("pretrain", "val", loss_on="evaluation").in_order()
    share = sum(b.num_targets for b in held_out) / sum(b.num_targets for b in whole)
    assert sum(b.text_bytes for b in held_out) / sum(b.text_bytes for b in whole) == pytest.approx(share, rel=0.02)


@pytest.mark.parametrize("layout", ["pretrain", "natural"])
def test_the_sampling_prefix_is_the_start_of_what_was_trained_on(layout):
    template = Template(Tokenizer.load(tokenizer_of().file("tokenizer.model")))
    lead = lead_of(template, layout)
    prompt = "Write a story about a cat" if layout == "natural" else ""
    training, _ = template.training(layout, prompt, story(1)[1])
    prefix = template.prefix(layout, prompt)
    assert (lead + training)[: len(prefix)] == prefix
    assert lead == ([EOS] if layout == "natural" else [])


def test_an_empty_split_is_named():
    tokens = tokens_of(tokenizer_of())
    with pytest.raises(UserError, match="no story of split 'test'"):
        Corpus(tokens=tokens, split="test")


@pytest.mark.parametrize("length", [20, 64, 128])
def test_broken_stories_keep_their_tokens_targets_and_bytes(length):
    one = batches(row_length=length, batch_size=1)
    written: dict[int, dict[int, tuple[int, int]]] = {}
    text_bytes = 0.0
    for step in range(one.plan(0).num_rows):
        batch = one.batch(step)
        text_bytes += batch.text_bytes
        for document, (number, start, size) in enumerate(one.pieces_of(step)[0].tolist()):
            here = batch.document_BT[0] == document
            pairs = zip(batch.ids_BT[0, here].tolist(), batch.targets_BT[0, here].tolist(), strict=True)
            written.setdefault(number, {}).update(zip(range(start, start + size), pairs, strict=True))
    for number, pairs in written.items():
        ids = one.corpus.ids(number).tolist()
        assert [pairs[place] for place in range(len(pairs))] == list(zip(ids, ids[1:], strict=False))
    assert text_bytes == pytest.approx(one.corpus.text_bytes.sum())
    assert len(written) == len(one.corpus)


def test_a_story_whose_pieces_share_a_row_is_named_once():
    one = batches(row_length=20, batch_size=1)
    one.plan = lambda epoch: Plan(pieces=np.array([[3, 0, 5], [1, 0, 9], [3, 5, 4]]), bounds=np.array([0, 3]))
    assert one.stories_of(0)[0].tolist() == [3, 1]


def test_the_first_held_out_stories_are_those_of_lowest_id():
    tokens = tokens_of(tokenizer_of())
    whole = Corpus(tokens=tokens, split="val").story_ids.to_pylist()
    assert whole != sorted(whole)
    few = Corpus(tokens=tokens, split="val", most=5)
    assert few.story_ids.to_pylist() == sorted(whole)[:5]
    number = int(few.story_ids[1].as_py().removeprefix("s"))
    assert few.text_bytes[1] == len(story(number)[1].encode())


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_any_number_of_workers_gives_the_same_batches_in_order(workers):
    walked, prepared = batches(), batches()
    ready = list(ahead(prepared.batch, range(3, 20), workers))
    assert len(ready) == 17
    assert all(same(batch, walked.batch(step)) for step, batch in zip(range(3, 20), ready, strict=True))


def test_what_a_worker_raises_is_raised_at_its_step():
    def make(step: int):
        return step if step < 2 else 1 // 0

    steps = ahead(make, range(9), 2)
    assert [next(steps), next(steps)] == [0, 1]
    with pytest.raises(ZeroDivisionError):
        next(steps)


def test_evaluation_leaves_out_the_bos_of_whichever_tokenizer():
    ours, other = (batches("natural", "val", loss_on="evaluation", bos_id=bos) for bos in (BOS, 5))
    assert (ours.batch(0).targets_BT != BOS).all()
    assert (other.batch(0).targets_BT == BOS).any() and (other.batch(0).targets_BT != 5).all()
