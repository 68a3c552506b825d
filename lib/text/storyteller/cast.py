"""Who lives in the stories, where and when. Pure tables: nothing comes in, the grammar picks from them."""
# ruff: noqa: E501, SIM905 - tables: words in a string read better than words in quotes

GIRLS = """
Amy Anna Bella Clara Dora Ella Emma Grace Hannah Ivy Jane Julia Kate Lily Lucy Maya Mia Molly Nora Olive Rosa
Ruby Sara Sue Tina Zoe
""".split()
BOYS = """
Adam Ali Ben Carlos Dan David Eli Finn George Henry Hugo Ivan Jack Jake Joe Leo Luke Max Nick Noah Oscar Paul
Sam Theo Tim Tom
""".split()
# Animals carry short names that no child here has, so that a name alone tells who is meant.
SHE_ANIMALS = """
Bibi Coco Daisy Fifi Gigi Kiki Lulu Mimi Nini Pepper Rosie Sandy Tutu Twinkle Zuzu
""".split()
HE_ANIMALS = """
Bobo Dodo Flip Fuzzy Gus Hoppy Milo Momo Nibbles Pip Pogo Rex Rolo Spot Tiko Toby Waffles Ziggy
""".split()
ANIMALS = """
bear beaver bunny cat dog duck elephant fox frog goat hedgehog kitten lion monkey mouse otter owl panda penguin
pig pony puppy rabbit raccoon sheep squirrel tiger turtle
""".split()
CHILD_HELPERS = ("mom", "dad", "grandma", "grandpa", "aunt", "uncle", "big sister", "big brother", "teacher")
ANIMAL_HELPERS = ("mom", "dad", "grandma", "grandpa", "aunt", "uncle", "big sister", "big brother")
HELPER_SEX = {"mom": "she", "grandma": "she", "aunt": "she", "big sister": "she"}
HELPER_SEX |= {"dad": "he", "grandpa": "he", "uncle": "he", "big brother": "he"}  # a teacher may be either
CHILDREN = {"she": GIRLS, "he": BOYS}
NAMED_ANIMALS = {"she": SHE_ANIMALS, "he": HE_ANIMALS}

HERO_LOOKS = ("little", "small", "young", "kind", "cheerful", "happy", "clever", "playful", "")
FRIEND_LOOKS = ("kind", "funny", "clever", "quiet", "brave", "cheerful", "friendly", "smart")
WHAT = {"thing": "thing", "animal": "creature", "person": "creature", "place": "place"}
LOOKS = {
    "thing": ("nice", "new", "pretty", "little", "big", "red", "blue", "green", "shiny", "lovely", ""),
    "creature": ("big", "little", "old", "young", "kind", "funny", "sad", "quiet", "strange", ""),
    "place": ("old", "big", "little", "nice", "quiet", "strange", "beautiful", ""),
}

HOMES = (
    "in a small house by the sea", "in a little village", "in a big town", "on a farm", "near a green forest",
    "in a house on a hill", "by a wide river", "in a warm little house", "at the end of a long road", "near the park",
    "in a town with many trees", "by a quiet lake", "in a yellow house", "under the tall mountains",
    "in a house with a red roof", "near the old mill", "on a small island", "in a valley full of flowers",
    "next to a big garden", "in a cozy home in the woods",
)  # fmt: skip
# (where, where to): "in the park", "to the park"
PLACES = tuple(
    (f"{at} {noun}", f"to {noun}")
    for at, noun in (
        ("in", "the park"), ("in", "the garden"), ("in", "the forest"), ("by", "the river"), ("by", "the lake"),
        ("on", "the hill"), ("at", "the beach"), ("in", "the meadow"), ("at", "the market"), ("in", "the yard"),
        ("at", "the playground"), ("near", "the pond"), ("in", "the woods"), ("on", "the farm"), ("near", "the bridge"),
        ("at", "school"), ("in", "the village"), ("by", "the big oak tree"), ("near", "the old barn"), ("in", "town"),
        ("by", "the stream"), ("in", "the field"), ("behind", "the school"), ("near", "the train station"), ("at", "the zoo"),
        ("by", "the sea"), ("at", "the fair"), ("near", "the library"), ("in", "the square"), ("at", "the harbor"),
    )
)  # fmt: skip
DAYS = (
    "One day", "One morning", "One afternoon", "One sunny day", "One Sunday", "One Monday", "One warm day",
    "One spring day", "One fine morning", "One quiet afternoon", "One summer day", "One weekend",
)  # fmt: skip
# What is not in the word lists, so that no ask is about it, but may be planted or asked by somebody else.
RARE = {
    "troll": "person", "giant": "person", "witch": "person", "fairy": "person", "elf": "person", "mermaid": "person",
    "robot": "animal", "dragon": "animal", "monster": "animal", "ghost": "animal", "unicorn": "animal", "alien": "animal",
    "dinosaur": "animal", "mammoth": "animal", "moon": "thing", "rocket": "thing", "spaceship": "thing",
}  # fmt: skip
