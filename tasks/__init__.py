"""The stages as Prefect tasks: each a decorator and one call."""

import importlib

from prefect import Task

from lib import store


def task_of(stage: str) -> Task:
    """The task of that stage: tasks/<stage>.py holds one function of the same name.

    Its results live under the data folder of this very moment, beside the datasets they speak of.
    """
    task = getattr(importlib.import_module(f"tasks.{stage}"), stage)
    return task.with_options(result_storage=store.root())
