"""Golden rows: when a stage writes other rows for the same request, its version must go up.

A changed stage with an old version would go on being served from the cache. The digests are of rows, not of files, so
they are the same on every machine; stages that sum floats in parallel (training) are not among them.
"""

import json
from pathlib import Path

import pytest

from lib import presets, stages, store
from lib.store import Dataset

GOLDEN = Path(__file__).parent / "golden" / "rows.json"
STAGES = ("generate", "clean", "dedup", "split", "tokenizer", "tokens-pretrain", "tokens-natural")


def rows_of(dataset: Dataset) -> str:
    """One digest over every table's rows, and over the files that are no tables."""
    found = {}
    for name, entry in sorted(dataset.manifest["files"].items()):
        if name.endswith(".parquet"):
            table = store.schemas.table_of(name)
            found[table] = [each.table().to_pylist() for each in dataset.parts(table)]
        elif not name.startswith("_"):
            found[name] = entry["sha256"]
    return store.digest(json.loads(json.dumps(found)))[:16]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STORYMILL_DATA", str(tmp_path_factory.mktemp("golden")))
        config = presets.smoke()
        raw = stages.build("generate", config.generate, {})
        clean = stages.build("clean", config.clean, {"stories": raw})
        dedup = stages.build("dedup", config.dedup, {"stories": clean})
        split = stages.build("split", config.split, {"stories": dedup})
        tokenizer = stages.build("tokenizer", config.tokenizer, {"stories": split})
        inputs = {"stories": split, "tokenizer": tokenizer}
        tokens = {f"tokens-{c.layout}": stages.build("tokens", c, inputs) for c in (config.tokens, config.instructions)}
        all_made = {"generate": raw, "clean": clean, "dedup": dedup, "split": split, "tokenizer": tokenizer} | tokens
        yield {name: f"{stages.module_of(d.stage).STAGE.version} {rows_of(d)}" for name, d in all_made.items()}


@pytest.mark.parametrize("stage", STAGES)
def test_rows_change_only_with_the_version(stage, made):
    golden = json.loads(GOLDEN.read_text())[stage]
    if made[stage] != golden:
        same_version = made[stage].split()[0] == golden.split()[0]
        told = (
            f"{stage} writes other rows under the same version: raise its STAGE.version"
            if same_version
            else "new version"
        )
        pytest.fail(
            f"{told}. Golden {golden}, made {made[stage]}; write the new line into {GOLDEN.name} once it is meant"
        )
