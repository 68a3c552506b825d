"""Query results for a terminal, a spreadsheet or a program. Reads only."""

import csv
import json
import sys
from typing import Any, Literal, TextIO

import duckdb
from rich.console import Console
from rich.table import Table

from lib.errors import UserError

Format = Literal["table", "csv", "json"]
VIEWS = """
select view_name as view, comment as "what it shows" from duckdb_views()
where not internal and comment is not null order by view_name
"""
# A story, or an endpoint's error, must not be able to steer the terminal: neither C0 nor C1 codes, ESC among them.
CONTROL = {code: None for code in [*range(0x20), *range(0x7F, 0xA0)]} | {ord("\t"): " ", ord("\n"): "\n"}


def ask(con: duckdb.DuckDBPyConnection, query: str) -> tuple[list[str], list[tuple]]:
    """Column names and rows; what DuckDB has against the query is the user's to mend."""
    try:
        answer = con.execute(query)
        return [column[0] for column in answer.description or []], answer.fetchall()
    except duckdb.Error as error:
        raise UserError(f"DuckDB cannot run this query: {error}") from None


def show(columns: list[str], rows: list[tuple], kind: Format, out: TextIO = sys.stdout) -> None:
    """A program gets the rows as they are; a terminal gets no control characters."""
    if kind == "csv":
        if out.isatty():
            rows = [tuple(printable(value) if isinstance(value, str) else value for value in row) for row in rows]
        writer = csv.writer(out)
        writer.writerow(columns)
        writer.writerows(rows)
    elif kind == "json":
        json.dump([dict(zip(columns, row, strict=True)) for row in rows], out, default=str, indent=1)
        out.write("\n")
    else:
        Console(file=out, width=None if out.isatty() else 120, emoji=False).print(_table(columns, rows))


def _table(columns: list[str], rows: list[tuple]) -> Table:
    table = Table(header_style="bold", show_edge=False, pad_edge=False)
    for number, column in enumerate(columns):
        numeric = all(isinstance(row[number], int | float) or row[number] is None for row in rows)
        table.add_column(column, justify="right" if numeric and rows else "left", overflow="fold")
    for row in rows:
        table.add_row(*(plain(value) for value in row))
    return table


def plain(value: Any) -> str:
    """A cell's text."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1e6 else f"{value:,.0f}"
    return printable(str(value)).replace("[", "\\[")


def printable(text: str) -> str:
    """`text` without control characters; tabs become blanks, line ends stay."""
    return text.translate(CONTROL)
