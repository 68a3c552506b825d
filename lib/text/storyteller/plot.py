"""What a plot is: its beats in the order of telling, each with several ways to tell it.

Every way of a beat fits every way of the others: five beats with four ways each give a thousand stories.

Keys in the texts (filled by story.py; a capital first letter is the form for the start of a sentence):
    N he him his himself k ak    the hero: name, pronouns, what the hero is ("rabbit", "a brave rabbit")
    F fhe fhim fhis afk          the friend, introduced before the plot begins whenever a chosen beat speaks of one
    h hhe hhim hhis              the helper ("his mom"); h_gave = "His mom gave"
    x ax ax0 adjx ax_cap         the asked noun: bare, "a shiny hat", "a hat", "shiny hat", "A shiny hat"
    xe xim xis                   its pronouns, where the noun is somebody
    p to from_p                  a place: "in the park", "to the park", "from the park"
    day day_low                  when it happens: "One sunny day", "one sunny day"
    vp vpd                       the asked verb as a phrase: "jump over the puddles", "jumped over the puddles"
"""

from dataclasses import dataclass

Ways = tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Plot:
    name: str
    kinds: Ways  # the classes of noun that the plot can be about
    want: Ways  # the hero, the noun and the problem; always holds the noun with its adjective
    talk: Ways  # two lines spoken
    attempt: Ways  # what does not help yet
    turn: Ways  # what helps
    solve: Ways  # how good it is then
    bad: Ways  # instead of turn and solve, where a bad ending is asked
    moral: Ways  # "it is good to ..."
    told: Ways  # the summary's middle: "loses a red hat"
    happy: Ways  # the summary's end: "finds it again"
    sad: Ways  # and for a bad ending
