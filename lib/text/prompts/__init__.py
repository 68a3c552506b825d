"""Prompts: which stories are asked of a teacher, and in which words.

In:   a frozen PromptPlan: how many, the seed, the design, the lists
Out:  `asks(plan)`, a pure function of seed and lists; `messages(ask, ...)`, chat messages for any teacher;
      `coverage(plan, uses(asks))`, how evenly the words of every list are used
Relies on: data/words/*.txt
"""

from lib.text.prompts.coverage import AXES, Cover, Uses, coverage, summed_up, uses
from lib.text.prompts.lists import KINDS, PHRASES, word_list
from lib.text.prompts.plan import FEATURES, Ask, PromptPlan, asks, groups, num_groups
from lib.text.prompts.wording import messages

__all__ = [
    "AXES",
    "FEATURES",
    "KINDS",
    "PHRASES",
    "Ask",
    "Cover",
    "PromptPlan",
    "Uses",
    "asks",
    "coverage",
    "groups",
    "messages",
    "num_groups",
    "summed_up",
    "uses",
    "word_list",
]
