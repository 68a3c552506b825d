"""Plots about going somewhere. Pure tables; how they are read stands in plot.py."""
# ruff: noqa: E501 - a table of sentences: one sentence a line reads better than one cut in two

from lib.text.storyteller.plot import Plot

PLOTS = (
    Plot(
        name="lost on a trip", kinds=("place",),
        want=(
            "{day}, {N} and {F} wanted to see {ax}. They packed some food and left early.",
            "{N} had heard about {ax}. {day}, {he} went there with {F}.",
            "{day}, {N} asked {h} about {ax}. It was not far, so {N} and {F} went to look for it.",
            "Behind the trees there was {ax}. {day}, {N} took {F} there for the first time.",
        ),
        talk=(
            '"Do you know the way?" asked {F}. "I think so," said {N}, but {he} was not sure.',
            '"Look! There is the {x}!" said {N}. "It is so nice," said {F}.',
            '"Are we lost?" asked {F}. "I am afraid we are," said {N}.',
        ),
        attempt=(
            "They played at the {x} for hours. But when they wanted to go home, all the paths looked the same.",
            "They ran around the {x} and did not look at the time. Then the sun went down.",
            "Near the {x}, a thick mist came up. They could not see their own feet.",
            "They took a short way back from the {x}. It was the wrong way.",
        ),
        turn=(
            "Then {N} remembered what {h} had told {him}: \"When you are lost, stay where you are.\" They sat down and called.",
            "Then {N} saw the first star. {He} knew that home was on that side.",
            "Then {F} saw the crumbs of their lunch. They followed the crumbs.",
            "Then they heard a bell. It was the bell near their home!",
        ),
        solve=(
            "Soon they were home. {H} gave them warm milk and a big hug.",
            "They held hands and walked until they saw a light. It was {h} with a lamp.",
            "They were tired but happy when they came home. What a day it had been!",
        ),
        bad=(
            "They called and called, but nobody came. They had to sleep on the cold ground, and in the morning they were both sick.",
            "They tried one more path, but it was wrong too. It was very late when {h} found them, and they were never allowed to go to the {x} again.",
        ),
        moral=("stay together", "remember the way back", "listen to those who know more"),
        told=("goes to {ax} with a friend", "wants to see {ax}"), happy=("finds the way home", "gets lost but comes home safe"),
        sad=("gets lost in the dark",),
    ),
    Plot(
        name="fear of a place", kinds=("place",),
        want=(
            "Not far away there was {ax}. {N} was afraid of it. {day}, {he} had to go there.",
            "{day}, the ball of {F} rolled all the way to {ax}. Nobody wanted to go there, and {N} was scared too.",
            "Everyone said that there was something strange at {ax}. {day}, {N} wanted to find out.",
            "The way to school went by {ax}. {N} did not like it at all. {day}, {he} heard a sound there.",
        ),
        talk=(
            '"I do not want to go to the {x}," said {N}. "We will go together," said {F}.',
            '"Is anyone there?" called {N}. "There, there, there," came the answer.',
            '"Do you hear that?" asked {F}. "Yes," said {N}. "It comes from the {x}."',
        ),
        attempt=(
            "{N} took a few steps and stopped. The wind made a sad sound.",
            "{He} wanted to turn back, but then {he} would never know.",
            "{His} hands were cold, and {his} mouth was dry.",
            "Something moved at the {x}. {N} jumped behind a rock.",
        ),
        turn=(
            "Then {he} saw what it was. A small kitten sat there and was just as scared as {he} was!",
            "Then the sun came out. In the light, the {x} was not scary at all.",
            "{N} took a deep breath and went on. It was only the wind in the leaves!",
            "Then {N} laughed. What had looked like a monster was only an old tree.",
        ),
        solve=(
            "{N} was not afraid of the {x} anymore. Now {he} goes there every day.",
            "{N} told everyone about it. Soon the {x} was the best place to play.",
            "{N} ran home and told {h}. {H} said, \"That was very brave.\"",
        ),
        bad=(
            "But {N} ran away and fell over a stone. {He} hurt {his} knee, and {he} was even more afraid of the {x} after that.",
            "But {N} turned around and went home. {He} never found out what it was.",
        ),
        moral=("be brave and look closely", "go on even when we are afraid", "look first and be afraid later"),
        told=("is afraid of {ax}", "must go to {ax}"), happy=("finds out that there is nothing to fear", "learns to be brave"),
        sad=("runs away",),
    ),
    Plot(
        name="clean up", kinds=("place",),
        want=(
            "{N} loved to play at {ax}. But {day_low}, there were old cans and papers all over it.",
            "{day}, {N} came to {ax} and was very sad. It was so dirty that nobody wanted to be there.",
            "{day}, a storm came and left branches and mud all over {ax}. {N} wanted to help.",
            "{H} told {N} about {ax} that had once been full of flowers. {day}, {N} went to see it. There was only trash.",
        ),
        talk=(
            '"Who did this?" asked {F}. "I do not know," said {N}, "but we can clean it up."',
            '"It is too much work for one," said {N}. "Then let us do it together," said {F}.',
            '"Will you help me?" asked {N}. "Yes," said {h}. "I will bring two bags and a rake."',
        ),
        attempt=(
            "{N} picked up one can after the other. When {he} looked up, there was still so much to do.",
            "They worked all morning. Their backs hurt, and their hands were black.",
            "Some people walked by and laughed. {N} did not care.",
            "{N} filled one bag and then the next. {He} was very tired.",
        ),
        turn=(
            "Then {F} came with five friends. With so many hands, it was easy.",
            "{H} saw how hard {N} worked and told all the neighbors. Soon everyone came to help.",
            "Then {N} began to sing, and the others sang too. The work was fun now.",
            "{N} had a good idea. {He} made a game of it. Who could fill a bag first?",
        ),
        solve=(
            "When the sun went down, the {x} was clean again. They sat down and ate sweet melon.",
            "The {x} looked so good. {N} planted one yellow flower there.",
            "The birds came back to the {x}, and {N} was happy.",
        ),
        bad=(
            "But the next day, the {x} was dirty again. {N} sat down and did not know what to do.",
            "But nobody came to help. {N} had to stop, and the {x} stayed as it was.",
        ),
        moral=("keep the world clean", "work together", "begin even if the job is big"),
        told=("finds trash at {ax}", "wants to clean up {ax}"), happy=("makes it clean again with friends", "gets help from everyone"),
        sad=("cannot do it alone",),
    ),
    Plot(
        name="picnic", kinds=("place",),
        want=(
            "{day}, {N} and {h} planned a picnic at {ax}. They had bread, cheese and a big cake.",
            "{day}, {N} asked {F} to come to {ax} for a picnic. They had a blanket and a full basket.",
            "It was the birthday of {F}. {N} wanted to have a party for {fhim} at {ax}.",
            "{day}, the whole class went to {ax}. {N} carried the basket with the food.",
        ),
        talk=(
            '"This is the best place," said {N}. "Yes, but look at that cloud," said {F}.',
            '"I am so hungry," said {F}. "Me too," said {N}. "Let us sit down here."',
            '"Oh no, our cake!" cried {N}. "What can we do now?" asked {F}.',
        ),
        attempt=(
            "They had just sat down at the {x} when a strong wind came. It blew the plates away.",
            "A drop fell, and then another. Soon it rained hard at the {x}.",
            "When they opened the basket, it was full of ants.",
            "On the way to the {x}, {N} fell, and the cake fell too.",
        ),
        turn=(
            "{N} was sad at first. Then {he} saw that all of them had crumbs on their noses, and {he} had to laugh.",
            "They ran under a big tree. There they met a farmer who had a dry barn and fresh milk.",
            "{F} found sweet berries near the {x}. There were enough for everyone.",
            "Then the sun came back. They put the blanket over a bush to dry.",
        ),
        solve=(
            "It was not the picnic they had planned, but it was the best one ever.",
            "They ate and sang until the moon came up over the {x}.",
            "They all said that they would come back to the {x} soon.",
        ),
        bad=(
            "But then a big storm came, and it did not stop. They went home wet and cold and hungry, and {N} was sick for a week.",
            "But then there was a fight about the last piece of bread. They all went home and were angry.",
        ),
        moral=("laugh when things go wrong", "make the best of it", "be happy with small things"),
        told=("has a picnic at {ax}", "wants to have a party at {ax}"), happy=("has fun even when things go wrong", "makes the best of it"),
        sad=("comes home wet and sad",),
    ),
    Plot(
        name="race", kinds=("place",),
        want=(
            "{day}, {N} and {F} had a race to {ax}. {F} was very fast, and {N} was slow.",
            "{F} always said that {fhe} was the fastest. {day}, {N} said, \"Let us run to {ax} and see.\"",
            "{day}, all the friends met for a race. They had to run to {ax} and back.",
            "{N} had never won a race. {day}, there was a race to {ax}, and {he} wanted to try again.",
        ),
        talk=(
            '"You will never beat me," said {F}. "I will just do my best," said {N}.',
            '"One, two, three, go!" called {h}. "Run, {N}, run!"',
            '"Wait for me!" called {N}. "Catch me if you can!" called {F}.',
        ),
        attempt=(
            "{F} ran ahead and was soon out of sight. {N} ran on and on.",
            "{N} ran so fast that {he} lost a shoe. {He} did not stop.",
            "After a while, {N} could hardly breathe. The {x} was still far away.",
            "{F} stopped to rest and ate an apple. {N} did not rest.",
        ),
        turn=(
            "Near the {x}, {F} was sitting on the ground with a hurt foot. {N} stopped and gave {fhim} {his} arm.",
            "{F} had fallen asleep under a tree. {N} could have passed, but {he} woke {fhim} up.",
            "Just before the {x}, there was a wide stream. {F} was afraid of water, and {N} showed {fhim} where to step.",
            "{F} had gone the wrong way. {N} called out and waved until {fhe} saw {him}.",
        ),
        solve=(
            "They came to the {x} side by side. \"We both won,\" said {F}.",
            "They reached the {x} hand in hand, and everyone cheered for both of them.",
            "Nobody asked who was first at the {x}. They sat down and shared a drink of cold water.",
        ),
        bad=(
            "But then they both fell into the mud. Somebody else won, and the two friends walked home without a word.",
            "But {F} pushed {N} and ran ahead. {F} won the race, but {fhe} lost a friend that day.",
        ),
        moral=("help a friend first and win later", "go on, slow and steady", "be fair"),
        told=("runs a race to {ax}", "has a race to {ax} with a fast friend"), happy=("helps a friend on the way", "finds that being kind is better than winning"),
        sad=("does not win",),
    ),
    Plot(
        name="secret place", kinds=("place",),
        want=(
            "{day}, {N} followed a little bird and came to {ax}. {He} had never seen it before.",
            "{day}, {N} lost {his} ball behind the bushes. There {he} found {ax}. Nobody knew about it.",
            "{H} told {N} about {ax} where {hhe} had played long ago. {day}, {N} looked for it.",
            "{day}, {N} and {F} dug a path in the tall grass. At the end of it was {ax}.",
        ),
        talk=(
            '"This is our secret," said {N}. "I will not tell anyone," said {F}.',
            '"It is like in a dream," said {F}. "Is it real?" asked {N}.',
            '"Who lives here?" asked {N}. "Only the birds and me," said an old man with a kind face.',
        ),
        attempt=(
            "At the {x}, everything was still. {N} walked on the tips of {his} toes.",
            "{N} wanted to keep the {x} for {himself}. {He} went there every day and told no one.",
            "{N} saw that the {x} was old and needed some care.",
            "{N} heard a soft sound at the {x}. Somebody was crying.",
        ),
        turn=(
            "There was a nest with three small birds in it. {N} brought them water and seeds.",
            "But soon {he} was lonely there. A secret is no fun when you are alone.",
            "A small fox had a thorn in its foot. {N} took it out very gently.",
            "{N} brought a broom and a can of paint. {He} worked there for a whole week.",
        ),
        solve=(
            "Then {N} showed the {x} to {F}, and they made it their own little world.",
            "Now the {x} was the best place of all. {N} and {F} had tea there every Sunday.",
            "{N} brought {h} to the {x}. {H} had tears of joy in {hhis} eyes.",
        ),
        bad=(
            "But one day, big machines came and took the {x} away. {N} had only a small stone to remember it.",
            "But {N} told too many people. They came and broke everything, and the {x} was never the same again.",
        ),
        moral=("take care of nice places", "share what we love", "keep our word"),
        told=("finds {ax} that nobody knows", "finds {ax} by luck"), happy=("shares the secret", "takes good care of it"),
        sad=("loses the secret place",),
    ),
)  # fmt: skip
