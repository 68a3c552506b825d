"""Prompts: which stories are asked of a teacher, and in which words.

In:   a frozen PromptPlan: how many, the seed, the design, the lists
Out:  `asks(plan)`, a pure function of seed and lists; `messages(ask, ...)`, chat messages for any teacher;
      `coverage(plan, asks)`, how evenly the words of every list are used
Relies on: data/words/*.txt
"""

from lib.text.prompts.coverage import AXES, Cover, coverage, summed_up
from lib.text.prompts.lists import KINDS, PHRASES, word_list
from lib.text.prompts.plan import FEATURES, Ask, PromptPlan, asks, groups
from lib.text.prompts.wording import messages

__all__ = [
    "AXES",
    "FEATURES",
    "KINDS",
    "PHRASES",
    "Ask",
    "Cover",
    "PromptPlan",
    "asks",
    "coverage",
    "groups",
    "messages",
    "summed_up",
    "word_list",
]
