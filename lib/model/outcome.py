"""Outcome: what an alignment leaves in the draft besides the model.

In:   a Run (lib/model/alignment.py) that is done
Out:  rollouts, updates, evals, scored, _record/speed; facts: reward_before and _after on the held-out prompts, and so
      each part of the reward (concept_before, …); kl (nats per token, of the kept model's update);
      val_bits_per_byte_before and _after; health_before and _after (what the guards saw); kept_update; stopped (why, or
      empty)
"""

from dataclasses import asdict
from typing import TYPE_CHECKING

import pyarrow as pa

from lib.model import heldout
from lib.store import schemas

if TYPE_CHECKING:
    from lib.model.alignment import Run

FILES = {"rollouts": "rollouts", "updates": "updates", "evals": "evals", "speed": "_record/speed"}


def write(run: "Run") -> None:
    """Tables, facts and counts."""
    assert run.start
    assert run.best
    for table, name in FILES.items():
        schema = schemas.TABLES["align", table]
        run.draft.write_table(f"{name}.parquet", pa.Table.from_pylist(run.log.rows.get(table, []), schema=schema))
    run.draft.write_table("_seen/scored.parquet", heldout.scored(run.val))
    looks = {each["update"]: each for each in run.log.rows["looks"]}
    updates = {each["update"]: each for each in run.log.rows["updates"]}
    for when, at in (("before", 0), ("after", run.best_update)):
        run.draft.fact(**{f"{name}_{when}": value for name, value in looks[at].items() if name != "update"})
    run.draft.fact(
        reward_before=run.start.reward,
        reward_after=run.best.reward,
        kl=updates[run.best_update]["kl"] if run.best_update else 0.0,
        val_bits_per_byte_before=run.start.val_bits_per_byte,
        val_bits_per_byte_after=run.best.val_bits_per_byte,
        bits_per_byte=run.best.val_bits_per_byte,
        health_before=asdict(run.start),
        health_after=asdict(run.best),
        updates=len(updates),
        kept_update=run.best_update,
        stopped=run.stopped,
        num_params=run.policy.shape.num_params,
    )
    run.draft.count(rollouts=len(run.log.rows["rollouts"]), prompts=len(run.prompts))
