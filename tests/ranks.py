"""Several ranks that build datasets one after the other, as the ranks of lib/launch.py build one, for tests.

In:   `python -m tests.ranks FILE`, FILE a JSON list of [data folder, stage, config, inputs]
Out:  the datasets; beside each data folder, as FOLDER-held-RANK.json, how many weights a rank holds when its training
      begins, and how many the model has

Called so, it is the launcher of two ranks, each this module again. All three die with their parent, whatever ends it,
and none lives longer than DEADLINE_S.
"""

import gc
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

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
    from lib.model import loop, parallel

    loop.set_up = counting(loop.set_up)
    for data, stage, config, inputs in json.loads(Path(scenes).read_text()):
        os.environ["STORYMILL_DATA"] = data
        given = {name: Dataset(**each) for name, each in inputs.items()}
        launch.in_turn(stage, stages.config_type(stage)(**config), given, lambda *_: None)
    parallel.quit_rank()


def counting(set_up: Callable[..., Any]) -> Callable[..., Any]:
    """loop.set_up, and behind it a look at every weight that is in this process: the model and what came of it."""
    import torch

    def alive() -> Iterator[torch.UntypedStorage]:
        gc.collect()
        tensors = [each for each in gc.get_objects() if issubclass(type(each), torch.Tensor)]  # quick, and wakes nobody
        for each in tensors:
            if isinstance(each, torch.nn.Parameter) and not each.is_meta:
                yield (each.to_local() if hasattr(each, "to_local") else each).untyped_storage()

    def counted(*, model: Any, **settings: Any) -> Any:
        own = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
        num_weights = sum(weight.numel() for weight in model.parameters())
        earlier = [each for each in alive() if each.data_ptr() not in own]  # of runs before; kept, as are their places
        run = set_up(model=model, **settings)
        known = {each.data_ptr() for each in earlier}
        sizes = {each.data_ptr(): each.nbytes() // 4 for each in alive() if each.data_ptr() not in known}
        told = Path(f"{os.environ['STORYMILL_DATA']}-held-{os.environ['RANK']}.json")
        told.write_text(json.dumps([sum(sizes.values()), num_weights]))
        return run

    return counted


if __name__ == "__main__":
    main()
