"""Sums: whether the answer to a bare piece of arithmetic holds its value.

In:   an instruction, its input, the answer
Out:  what is missing from the answer ("15 + 27 = 42"), or None: it is there, or nothing here can be computed
Only + - * / ^, brackets, percentages and square roots of plain numbers are computed, exactly, and only where nothing
else is asked. An answer without digits ("forty-two") is left alone.
"""

import ast
import re
from fractions import Fraction
from math import isqrt

ASK = (
    r"(?:please\s+)?(?:what\s+is|what's|how\s+much\s+is|calculate|compute|evaluate|solve|find|simplify|work\s+out|determine)"
    r"(?:\s+the)?(?:\s+(?:value|result|answer|sum|product|quotient|difference)\s+(?:of|to))?\s*:?\s*"
)
SUM = re.compile(rf"(?:{ASK})?([\d\s.,+\-*/x×÷−^()]+?)[\s=?.]*", re.IGNORECASE)
PERCENT = re.compile(rf"{ASK}([\d.,]+)\s*(?:%|percent)\s+of\s+\$?([\d.,]+)[\s=?.]*", re.IGNORECASE)
ROOT = re.compile(rf"{ASK}(?:the\s+)?square\s+root\s+of\s+([\d.,]+)[\s=?.]*", re.IGNORECASE)
GENERIC = re.compile(
    r"(?:please\s+)?(?:calculate|compute|evaluate|solve|simplify|find)\s+(?:the\s+|this\s+)?(?:value\s+of\s+the\s+|result\s+of\s+the\s+)?"
    r"(?:following\s+|given\s+)?(?:simple\s+|numerical\s+|arithmetic\s+|math(?:ematical)?\s+)?"
    r"(?:expression|equation|problem|calculation|sum|product|operation)s?[\s.:]*",
    re.IGNORECASE,
)
NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?(?:\s*/\s*\d+)?")
LONGEST = 60  # digits of a number
LARGEST_POWER, LARGEST_BITS = 20, 1000
OPERATORS = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.Div: lambda a, b: a / b,
}


def missing_value(instruction: str, given: str, answer: str) -> str | None:
    """The sum with its value, where the answer has numbers and none of them is it."""
    asked = given if given and GENERIC.fullmatch(instruction.strip()) else f"{instruction} {given}"
    if not (found := _computed(asked.strip())):
        return None
    expression, value = found
    numbers = [number for number in NUMBER.findall(answer.replace("−", "-")) if len(number) <= LONGEST]
    if not numbers or any(_is(number, value) for number in numbers):
        return None
    shown = str(value) if value.denominator == 1 else f"{float(value):g}"
    return f"{expression} = {shown}"


def _computed(asked: str) -> tuple[str, Fraction] | None:
    """The expression that is asked for, and its value."""
    if found := PERCENT.fullmatch(asked):
        share, whole = _plain(found[1]), _plain(found[2])
        return (f"{found[1]} % of {found[2]}", share * whole / 100) if share is not None and whole is not None else None
    if found := ROOT.fullmatch(asked):
        square = _plain(found[1])
        root = Fraction(isqrt(square.numerator), isqrt(square.denominator)) if square is not None else None
        return (f"square root of {found[1]}", root) if root is not None and root * root == square else None
    found = SUM.fullmatch(asked)
    return (found[1].strip(), value) if found and (value := _value(found[1])) is not None else None


def _plain(number: str) -> Fraction | None:
    try:
        return Fraction(number.rstrip(".,").replace(",", "")) if len(number) <= LONGEST else None
    except ValueError:
        return None


def _value(expression: str) -> Fraction | None:
    """The exact value; None for what is no expression with at least one operator."""
    spelt = re.sub(r"(?<=\d),(?=\d{3})", "", expression).translate(str.maketrans("x×÷−X", "**/-*")).replace("^", "**")
    try:
        tree = ast.parse(spelt.strip(), mode="eval").body
        return _reduced(tree) if isinstance(tree, ast.BinOp) else None
    except (SyntaxError, ValueError, ZeroDivisionError, RecursionError, MemoryError):
        return None


def _reduced(node: ast.expr) -> Fraction:
    value = _of(node)
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > LARGEST_BITS:
        raise ValueError("a number beyond any answer")
    return value


def _of(node: ast.expr) -> Fraction:
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return Fraction(str(node.value))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_reduced(node.operand)
    if isinstance(node, ast.BinOp):
        left, right = _reduced(node.left), _reduced(node.right)
        if isinstance(node.op, ast.Pow) and right.denominator == 1 and abs(right) <= LARGEST_POWER:
            return left ** int(right)
        if operator := OPERATORS.get(type(node.op)):
            return operator(left, right)
    raise ValueError("no arithmetic")


def _is(number: str, value: Fraction) -> bool:
    """Whether a written number is the value, as exactly as it is written."""
    spelt = number.replace(",", "").replace(" ", "")
    if "/" in spelt:
        top, bottom = spelt.split("/")
        return int(bottom) != 0 and Fraction(top) / int(bottom) == value
    decimals = len(spelt.partition(".")[2])
    if not decimals:
        return Fraction(spelt) == value
    unit, cut = Fraction(1, 10**decimals), abs(value) - abs(Fraction(spelt))
    return abs(Fraction(spelt) - value) <= unit / 2 or 0 <= cut < unit  # rounded, or cut off
