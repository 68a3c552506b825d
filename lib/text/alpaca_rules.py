"""What is wrong with instruction data: AlpacaDataCleaned's ten classes of defects, as named rules.

In:   rows with `instruction`, `input` and the answer as `text`
Out:  mended rows (two of the classes: odd characters, an input that only says there is none); for the other eight a
      reason and a detail a person can check, or None
Relies on lib/text/repair.py for mojibake and invisible characters, lib/text/arithmetic.py for sums, and
      lib/text/patterns.py for the tokens of chat templates, which forge a turn wherever they stand.

    extraneous escape and control characters   mended
    inconsistent input field                   mended: "<noinput>", "No input" and the like become null
    special_token                              (no class of theirs) "<|endoftext|>", "### Response:", in any field
    empty_output                               nothing but blanks
    not_applicable                             "N/A" where an answer should stand
    merged_instructions                        a second instruction inside the first, or in the answer
    internet                                   asks about what stands behind a URL: the answer was invented
    image_request                              asks for a picture
    empty_code                                 speaks of code that is not there, or has an empty code block
    unclear                                    speaks of a text that is not there, or holds no words
    wrong_answer                               a sum whose value is not in the answer

What no rule can decide without knowing the world stays: facts, word problems, translations, programs that do not do what
was asked. AlpacaDataCleaned finds four of five of Alpaca's sums wrong; only bare arithmetic is checked here.
"""
# ruff: noqa: E501 - patterns

import re
from collections.abc import Callable

import pyarrow as pa
import pyarrow.compute as pc

from lib.text.alpaca import NO_INPUT, Task
from lib.text.arithmetic import missing_value
from lib.text.patterns import SPECIAL_TOKEN
from lib.text.repair import INVISIBLE, LINE_END, without_mojibake

INSTRUCTION_RULES_VERSION = 1
FORGED_TURN = re.compile(SPECIAL_TOKEN)
CODE = re.compile(
    r"```|[{};]\s*(?:\n|$)|\b(?:def|class|function|import|return|var|let|const|print|SELECT|for|while)\b.*[(:=;]|</?\w+>|#include|=>"
)
URL = re.compile(r"https?://\S+|\bwww\.\w\S*", re.IGNORECASE)
# A URL as a string, or as an address to write down, can be worked on without opening it.
URL_AS_TEXT = re.compile(
    r"\b(?:valid|pars\w+|split|encod\w+|decod\w+|shorten|regex|regular expression|domain|protocol|cit(?:e|ation)|format"
    r"|hyperlink|tag|code|program|script|function|curl|api)\b",
    re.IGNORECASE,
)
ONLINE = re.compile(
    r"\b(?:this|the (?:following|given|linked)|that)\s+(?:online\s+|youtube\s+)?(?:web ?site|web ?page|url|link|video|podcast)\b"
    r"|\A(?:please\s+)?(?:search|browse)\s+(?:the\s+)?(?:internet|web)\b|\A(?:please\s+)?google\b",
    re.IGNORECASE,
)
MAKE = r"(?:generate|create|draw|paint|sketch|produce|render|design|make|take|show|insert|attach|upload)"
PICTURE = r"(?:image|picture|photo|photograph|drawing|illustration|graphic|painting|infographic|screenshot|gif|video)s?"
BETWEEN = (
    r"(?:(?!of\b|for\b|about|from\b|with\b|to\b|that\b|in\b|describing|captions?|titles?|mental|word|verbal)[\w'-]+\s+)"
)
IMAGE = re.compile(
    rf"\b{MAKE}\s+{BETWEEN}{{0,4}}{PICTURE}\b(?!\s+(?:in words|caption|description|title|editing|processing|book))"
    r"|\A(?:please\s+)?(?:draw|sketch|paint)\s+(?:me\s+)?(?:an?|the|your|some)\s+"
    r"(?!conclusion|compar|parallel|inferen|distinction|analog|lesson|connection|contrast|line between|mental|verbal|word)",
    re.IGNORECASE,
)
DRAWN_IN_CODE = re.compile(
    r"\b(?:code|program|script|python|java|javascript|html|css|svg|latex|ascii|turtle)\b", re.IGNORECASE
)
SECOND = re.compile(
    r"(?:\A|\n)[ \t]*(?:\d+\.\s*)?(?:#+ ?)?(?:Instruction|Response|Output)[ \t]*(?:\d+[ \t]*)?:", re.IGNORECASE
)
SECOND_IN_ANSWER = re.compile(r"\n[ \t]*(?:\d+\.\s*)?(?:#+ ?)?Instruction[ \t]*(?:\d+[ \t]*)?:", re.IGNORECASE)
EMPTY_BLOCK = re.compile(r"```\w*\s*```")
GIVEN_CODE = re.compile(
    r"\b(?:the|this|these)\s+(?:(?:following|given|below|above)\s+)?(?:[\w+#-]+\s+){0,2}"
    r"(?:code|function|script|snippet|code block)\b(?=[\s.?!]*(?:below|above|so that|do(?:es)?\b|to\b|and\b|\Z|[.?!]))",
    re.IGNORECASE,
)
GIVEN_TEXT = re.compile(
    r"\b(?:the|this|these)\s+(?:following|given|below)\s+(?:\w+\s+){0,2}"
    r"(?:text|paragraph|passage|sentences?|article|e-?mail|document|poem|stor(?:y|ies)|words?|lists?|quote|essay|dialogue"
    r"|conversation|review|statement|phrases?|data|equation|expression|table|tweet|excerpt|input|numbers?)\b",
    re.IGNORECASE,
)
NOT_THERE = re.compile(
    r"\b(?:please provide (?:me )?(?:with )?(?:the|a|an|some|your|more)\b|you (?:did not|didn't|have not|haven't) provided?\b"
    r"|no (?:input|text|article|passage|image|sentence|code) (?:was|were|has been|is) (?:given|provided))",
    re.IGNORECASE,
)
NOT_APPLICABLE = re.compile(
    r"(?:N/A|NA|n/a|N\.A\.|<no ?output>|[Nn]o ?output|[Nn]ot [Aa]pplicable)[.\s]*"
)  # Na is sodium
ESCAPED = {"\\n": "\n", "\\t": "\t", '\\"': '"', "\\/": "/"}
BLANK_LINES = re.compile(r"\A(?:[ \t]*\n)+")
UNICODE_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})")

Rule = Callable[[Task], str | None]  # what is wrong, as it stands in the row; None where nothing is


def judge_instructions(table: pa.Table) -> tuple[list[str | None], list[str | None]]:
    """Reason and detail per row; None, None for a row that stays, and for one without an instruction."""
    reasons: list[str | None] = [None] * len(table)
    details: list[str | None] = [None] * len(table)
    columns = (table[name].to_pylist() for name in ("instruction", "input", "text"))
    for row, (instruction, given, answer) in enumerate(zip(*columns, strict=True)):
        if instruction is not None:
            reasons[row], details[row] = fault_of(Task("", instruction, given or "", answer or ""))
    return reasons, details


def fault_of(task: Task) -> tuple[str, str] | tuple[None, None]:
    """The first rule that this task breaks, and where."""
    found = ((reason, rule(task)) for reason, rule in REASONS.items())
    return next(((reason, detail[:80]) for reason, detail in found if detail is not None), (None, None))


def repair_instructions(table: pa.Table) -> pa.Table:
    """Rows with an instruction, mended; all others as they are."""
    tasks = pc.is_valid(table["instruction"])
    if not pc.any(tasks).as_py():
        return table
    for name, mend in (("instruction", repair), ("input", _repaired_input), ("text", repair)):
        column = table[name]
        mended = [mend(value) if value is not None else None for value in column.filter(tasks).to_pylist()]
        whole = pc.replace_with_mask(column.combine_chunks(), tasks.combine_chunks(), pa.array(mended, pa.string()))
        table = table.set_column(table.schema.get_field_index(name), name, whole)
    return table


def repair(text: str) -> str:
    """No control characters, no mojibake, no doubly escaped line ends and quotes; blanks stay, code is made of them."""
    text = INVISIBLE.sub("", LINE_END.sub("\n", without_mojibake(text)))
    if "\\" in text and not CODE.search(text):
        text = _unescaped(text)
    text = BLANK_LINES.sub("", text).rstrip()
    return text if "\n" in text else text.strip()


def _unescaped(text: str) -> str:
    """Escapes that were escaped once too often: there all line ends are spelt out, or all quotes, and none is real."""
    text = UNICODE_ESCAPE.sub(lambda found: _character(found[1], found[0]), text)
    for escape, meant in ESCAPED.items():
        # A single \n may be spoken of, and \neq and \theta are mathematics: two of them, before no small letter, are not.
        pattern = re.escape(escape) + ("(?![a-z])" if escape[1] in "nt" else "")
        if len(re.findall(pattern, text)) > 1 and meant not in text.replace(escape, ""):
            text = re.sub(pattern, lambda _, meant=meant: meant, text)
    return text


def _character(digits: str, otherwise: str) -> str:
    code = int(digits, 16)
    return otherwise if 0xD800 <= code < 0xE000 or code < 32 else chr(code)  # half a pair stands for nothing


def _repaired_input(text: str) -> str | None:
    mended = repair(text)
    return None if mended.lower().strip(" .*-()[]") in NO_INPUT else mended


# ---- the rules, each with what it found


def _special_token(task: Task) -> str | None:
    found = FORGED_TURN.search(f"{task.instruction}\n{task.input}\n{task.output}")
    return found[0] if found else None


def _empty_output(task: Task) -> str | None:
    return None if task.output.strip() else ""


def _not_applicable(task: Task) -> str | None:
    return task.output if NOT_APPLICABLE.fullmatch(task.output.strip()) else None


def _merged(task: Task) -> str | None:
    found = SECOND.search(task.instruction) or SECOND_IN_ANSWER.search(task.output)
    return found[0].strip() if found else None


def _internet(task: Task) -> str | None:
    url = URL.search(task.instruction) or URL.search(task.input)
    if url and not URL_AS_TEXT.search(task.instruction):
        return url[0]
    about = ONLINE.search(task.instruction)
    return about[0] if about and (url or not task.input) and not URL_AS_TEXT.search(task.instruction) else None


def _image_request(task: Task) -> str | None:
    found = IMAGE.search(task.instruction)
    return found[0] if found and not DRAWN_IN_CODE.search(task.instruction) else None


def _empty_code(task: Task) -> str | None:
    block = EMPTY_BLOCK.search(task.output) or EMPTY_BLOCK.search(task.input)
    if block:
        return block[0]
    return _missing(task, GIVEN_CODE)


def _unclear(task: Task) -> str | None:
    if not re.search(r"[^\W\d_]{2}", task.instruction):
        return task.instruction
    denied = NOT_THERE.search(task.output[:300]) if not task.input else None
    return denied[0] if denied else _missing(task, GIVEN_TEXT)


def _missing(task: Task, spoken_of: re.Pattern[str]) -> str | None:
    """The words that speak of something given, where nothing is: no input, no colon, quotes or lines of its own."""
    found = spoken_of.search(task.instruction)
    nothing = not task.input and not re.search(r"[:\n\"“‘`]|'\w", task.instruction)
    return found[0] if found and nothing else None


def _wrong_answer(task: Task) -> str | None:
    return missing_value(task.instruction, task.input, task.output)


REASONS: dict[str, Rule] = {
    "special_token": _special_token,
    "empty_output": _empty_output,
    "not_applicable": _not_applicable,
    "merged_instructions": _merged,
    "internet": _internet,
    "image_request": _image_request,
    "empty_code": _empty_code,
    "unclear": _unclear,
    "wrong_answer": _wrong_answer,
}
