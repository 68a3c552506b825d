"""Chat templates: a layout in Jinja, as transformers and llama.cpp read it.

In:   a layout's name
Out:  the template of one request, as text; None for a layout without requests
Relies on lib/text/template.py: rendered and spelled by a tokenizer that knows bos and eos, it gives `Template.prefix`.

One user message alone: earlier turns are refused. The layouts spell each part of a talk for itself; a program that
spells the joined text gets other ids where an answer meets its block.
"""

import json

from lib.text.template import BOS, EOS, layout_of

TOKENS = {BOS: "{{ bos_token }}", EOS: "{{ eos_token }}"}
ONE = "this model takes one user message and nothing before it"


def chat_template(layout: str) -> str | None:
    """`[EOS] instruction [BOS]` and the like. An instruction with an input is one message, as the block has them."""
    shape = layout_of(layout)
    if not shape.has_prompt:
        return None
    before, after = shape.block.alone.split("{instruction}")
    prompt = "".join([_literal(before), "{{ messages[0]['content'] }}", _literal(after)])
    parts = [TOKENS.get(part, prompt) for part in shape.sampling]
    return (
        "{% if messages|length != 1 or messages[0]['role'] != 'user' %}"
        f"{{{{ raise_exception('{ONE}') }}}}{{% endif %}}" + "".join(parts)
    )


def _literal(text: str) -> str:
    """Text as a Jinja string: a newline at the end of a template would be lost."""
    return f"{{{{ {json.dumps(text)} }}}}" if text else ""
