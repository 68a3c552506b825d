"""Outcome: what an alignment leaves in the draft besides the model.

In:   a Run (lib/model/alignment.py) that is done, its policy with the weights that are kept
Out:  rollouts, updates, evals, scored, _record/speed; facts: reward_before and _after on held-out prompts that had no
      part in choosing the model, reward_gain_error (the standard error of their difference, prompt by prompt), and so
      each part of the reward (concept_before, …); chosen_by_before and _after (the same reward on the prompts that
      chose); kl (nats per token, in the kept model's answers to those); val_bits_per_byte_before and _after;
      health_before and _after (what the guards saw); kept_update; kept_share (1; after a step back the share of the way
      from the start model to the last update's: kept_update is then one more than updates); looks; stopped
"""

import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

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
        rows = [columns(row) for row in run.log.rows.get(table, [])]
        run.draft.write_table(f"{name}.parquet", pa.Table.from_pylist(rows, schema=schema))
    run.draft.write_table("_seen/scored.parquet", heldout.scored(run.val))
    run.draft.fact(
        **gain(run),
        chosen_by_before=run.start.reward,
        chosen_by_after=run.best.reward,
        kl=run.best.kl,
        val_bits_per_byte_before=run.start.val_bits_per_byte,
        val_bits_per_byte_after=run.best.val_bits_per_byte,
        bits_per_byte=run.best.val_bits_per_byte,
        health_before=asdict(run.start),
        health_after=asdict(run.best),
        updates=len(run.log.rows["updates"]),
        kept_update=run.best_update,
        kept_share=run.kept_share,
        looks=len(run.log.rows["evals"]),
        stopped=run.stopped,
        num_params=run.policy.shape.num_params,
    )
    run.draft.count(rollouts=len(run.log.rows["rollouts"]), prompts=len(run.prompts))


def columns(row: dict[str, Any]) -> dict[str, Any]:
    """A row as Arrow takes it: maps as lists of pairs."""
    return {name: list(value.items()) if isinstance(value, dict) else value for name, value in row.items()}


def gain(run: "Run") -> dict[str, float]:
    """The reward and its parts on the reported prompts: of the start model (the reference) and of the kept one."""
    from lib.model.alignment import answer, mean

    _, before = answer(run, run.climber.reference, run.reported)
    after = answer(run, run.policy, run.reported)[1] if run.best_update else before
    found = {"reward_before": mean(before.total), "reward_after": mean(after.total)}
    for when, scores in (("before", before), ("after", after)):
        found |= {f"{name}_{when}": mean(values) for name, values in scores.parts.items()}
    gains = [b - a for a, b in zip(before.total, after.total, strict=True)]
    spread = math.sqrt(math.fsum((each - mean(gains)) ** 2 for each in gains) / max(len(gains) - 1, 1))
    return found | {"reward_gain_error": spread / math.sqrt(len(gains))}
