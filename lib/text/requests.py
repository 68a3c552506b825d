"""Requests: in which words the text of a row is asked for.

In:   rows as the split stage writes them: summary, verb, noun, adjective, features, instruction, input
Out:  columns of instructions and of inputs, one a row; null where nothing asks for the text

A task (a row with an `instruction`) is asked for in its own words, in every layout. A story is asked for by its summary
("Write a story about a cat"), and in the layout `padded` by TinyStories-Instruct's prompt as
cindysridykhan/instruct_storyteller_tinyllama2 rewrites it: by its three words and its features, else by its summary.
"""

import pyarrow as pa
import pyarrow.compute as pc

COLUMNS = ("summary", "verb", "noun", "adjective", "features", "instruction", "input")  # that `requests` reads
ASK = "Write "  # + "a story about a cat who could not sleep"

# The rewrite, prepare_instruct_dataset.ipynb: four replacements, and how every prompt ends.
REWRITES = (
    (
        "Write a short story (3-5 paragraphs) which only uses very simple words that a 3 year old child would "
        "understand.",
        "Write a story.",
    ),
    (" Remember to only use simple words!", ""),
    ("\n\nPossible story:", ""),
    ("try to at some point use", "try to use"),
)
END = " Possible story:"
WORDS = 'Write a story. In the story, try to use the verb "{}", the noun "{}" and the adjective "{}".'
FEATURES = " The story has the following features: {}."
SUMMARY = "Write a story. Summary: {}"
# TinyStories names its features Dialogue, BadEnding, …; the plan of this project dialogue, bad ending, …
FEATURE_WORDS = {
    "dialogue": "the story should contain at least one dialogue",
    "badending": "the story has a bad ending",
    "conflict": "the story has some form of conflict in it",
    "foreshadowing": "the narrative uses foreshadowing or setup and payoff",
    "moralvalue": "the story has a moral value",
    "twist": "something unexpected happens / there is a plot twist",
    "plottwist": "something unexpected happens / there is a plot twist",
}
WORDING = {"padded": [WORDS, FEATURES, SUMMARY, FEATURE_WORDS, END]}  # part of a layout's digest; the others': ASK


def instruction(summary: str) -> str:
    """The request a summary stands for: "a story about a cat" -> "Write a story about a cat"."""
    return ASK + summary.strip()


def rewritten(prompt: str) -> str:
    """A prompt of TinyStories, or one rewritten already, as the layout `padded` has it."""
    for old, new in REWRITES:
        prompt = prompt.replace(old, new)
    return prompt.removesuffix(END).rstrip() + END


def by_summary(summary: str) -> str:
    """The padded layout's request for a story of which only the summary is known."""
    return rewritten(SUMMARY.format(summary.strip()))


def requests(rows: pa.Table, layout: str) -> tuple[pa.Array, pa.Array]:
    """The instruction of every row and its input, in the words of `layout`; an input is null where there is none."""
    summary, own, about = (_said(rows[name]) for name in ("summary", "instruction", "input"))
    if layout == "padded":
        story = pc.coalesce(_by_words(rows), _joined(SUMMARY, [summary], END))
    else:
        story = pc.binary_join_element_wise(ASK, summary, "")
    return pc.coalesce(own, story), pc.if_else(pc.is_valid(own), about, pa.scalar(None, pa.string()))


def _said(column: pa.ChunkedArray) -> pa.Array:
    """A column without blanks around its texts; null where a text is empty."""
    texts = pc.utf8_trim_whitespace(column.combine_chunks())
    return pc.if_else(pc.equal(texts, ""), pa.scalar(None, texts.type), texts)


def _by_words(rows: pa.Table) -> pa.Array:
    """The prompt that holds a story's three words and its features; null where it has not all three."""
    words = _joined(WORDS, [_said(rows[name]) for name in ("verb", "noun", "adjective")])
    kinds = rows["features"].combine_chunks().to_pylist()
    features = pa.array([_features(tuple(each or ())) for each in kinds], pa.string())
    return pc.binary_join_element_wise(words, features, END, "")


def _features(features: tuple[str, ...]) -> str:
    told = [FEATURE_WORDS.get(each.replace(" ", "").lower(), f"the story has {each}") for each in features]
    return FEATURES.format(", ".join(told)) if told else ""


def _joined(form: str, columns: list[pa.Array], end: str = "") -> pa.Array:
    """`form` with a column in each of its gaps; null where one of them is."""
    first, *rest = form.split("{}")
    parts = [first, *(part for pair in zip(columns, rest, strict=True) for part in pair)]
    return pc.binary_join_element_wise(*parts[:-1], parts[-1] + end, "")
