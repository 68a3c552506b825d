"""More plots about a thing that somebody can hold. Pure tables; how they are read stands in plot.py."""
# ruff: noqa: E501 - a table of sentences: one sentence a line reads better than one cut in two

from lib.text.storyteller.plot import Plot

PLOTS = (
    Plot(
        name="rainy day", kinds=("thing",),
        want=(
            "{day}, {N} wanted to go {to}. But it began to rain, and the rain did not stop. {N} had to stay inside with only {ax}.",
            "{day}, the rain fell hard on the roof. {N} and {F} could not go out. On the floor was {ax}.",
            "{day}, dark clouds came, and soon it rained. {N} looked out of the window and was bored. Then {he} saw {ax} in a corner.",
            "It rained and rained. {N} had nothing to do. That day, {h} opened an old box, and in it was {ax}.",
        ),
        talk=(
            '"I do not like the rain," said {N}. "We can have fun inside too," said {h}.',
            '"What can we do all day?" asked {F}. "I have an idea," said {N}. "Look at the {x}!"',
            '"Rain, rain, go away!" called {N}. But the rain only went drip, drip, drip.',
        ),
        attempt=(
            "First, {N} counted the drops on the window. That was fun for only a minute.",
            "{N} walked up and down the room. The day felt very long.",
            "{He} sat on the floor and looked at the {x}. What could {he} do with it?",
            "{N} made a sad face and put {his} nose on the cold window.",
        ),
        turn=(
            "Then {N} had a great idea. {He} put a blanket over two chairs and made a little tent. The {x} went in first.",
            "Then {N} began to tell a tale about the {x}. It was the king of a far land, and {N} was its guard.",
            "Soon the {x} was part of a big game. {N} hid it, and {h} had to find it.",
            "Then {N} took paper and crayons. {He} made a big picture of the {x} with a crown on top.",
        ),
        solve=(
            "They laughed so much that nobody saw the sun come out. It was a good day after all.",
            "When the rain stopped, there was a rainbow over the hill. But {N} was having too much fun to go out.",
            "The day went by fast. At night, {N} hoped that it would rain again soon.",
        ),
        bad=(
            "But then water came in through the roof, and the {x} was ruined. {N} sat in the dark and was sad.",
            "But {N} got too wild, and the {x} broke. The rain went on, and nobody wanted to play anymore.",
        ),
        moral=("make the best of every day", "have fun with what we have", "use our own ideas"),
        told=("is stuck at home with {ax} because of the rain", "cannot go out in the rain and has only {ax} to play with"),
        happy=("makes up a great game", "has a good day after all"), sad=("ends the day in tears",),
    ),
    Plot(
        name="learning", kinds=("thing",),
        want=(
            "{day}, {N} saw how {h} made {ax}. It looked so easy. {N} wanted to make one too.",
            "{day}, {F} came with {ax}. {F} had made it without any help! {N} wanted to learn how to do that.",
            "{N} wanted to draw {ax}. {day}, {he} sat down {p} with a pen and some paper.",
            "At school, everyone had to make {ax}. {N} did not know how. {day}, {he} began to try.",
        ),
        talk=(
            '"I cannot do it," said {N}. "You cannot do it yet," said {h}. "Try again."',
            '"Will you teach me?" asked {N}. "Yes," said {F}. "Look at my hands and do the same."',
            '"It is too hard!" cried {N}. "Go slow," said {h}. "One step at a time."',
        ),
        attempt=(
            "The first time, it all went wrong. The {x} looked like an old potato.",
            "{N} tried once, and {he} tried again. It still did not look like {ax0}.",
            "{He} made one mistake after another. {He} wanted to throw it all away.",
            "{N} worked until lunch, but it was no good. {He} put {his} head on the table.",
        ),
        turn=(
            "Then {h} showed {him} a trick. {N} looked very closely and tried it again.",
            "{N} closed {his} eyes and thought. Then {he} saw what {he} had done wrong.",
            "{N} did not stop. Every day {he} did a little more, and every day it got better.",
            "{F} sat down beside {him}. Together they did it very slowly, one part after the other.",
        ),
        solve=(
            "At last, it was done. It was the best {x} that {N} had ever made, and {he} showed it to everyone.",
            "Now {N} could do it! {H} put the {x} by the window so that everyone could see it.",
            "\"I did it!\" called {N}. {He} was so proud that {he} made a second one for {F}.",
        ),
        bad=(
            "But {N} got angry and threw it all on the floor. {He} never tried again, and {he} never learned it.",
            "But {N} did not listen and did it too fast. It fell apart, and there was no time to make a new one.",
        ),
        moral=("try again when something is hard", "learn one step at a time", "ask others to show us how"),
        told=("wants to learn how to make {ax}", "tries hard to make {ax}"), happy=("learns it step by step", "does not give up"),
        sad=("gives up too soon",),
    ),
    Plot(
        name="repair", kinds=("thing",),
        want=(
            "{day}, {N} had {ax} in {his} hands. Then {he} fell, and the {x} broke. {N} was very sad.",
            "{day}, {F} came {to} with tears in {fhis} eyes. {Fhis} {adjx} was broken.",
            "{H} had {ax} that was very old. {day}, it broke. {N} wanted to help.",
            "{day}, {N} found {ax} in a bin {p}. It was broken, but {N} liked it anyway.",
        ),
        talk=(
            '"Can we fix it?" asked {N}. "We can try," said {h}. "Bring me some glue."',
            '"It is no good anymore," said {F}. "Wait," said {N}. "I think I can mend it."',
            '"Do not throw it away!" said {N}. "Every thing can have a second chance."',
        ),
        attempt=(
            "{N} tried to put it back together. One part was missing.",
            "{He} used tape and string. But it fell apart again.",
            "{N} looked at the {x} from all sides. It was not easy to see what was wrong.",
            "{N} went to the shop, but the shop was closed.",
        ),
        turn=(
            "Then {N} found the missing part under the rug. Now it was easy.",
            "{H} had a box full of small things. In it was just the right part.",
            "{N} and {F} worked together. One held the {x}, and the other put on the glue.",
            "{N} had a new idea. {He} took a button and a bit of wood, and it fit!",
        ),
        solve=(
            "Soon the {x} was whole again. It was even better than before.",
            "They all looked at the {x} and smiled. You could not even see where it had been broken.",
            "The {x} was as good as new. {N} danced around the room with it.",
        ),
        bad=(
            "But nothing helped. The {x} stayed broken, and {N} put it in a box and closed it.",
            "But then the last part broke too. They had to throw the {x} away, and {N} was sad for many days.",
        ),
        moral=("mend things before we throw them away", "work together", "stay calm and think"),
        told=("tries to fix {ax}", "has {ax} that is broken"), happy=("fixes it with a good idea", "makes it whole again"),
        sad=("cannot fix it",),
    ),
    Plot(
        name="treasure map", kinds=("thing",),
        want=(
            "{day}, {N} found an old map in a book. There was a red cross on it. The map said that {ax} was hidden {p}.",
            "{day}, {F} came with a map. \"This is the way to {ax0}!\" said {F}. There was {ax} to find {p}.",
            "{H} had hidden {ax} {p} and had drawn a map for {N}. {day}, the hunt began.",
            "{day}, a bottle came down the river with a note in it. The note told about {ax} that was hidden {p}.",
        ),
        talk=(
            '"Where do we have to go?" asked {F}. "First to the big tree," said {N}, "and then ten steps."',
            '"Are you scared?" asked {F}. "A little bit," said {N}, "but I want to see the {x}."',
            '"I think we are lost," said {F}. "No," said {N}. "Look, there is the red cross!"',
        ),
        attempt=(
            "They walked over a bridge and up a hill. Their feet were tired.",
            "{N} dug a hole, but there was only sand in it. {He} dug another hole. It was empty too.",
            "The wind took the map and blew it away. {N} had to run after it.",
            "They came to a big rock. The path ended there, and nobody knew where to go.",
        ),
        turn=(
            "Then {N} turned the map around. They had held it the wrong way!",
            "Then {N} saw a mark on a tree. It was the same mark as on the map.",
            "Just then, the sun came out. A ray of light fell on a small box in the grass.",
            "{F} leaned on a stone, and the stone moved. There was something under it!",
        ),
        solve=(
            "And there was the {x}, just as the map had said. They carried it home like two kings.",
            "They had found the {x}! They held hands and danced around it.",
            "{N} lifted up the {x}. \"We did it together,\" {he} said.",
        ),
        bad=(
            "But when they came to the place, the hole was empty. Someone else had taken the {x}. They went home with nothing.",
            "But a big storm came and washed the path away. They never found the {x}, and the map was lost too.",
        ),
        moral=("look at a problem from all sides", "stay together on a long way", "be brave and curious"),
        told=("follows a map to {ax}", "hunts for {ax} that is hidden"), happy=("finds the treasure", "finds it with a friend"),
        sad=("comes too late",),
    ),
    Plot(
        name="brave in the dark", kinds=("thing",),
        want=(
            "{day}, {N} left {ax} {p}. When it was time for bed, {he} missed it. But it was dark outside, and {N} was afraid of the dark.",
            "{H} asked {N} to get {ax} from under the stairs. It was very dark there. That day, {N} was afraid.",
            "{day}, {ax} rolled into a deep, dark hole {p}. {N} was too scared to go in.",
            "There was {ax} up in the old attic. {N} wanted it, but the attic was dark and full of strange sounds.",
        ),
        talk=(
            '"I am scared," said {N}. "I am with you," said {F}. "Take my hand."',
            '"What if there is a monster?" asked {N}. "There are no monsters here," said {h}. "Take this light."',
            '"You are brave," said {F}. "Am I?" asked {N} in a small voice.',
        ),
        attempt=(
            "{N} took one step and stopped. Something went creak! {He} ran back.",
            "{He} closed {his} eyes and counted to ten. But {his} knees were shaking.",
            "{N} saw a big black shape. {His} heart went boom, boom, boom.",
            "{He} took a deep breath and went in. It was cold, and {he} could not see a thing.",
        ),
        turn=(
            "Then {N} held up a small light. The shape was only an old coat!",
            "Then {he} heard a soft sound. It was only a little mouse, and the mouse was afraid of {him}!",
            "{N} began to sing a song. With each word, {he} felt less afraid.",
            "{N} thought of the {x}. {He} put one foot in front of the other until {he} was there.",
        ),
        solve=(
            "{N} took the {x} and ran back. \"I did it!\" {he} said. {He} was not afraid anymore.",
            "Soon {he} had the {x} in {his} arms. The dark was not so bad after all.",
            "{N} came out with the {x} and a big smile. {H} was very proud of {him}.",
        ),
        bad=(
            "Then the last light went out, and {N} ran away as fast as {he} could. The {x} stayed in the dark, and {N} did not sleep all night.",
            "But {N} could not do it. The next day, the {x} was gone, and {N} was very sad.",
        ),
        moral=("be brave, even when we are afraid", "look twice, because most things are not as bad as they seem", "take one small step first"),
        told=("must get {ax} from a dark place", "is afraid of the dark but wants {ax} back"),
        happy=("learns to be brave", "is not afraid anymore"), sad=("runs away",),
    ),
    Plot(
        name="saving up", kinds=("thing",),
        want=(
            "{day}, {N} saw {ax} in the window of a shop. It cost ten coins. {N} had only one.",
            "{N} wanted {ax} more than anything. {day}, {he} saw one at the market, but it cost too much.",
            "{day}, a man came {to} and sold many things. {N} liked {ax} best, but {he} had no coins.",
            "{F} told {N} about {ax} in the little shop. {day}, they went to see it. It cost a lot.",
        ),
        talk=(
            '"Please, can I have it?" asked {N}. "You can earn it," said {h}. "I have some jobs for you."',
            '"How much is the {x}?" asked {N}. "Ten coins," said the man. "I will be back," said {N}.',
            '"That will take a long time," said {F}. "I can wait," said {N}.',
        ),
        attempt=(
            "{N} washed cups, fed the hens and swept the floor. Each job gave {him} one coin.",
            "Every day {he} put a coin in a jar. Every day {he} counted the coins again.",
            "{He} wanted to buy candy, but {he} did not. {He} thought of the {x}.",
            "{N} sold lemonade {p}. At first nobody came, but then the sun got hot.",
        ),
        turn=(
            "After three weeks, the jar was full. {N} ran to the shop.",
            "One coin was still missing. Then {F} came and gave {him} the last one.",
            "On the way, {N} met a poor old man who was hungry. {He} gave him one coin. The man thanked {him} and knew a way to help.",
            "At last, {N} had all the coins. {He} walked to the shop with {h}.",
        ),
        solve=(
            "Soon the {x} belonged to {N}. {He} took good care of it, because {he} had worked so hard for it.",
            "{N} put the coins on the table and got the {x}. {He} carried it home very slowly.",
            "\"Here it is,\" said the man and gave {N} the {x}. {N} was the happiest {k} in town.",
        ),
        bad=(
            "But when {N} came back to the shop, the {x} had been sold. {N} stood in front of the empty window for a long time.",
            "But {N} had a hole in {his} pocket, and all the coins were gone. {He} could not buy the {x}.",
        ),
        moral=("wait and work for what we want", "save a little every day", "be patient"),
        told=("saves coins for {ax}", "wants to buy {ax}"), happy=("gets it by hard work", "learns to be patient"),
        sad=("comes home with nothing",),
    ),
)  # fmt: skip
