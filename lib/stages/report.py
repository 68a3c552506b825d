"""Report: one chain as a page to read, a page to mail, and pictures.

In:   the chain's datasets by name (raw, clean, dedup, novelty, split, tokenizer, tokens, instructions,
      pretrain, instruct, align, evaluate); what is missing is left out of the page
Out:  report.md with its *.png beside it; report.html, which holds everything and asks for nothing
All the thinking is SQL in lib/web/report.py. The views it reads are over the given datasets, not over the newest.
"""

from pydantic import Field

from lib.store import Config, Dataset, Draft, Stage

STAGE = Stage("report", 1)


class ReportConfig(Config):
    title: str = Field("Storymill report", min_length=1, description="what stands above the page")


def report(draft: Draft, config: ReportConfig, **chain: Dataset) -> None:
    """Render what these datasets hold."""
    from lib.web import blocks
    from lib.web.chain import open_chain
    from lib.web.report import sections

    draft.progress("reading the chain", 0, 2)
    made = sections(open_chain(chain))
    draft.progress("writing the pages", 1, 2)
    pictures = [block for section in made for block in section.blocks if isinstance(block, blocks.Picture)]
    for picture in pictures:
        draft.write_bytes(picture.file, picture.png)
    draft.write_text("report.md", blocks.to_markdown(config.title, made))
    draft.write_text("report.html", blocks.to_html(config.title, made))
    draft.fact(sections=[section.title for section in made])
    draft.count(pictures=len(pictures))
