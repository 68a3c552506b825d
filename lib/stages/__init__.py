"""The stages, one module each: what comes in, what goes out.

A stage module `lib/stages/<name>.py` holds STAGE, its config `<Name>Config`, and one function `<name>(draft, config,
**inputs)` that fills a folder. Where it reads the user's own files, `external(config)` gives their content digests.
"""

import importlib
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from lib import store
from lib.store import Config, Dataset, Draft, Progress


def module_of(stage: str) -> ModuleType:
    return importlib.import_module(f"lib.stages.{stage}")


def config_type(stage: str) -> type[Config]:
    return getattr(module_of(stage), f"{stage.capitalize()}Config")


def external(stage: str, config: Config) -> dict[str, str]:
    """Content digests of what the stage reads outside the store."""
    return getattr(module_of(stage), "external", lambda _: {})(config)


def request_name(stage: str, config: Config, inputs: Mapping[str, Dataset]) -> str:
    """The name of the dataset that this stage makes of these inputs."""
    return store.request_name(module_of(stage).STAGE, config, inputs, external(stage, config))


def build(
    stage: str,
    config: Config,
    inputs: Mapping[str, Dataset],
    on_progress: Progress | None = None,
    beside: Mapping[str, Any] | None = None,
    begin: Callable[[], None] = lambda: None,
) -> Dataset:
    """Make or find that dataset, in this process. `beside` is for the stage's function alone: no name depends on it.

    `begin` is called where there is work, once the dataset's lock is held.
    """
    module = module_of(stage)

    def fill(draft: Draft, config: Config, **given: Dataset) -> None:
        begin()
        getattr(module, stage)(draft, config, **given, **beside or {})

    return store.build(module.STAGE, config, inputs, fill, external=external(stage, config), on_progress=on_progress)
