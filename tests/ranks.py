"""One of several ranks, for tests: `torch.distributed.run … -m tests.ranks FILE` builds the datasets of FILE one after
the other, as the ranks of lib/launch.py build one."""

import json
import os
import sys
from pathlib import Path

from lib import launch, stages
from lib.model import parallel
from lib.store import Dataset


def main() -> None:
    for data, stage, config, inputs in json.loads(Path(sys.argv[1]).read_text()):
        os.environ["STORYMILL_DATA"] = data
        given = {name: Dataset(**each) for name, each in inputs.items()}
        launch.in_turn(stage, stages.config_type(stage)(**config), given, lambda *_: None)
    parallel.quit_rank()


if __name__ == "__main__":
    main()
