"""The batch transport's promises: half the price, nothing lost and nothing bought twice, whenever a run is killed."""

import json

import pyarrow.parquet as pq
import pytest

from lib import store
from lib.errors import Stopped, UserError
from lib.text import batch_records
from lib.text.budget import worst_tokens
from lib.text.storyteller import Mischief, running
from lib.web import cost
from tests.economy import SPENT, build, config_for, killed_after, ledger, stats
from tests.teacher import FakeTeacher, failure, told

pytestmark = pytest.mark.shell  # teachers and runs in processes of their own


def config(base_url: str, count: int = 40, **more):
    return config_for(base_url, count, transport="batch", batch_poll_seconds=0.02, **more)


def made_whole(dataset: store.Dataset, count: int) -> None:
    assert dataset.manifest["counts"] == {"rows_in": count, "rows_out": count}
    assert not list(batch_records.pending(store.root()))
    assert not [path.name for path in (store.root() / "requests").iterdir() if path.name.startswith("batch-")]


def handed_over() -> bool:
    return any(each.batch_id for each in batch_records.pending(store.root()))


def live_and_batch() -> dict[str, int]:
    return dict(store.connect().execute("select transport, count(*) from requests group by all").fetchall())


def test_a_batch_gives_the_stories_of_a_live_run_at_half_the_price(tmp_path, monkeypatch):
    with running() as base_url:
        batch = build(config(base_url))
        seen, cost = stats(base_url), ledger(SPENT)[0]
        made_whole(batch, 40)
        assert seen["batches"] == 1 and seen["bill"]["live"] == {} and live_and_batch() == {"batch": 40}
        assert ledger("select any_value(price_in), any_value(price_out) from requests") == (0.075, 0.3)
        monkeypatch.setenv("STORYMILL_DATA", str(tmp_path / "other"))
        assert build(config_for(base_url, 40)).fingerprint == batch.fingerprint
        assert cost == pytest.approx(ledger(SPENT)[0] / 2, abs=100)  # each row is rounded up; the live ones were cached


def test_lines_in_the_error_file_and_batches_that_expire_are_asked_again():
    mischief = Mischief(server_error=0.2, refusal=0.1, malformed=0.1, batch_expired=0.5)
    with running(mischief) as base_url:
        made_whole(build(config(base_url, 60, batch_requests=13, reasks=9)), 60)
        seen = stats(base_url)
    statuses = dict(store.connect().execute("select status, count(*) from requests group by all").fetchall())
    assert {"ok", "expired", "server_error", "refusal", "unreadable"} <= set(statuses)
    assert seen["batches"] > 60 / 13 and seen["answered_again"] == 0
    assert ledger("select count(*) from requests where status <> 'expired'") == (seen["requests"],)
    assert ledger("select sum(cost_microdollars) from requests where status in ('expired', 'server_error')") == (0,)
    assert ledger("select sum(tokens_in), sum(tokens_out) from requests") == (
        seen["prompt_tokens"],
        seen["completion_tokens"],
    )


@pytest.mark.parametrize("transport", ["batch", "live"])
def test_after_kill_9_the_batch_is_fetched_not_bought_again(transport):
    with running() as base_url:
        first = config(base_url).model_copy(update={"batch_poll_seconds": 60.0})
        killed_after(first, handed_over)
        made = build(config(base_url, 50).model_copy(update={"transport": transport}))
        seen = stats(base_url)
    made_whole(made, 50)
    assert live_and_batch() == ({"batch": 50} if transport == "batch" else {"batch": 40, "live": 10})
    assert seen["answered_again"] == 0 and seen["requests"] == 50


def test_a_batch_created_just_before_the_kill_is_found_again_and_one_never_created_is_made_anew(monkeypatch):
    """The record is there before anything goes out; its id is only written after the endpoint has answered."""
    with running() as base_url:
        with monkeypatch.context() as killed:
            killed.setattr(batch_records.Record, "forget", lambda self, root: None)
            build(config(base_url, 20))
        (record,) = batch_records.pending(store.root())
        path = record.path(store.root())
        path.write_text(json.dumps(json.loads(path.read_text()) | {"batch_id": None}))
        for segment in (store.root() / "requests").glob("requests-*"):
            segment.unlink()  # nothing was booked either
        made_whole(build(config(base_url, 21)), 21)
        seen = stats(base_url)
        assert seen["batches"] == 2 and seen["requests"] == 21 and seen["answered_again"] == 0
    with running() as other:  # knows nothing of any batch
        record.batch_id = None
        batch_records.prepare(store.root(), record, {})
        path = record.path(store.root(), "jsonl")
        line = {"custom_id": "nobody-1", "body": {"model": "storyteller-1", "messages": []}}
        path.write_text(json.dumps(line) + "\n")
        made_whole_but_strangers = build(config(other, 22))
        assert made_whole_but_strangers.manifest["rows"] == 22
        assert [each.key for each in batch_records.pending(store.root())] == [record.key]  # another plan's


@pytest.mark.parametrize("booked", [20, 40])
def test_killed_while_it_books_the_rest_is_booked_and_nothing_twice(monkeypatch, booked):
    with running() as base_url:
        with monkeypatch.context() as killed:
            killed.setattr(batch_records.Record, "forget", lambda self, root: None)
            build(config(base_url))
        (segment,) = (store.root() / "requests").glob("requests-*.parquet")
        pq.write_table(pq.read_table(segment).slice(0, booked), segment)  # the kill came after so many rows
        made_whole(build(config(base_url, 41)), 41)
        assert ledger("select count(*), count(distinct request_id) from requests") == (41, 41)
        seen = stats(base_url)
    assert (seen["requests"], seen["answered_again"], seen["batches"]) == (41, 0, 2)


def test_mixed_sends_a_share_by_batch_while_the_rest_goes_live():
    with running(Mischief(batch_expired=1.0)) as base_url:
        made_whole(build(config(base_url, 40, batch_share=0.25).model_copy(update={"transport": "mixed"})), 40)
        seen = stats(base_url)
    assert live_and_batch() == {"batch": 10, "live": 30 + 5}  # half of the batch expired, and was asked live
    assert seen["batches"] == 1 and seen["answered_again"] == 0


def test_the_budget_holds_for_batches_and_a_pending_one_counts():
    with running() as base_url:
        with pytest.raises(Stopped, match="stopped for the budget"):
            build(config(base_url, 200, budget=0.004))
        spent = ledger(SPENT)[0]
        assert 3_700 < spent <= 4_000
        assert stats(base_url)["batches"] > 1  # the true cost of the first made room for the next
        made_whole(build(config(base_url, 200, budget=1.0)), 200)


def test_a_batch_that_nobody_fetches_now_still_counts_in_the_budget():
    with running(Mischief(slow=0.5)) as base_url:  # so that few go live before the kill
        halves = {"transport": "mixed", "batch_share": 0.5, "batch_poll_seconds": 60.0, "concurrency": 1}
        killed_after(
            config_for(base_url, 40, **halves),
            handed_over,
        )
        (record,) = batch_records.pending(store.root())
        held = sum(record.price.of(*worst_tokens(each)) for each in record.lines(store.root()).values())
        with pytest.raises(Stopped):  # the first requests are in no batch; what the last ones can cost is spoken for
            cost.pilot(config_for(base_url, 40, budget=(held + 1000) / 1e6), 10, lambda *_: None)
        assert ledger(SPENT)[0] <= 1000
        assert [each.key for each in batch_records.pending(store.root())] == [record.key]


def test_a_batch_of_another_address_is_not_given_up_silently():
    with running() as base_url, running() as other:
        first = config(base_url).model_copy(update={"batch_poll_seconds": 60.0})
        killed_after(first, handed_over)
        with pytest.raises(UserError, match="was handed over to http"):
            build(config(other))


def test_a_batch_the_endpoint_forgot_counts_as_spent_and_is_asked_again(data_root):
    with running() as base_url:
        first = config(base_url).model_copy(update={"batch_poll_seconds": 60.0})
        killed_after(first, handed_over)
    (record,) = batch_records.pending(data_root)
    with running() as other:
        record.base_url = other
        record.write(data_root)
        made_whole(build(config(other)), 40)
    assert ledger("select count(*), sum(cost_microdollars) from requests where status = 'lost'") == (40, None)
    assert ledger("select min(reserved_microdollars) > 0 from requests where status = 'lost'") == (True,)


def test_an_endpoint_without_batches_is_one_clear_error_and_live_still_works(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "any")
    with FakeTeacher(lambda request, times: told(request) if "messages" in request else failure(404)) as teacher:
        openai = {"teacher": "openai", "model": "fake-1", "mischief": None}
        with pytest.raises(UserError, match="transport live needs none"):
            build(config(teacher.base_url, 5, **openai))
