"""Several ranks that build datasets one after the other, as the ranks of lib/launch.py build one, for tests.

In:   `python -m tests.ranks FILE`, FILE a JSON list of [data folder, stage, config, inputs]
Out:  the datasets

Called so, it is the launcher of two ranks, each this module again. All three die with their parent, whatever ends it,
and none lives longer than DEADLINE_S.
"""

import json
import os
import signal
import sys
from pathlib import Path

from lib import launch, process, stages
from lib.store import Dataset

DEADLINE_S = 240  # two ranks on free cores are done in 20 s


def main() -> None:
    process.die_with_parent()
    signal.alarm(DEADLINE_S)  # nobody handles SIGALRM: the kernel ends the process, though it hangs in an exchange
    if "RANK" in os.environ:
        be_rank(sys.argv[1])
    else:
        start(sys.argv[1])


def start(scenes: str) -> None:
    from torch.distributed import run

    os.environ[process.PARENT] = str(os.getpid())
    run.run(run.parse_args(["--standalone", "--nproc-per-node", "2", "-m", "tests.ranks", scenes]))


def be_rank(scenes: str) -> None:
    from lib.model import parallel

    for data, stage, config, inputs in json.loads(Path(scenes).read_text()):
        os.environ["STORYMILL_DATA"] = data
        given = {name: Dataset(**each) for name, each in inputs.items()}
        launch.in_turn(stage, stages.config_type(stage)(**config), given, lambda *_: None)
    parallel.quit_rank()


if __name__ == "__main__":
    main()
