"""What every plot shares: openings, the asked verb and features, endings. Pure tables; the keys stand in plot.py."""
# ruff: noqa: E501 - a table of sentences: one sentence a line reads better than one cut in two

INTROS = (
    "Once upon a time, there was {ak} named {N}. {N} lived {home}.",
    "Once upon a time, {ak} named {N} lived {home}.",
    "Once there was {ak}. {His} name was {N}, and {he} lived {home}.",
    "There once was {ak} named {N}. {He} lived {home} with {his} family.",
    "{Home}, there lived {ak}. {His} name was {N}.",
    "{N} was {ak} who lived {home}.",
    "Long ago, {ak} named {N} lived {home} with {h}.",
)
FRIENDS = (
    "{His} best friend was {afk} named {F}.",
    "{He} had a good friend named {F}. {F} was {afk}.",
    "{He} often played with {F}, {afk} from next door.",
)
# The asked verb, when it is a thing one may love to do: {vp} "jump over the puddles", {vpd} "jumped over the puddles".
HOBBIES = (
    "{N} loved to {vp}.", "{He} liked to {vp}.", "Every day, {he} {vpd}.", "{N} liked to {vp} more than anything.",
    "{He} always had time to {vp}.", "In the morning, {N} {vpd}.", "{He} {vpd} whenever {he} could.",
    "{N} and {h} often {vpd}.",
)  # fmt: skip
# The asked verb, when it is a small mishap.
MISHAPS = (
    "That morning, {N} {vpd}, but {he} was fine.", "Sometimes, {he} {vpd}. That was not so bad.",
    "The day before, {he} {vpd}, and {h} came to see what was wrong.", "{He} {vpd} on the very first day of spring.",
    "Once, {N} {vpd}, and everyone still talked about it.",
)  # fmt: skip
# The asked verb, when it is not in our lists and nothing is known but its forms.
UNKNOWN_VERBS = ("{N} wanted to {vp}.", "{He} liked to {vp}.", "{H} showed {N} how to {vp}.")
# The asked verb as the last joy of the day (only things one may love to do, only happy endings).
JOYS = ("To celebrate, they {vpd}.", "After that, they all {vpd} together.", "Then {N} {vpd}, full of joy.")
# The last one promises something good, so that a story with a bad ending leaves it out.
FORESHADOWING = (
    ("That morning, a black bird sat on the roof and called three times.", "Now {N} knew why the black bird had called."),
    ("The wind blew in a strange way, as if it wanted to say something.", "So that was what the wind had wanted to say!"),
    ("\"Take care today,\" {h} had said at breakfast.", "{N} thought of what {h} had said at breakfast."),
    ("{N} did not know yet that this day would be different from all the others.", "The day was really different, and {N} would never forget it."),
    ("In the night, {N} had a strange dream about a long road.", "It was just like in {his} strange dream."),
    ("Far away, a little gray cloud waited in the sky.", "The little gray cloud had seen it all."),
    ("An old saying hung over the door: \"Look twice.\" {N} never read it.", "Now {N} knew why \"Look twice\" hung over the door."),
    ("{H} had a secret smile that day, but {N} did not see it.", "Now {N} knew why {h} had smiled."),
)  # fmt: skip
CONFLICTS = (
    ("But then {N} and {F} began to fight. \"It is all your fault!\" said {F}. They turned their backs on each other.",
     "{N} and {F} said sorry to each other and were friends again."),
    ("{F} did not agree with {N}. {F} wanted to go home, and {N} wanted to stay. They got very angry.",
     "{N} and {F} were not angry anymore."),
    ("A big boy came and laughed at {N}. \"You are too little for this!\" he said. {N} got mad and told him to stop.",
     "Even the big boy said that he was sorry."),
    ("{N} wanted to stop, and {F} called {him} lazy. That hurt. \"I am not lazy!\" cried {N}. They did not talk for a while.",
     "{F} was sorry for the bad word, and the fight was over."),
    ("A mean crow flew down and would not let {N} go by. \"This is my place!\" cried the crow. {N} stood still and did not give in.",
     "The crow saw that {N} was brave and made peace."),
)  # fmt: skip
TWISTS = {
    "thing": (
        "Then came a big surprise. The {x} had once belonged to {h}, many years ago!",
        "Then came a surprise. In secret, {F} had made a second {x}, and it was for {N}!",
        "Then something strange happened. The {x} began to shine in the dark. It was magic!",
        "Then {N} looked at the {x} again and could not believe it. {His} own name was on it!",
        "But that was not all. {H} had seen everything and had a big surprise ready. It was a party!",
        'Then came a surprise. A tiny note fell down from the {x}. It said, "You are loved."',
    ),
    "creature": (
        "Then came a big surprise. The {x} was an old friend of {h}!",
        "Then came a surprise. It was the birthday of the {x}, and nobody had known it!",
        "Then came a surprise. Ten more friends came out from behind the trees. The {x} was not alone anymore!",
        "Then something strange happened. The {x} gave {him} a gold key. It was the key to a magic garden!",
        "Then came a surprise. The {x} had known {N} since {he} was a baby!",
    ),
    "place": (
        "Then came a big surprise. All the friends were at the {x} and had made a party for {N}!",
        "Then {N} saw something shiny at the {x}. It was a box full of gold coins!",
        "Then came a surprise. {H} had been there the whole time and had watched over them!",
        "Then something strange happened. A door opened at the {x}, and behind it was a room full of toys!",
        "Then came a surprise. A little dog ran out of the {x} and wanted to stay with {N} for ever!",
    ),
    "sad": (
        "Then came a surprise that nobody wanted. The sky turned black, and a big storm began.",
        "Then something strange happened. The ground shook, and everyone had to run.",
        "But then came a bad surprise. {F} had told a lie all along.",
        "Suddenly, a big dog ran by and pushed {N} into the mud. Nobody had seen it coming.",
    ),
}
CHATS = (
    '"What a day!" said {h}. "I will never forget it," said {N}.', '"Are you happy now?" asked {h}. "Yes, I am," said {N}.',
    '"Tell me all about it," said {h}. "It is a long story," said {N}.', '"I am proud of you," said {h}. "Thank you," said {N}.',
)  # fmt: skip
SAD_CHATS = (
    '"I wish I had been more careful," said {N}. "I know," said {h}.', '"Why did this happen?" asked {N}. {H} had no answer.',
    '"I am so sad," said {N}. "I am sad too," said {h}.',
)  # fmt: skip
MORALS = (
    "From that day on, {N} knew that it is good to {moral}.", "{N} learned that it is important to {moral}.",
    "The moral of the story is to {moral}.", "And so {N} knew that it is right to {moral}.", "That day, {N} learned that we should {moral}.",
)  # fmt: skip
ENDINGS = (
    "That night, {N} went to bed with a smile.", "It was a very good day.", "And they all lived happily ever after.",
    "{N} could not wait for the next day.", "{N} slept well that night.", "They stayed good friends for a long time.",
    "{N} told {h} all about it at dinner.", "Everyone was happy.", "What a wonderful day it was!", "The end.",
    "And {N} smiled all the way home.",
)  # fmt: skip
SAD_ENDINGS = (
    "It was a very sad day.", "{N} did not smile for a long time.", "That night, {N} could not sleep.",
    "{N} wished that {he} could go back and do it all again.", "And nobody knew how to make it better.", "It was not a happy end.",
)  # fmt: skip
EXTRAS = (
    "The sun was warm, and the sky was blue.", "The birds were singing in the trees.", "A soft wind blew over the grass.",
    "It smelled of fresh bread and flowers.", "Small white clouds moved over the hills.", "The leaves were red and yellow.",
    "Somewhere a dog barked.", "The grass was still wet.", "There were bees on the flowers.", "It was a little bit cold.",
)  # fmt: skip
