"""Blocks: what a report is made of, as Markdown and as one HTML page.

In:   sections of text, tables, pictures and stories, all of them plain strings and bytes
Out:  Markdown that points at picture files; HTML that holds its pictures
Everything is escaped: a story is shown, never interpreted.
"""

import base64
import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

STYLE = Path(__file__).with_name("report.css")


@dataclass(frozen=True)
class Text:
    text: str

    def markdown(self) -> str:
        return _plain(self.text)

    def html(self) -> str:
        return f"<p>{html.escape(self.text)}</p>"


@dataclass(frozen=True)
class Table:
    """Cells as text. Columns from the second on are figures, unless `words` says otherwise."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: bool = False

    def markdown(self) -> str:
        ruler = ["---", *(["---" if self.words else "---:"] * (len(self.head) - 1))]
        lines = [[_plain(cell) for cell in self.head], ruler, *([_plain(cell) for cell in row] for row in self.rows)]
        return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)

    def html(self) -> str:
        head = "".join(f"<th>{html.escape(cell)}</th>" for cell in self.head)
        body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in self.rows)
        kind = "words" if self.words else "figures"
        table = f'<table class="{kind}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
        return f'<div class="scroll">{table}</div>'


@dataclass(frozen=True)
class Picture:
    file: str
    says: str  # for who cannot see it, and as its caption
    png: bytes

    def markdown(self) -> str:
        return f"![{_plain(self.says)}]({self.file})"

    def html(self) -> str:
        data, says = base64.b64encode(self.png).decode(), html.escape(self.says)
        return f'<figure><img alt="{says}" src="data:image/png;base64,{data}"><figcaption>{says}</figcaption></figure>'


@dataclass(frozen=True)
class Stories:
    """What several models wrote for one prompt, side by side."""

    prompt: str
    told: Sequence[tuple[str, str]]

    def markdown(self) -> str:
        parts = [f"**{_plain(self.prompt)}**"]
        for who, text in self.told:
            quoted = "\n".join(f"> {_plain(line)}" for line in text.strip().splitlines()) or "> (nothing)"
            parts.append(f"*{_plain(who)}*\n\n{quoted}")
        return "\n\n".join(parts)

    def html(self) -> str:
        cards = "".join(
            f"<article><h4>{html.escape(who)}</h4><p>{html.escape(text.strip()) or '<i>(nothing)</i>'}</p></article>"
            for who, text in self.told
        )
        return f'<section class="stories"><h3>{html.escape(self.prompt)}</h3><div>{cards}</div></section>'


Block = Text | Table | Picture | Stories


@dataclass(frozen=True)
class Section:
    title: str
    blocks: Sequence[Block]


def to_markdown(title: str, sections: Sequence[Section]) -> str:
    parts = [f"# {title}"]
    for section in sections:
        parts += [f"## {section.title}", *(block.markdown() for block in section.blocks)]
    return "\n\n".join(parts) + "\n"


def to_html(title: str, sections: Sequence[Section]) -> str:
    """One page without a script and without a request: it can be mailed."""
    anchors = [re.sub(r"[^a-z]+", "-", section.title.lower()).strip("-") for section in sections]
    links = "".join(
        f'<a href="#{anchor}">{html.escape(section.title)}</a>'
        for anchor, section in zip(anchors, sections, strict=True)
    )
    body = "".join(
        f'<section id="{anchor}"><h2>{html.escape(section.title)}</h2>'
        + "".join(block.html() for block in section.blocks)
        + "</section>"
        for anchor, section in zip(anchors, sections, strict=True)
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'\">"
        f"<title>{html.escape(title)}</title><style>{STYLE.read_text()}</style></head>"
        f"<body><header><h1>{html.escape(title)}</h1><nav>{links}</nav></header><main>{body}</main></body></html>\n"
    )


def inlined(folder: Path) -> str:
    """report.md with its pictures inside, as a Prefect artifact wants it."""

    def data(match: re.Match) -> str:
        png = base64.b64encode((folder / match[2]).read_bytes()).decode()
        return f"![{match[1]}](data:image/png;base64,{png})"

    return re.sub(r"!\[([^\]]*)\]\(([a-z-]+\.png)\)", data, (folder / "report.md").read_text())


def _plain(text: str) -> str:
    """Text that Markdown leaves as it is, on one line."""
    return re.sub(r"([\\`*_\[\]<>#~])", r"\\\1", " ".join(text.split()))
