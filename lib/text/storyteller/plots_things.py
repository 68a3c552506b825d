"""Plots about a thing that somebody can hold. Pure tables; how they are read stands in plot.py."""
# ruff: noqa: E501 - a table of sentences: one sentence a line reads better than one cut in two

from lib.text.storyteller.plot import Plot

PLOTS = (
    Plot(
        name="lost and found", kinds=("thing",),
        want=(
            "{day}, {N} took {ax} {to}. {He} put it down and went to play. When {he} came back, the {x} was gone.",
            "{N} had {ax} and took it everywhere. {day}, {he} came home {from_p} and could not find it. The {x} was lost!",
            "{day}, {N} wanted to show {F} {ax}. {He} opened {his} bag, but the bag was empty. The {x} was not there.",
            "{h_gave} {N} {ax}. {N} loved it very much. But {day_low}, {he} lost the {x} {p}.",
        ),
        talk=(
            '"Have you seen my {x}?" asked {N}. "No," said {F}, "but I will help you look."',
            '"Oh no! Where is my {x}?" cried {N}. "Do not cry," said {F}. "We will find it."',
            '"What is wrong?" asked {F}. "I lost my {x}," said {N}. "Let us look for it together," said {F}.',
        ),
        attempt=(
            "{N} looked under the bench and behind the trees. {He} did not find it.",
            "{He} looked here and there, high and low. There was nothing but grass and stones.",
            "{N} walked the whole way back and looked at every step. It was hard, and {he} felt sad.",
            "{He} asked a duck, a dog and an old man. No one had seen the {x}.",
        ),
        turn=(
            "Then {F} saw something behind a bush. It was the {x}!",
            "Just then, {N} heard a small sound. A bird sat on a branch and looked down. Under the branch lay the {x}.",
            "At last, {N} sat down on a big rock. Something was under {his} foot. It was the {x}!",
            "Then {h} came with a smile. {Hhe} had found the {x} near the door.",
        ),
        solve=(
            "{N} was so happy that {he} jumped up and down. {He} held the {x} close all the way home.",
            "{N} laughed and hugged {F}. \"Thank you for your help!\" {he} said.",
            "Now {N} was happy again. {He} took the {x} home and put it in a safe place.",
        ),
        bad=(
            "The sun went down, and it got dark. {N} had to go home without the {x}. {He} never saw it again.",
            "They looked until night, but the {x} was gone for good. {N} cried in {his} bed that night.",
        ),
        moral=("take good care of the things we love", "ask a friend for help when something is lost", "never give up too soon"),
        told=("loses {ax}", "looks for {ax} that is lost"), happy=("finds it again", "gets it back with the help of a friend"),
        sad=("never finds it",),
    ),
    Plot(
        name="sharing", kinds=("thing",),
        want=(
            "{day}, {N} got {ax}. {F} saw it and wanted it too. But {N} did not want to share.",
            "{day}, {N} and {F} found {ax} {p}. They both wanted to have it.",
            "{h_gave} {N} {ax}. {N} kept it all day and did not let {F} touch it.",
            "{day}, {N} came {to} with {ax}. {F} had nothing, and {fhe} looked at the {x} for a long time.",
        ),
        talk=(
            '"Can I hold the {x}?" asked {F}. "No, it is mine!" said {N}. {F} looked down at the ground.',
            '"Please share the {x} with me," said {F}. "Not now," said {N}. "Maybe later."',
            '"Mine!" said {N}. "But we are friends," said {F} in a soft voice. "Friends share."',
        ),
        attempt=(
            "{N} sat alone with the {x}. It was not much fun without {his} friend.",
            "{F} went away and sat under a tree. {N} looked at the {x}, but {he} did not feel good.",
            "{N} turned {his} back and held the {x} tight. Soon {he} was bored.",
            "{F} began to cry. {N} heard it and felt bad inside.",
        ),
        turn=(
            "{H} saw this and sat down next to {N}. {Hhe} said that a thing is more fun when two friends have it.",
            "Then {N} had an idea. {He} ran to {F} and held out the {x}.",
            "{N} thought about all the times when {F} had shared with {him}. {He} stood up and went to {his} friend.",
            "After a while, {N} could not stand it anymore. {He} gave the {x} to {F} and said sorry.",
        ),
        solve=(
            "They took turns with the {x}, and both of them smiled. It was the best part of the day.",
            "{F} smiled a big smile. Now the two friends had the {x} together, and nobody was sad.",
            "First it was {F}'s turn, and then it was {N}'s turn. They laughed until the sun went down.",
        ),
        bad=(
            "But then they both pulled at the {x}, and it broke in two. Now nobody had it, and they both went home sad.",
            "But it was too late. {F} had gone home, and {fhe} did not come to play the next day. {N} was all alone with the {x}.",
        ),
        moral=("share with our friends", "think of others too", "give a little, because then everyone has more"),
        told=("does not want to share {ax}", "has {ax} that a friend wants too"), happy=("learns to share", "shares it with a friend"),
        sad=("ends up alone",),
    ),
    Plot(
        name="gift", kinds=("thing",),
        want=(
            "It was almost {h}'s birthday. {N} wanted to give {hhim} {ax}, but {he} had no money.",
            "{day}, {F} was sick in bed. {N} wanted to bring {fhim} {ax} to make {fhim} happy.",
            "{day}, {N} saw that {F} was sad. {He} wanted to give {fhim} something nice. It had to be {ax}.",
            "{N} wanted to thank {h} for all {hhis} help. {day}, {he} had a plan. {He} would get {hhim} {ax}.",
        ),
        talk=(
            '"What are you doing?" asked {h}. "It is a secret," said {N} with a smile.',
            '"Where can I get {ax0}?" asked {N}. "Look {p}," said an old man. "You may find one there."',
            '"I want to give a gift," said {N}. "Then give it with love," said the old lady next door.',
        ),
        attempt=(
            "{N} worked hard all week. {He} helped in the shop and saved every coin.",
            "{He} went from house to house and did small jobs. It took a long time.",
            "{He} tried to make it with paper and glue. It did not look right, so {he} began again.",
            "{N} asked everyone {p}. No one had what {he} needed.",
        ),
        turn=(
            "In the end, a kind man gave {N} the {x} because {he} had worked so hard.",
            "At last, {N} had the {x}. {He} put it in a box with a red ribbon.",
            "Then {N} found just what {he} needed in an old box at home. Soon the {x} was ready.",
            "The next day, {N} had the {x}. {He} hid it under {his} bed until it was time.",
        ),
        solve=(
            "When the box was opened, there were happy tears and a big hug. {N} felt warm inside.",
            "It was the best gift of all, because {N} had worked for it. Everyone clapped.",
            "The {x} stood in the middle of the table, and everyone looked at it. {N} was proud.",
        ),
        bad=(
            "At last, {N} had the {x}. But on the way home, {he} fell down, and the {x} broke. There was no gift that day, only tears.",
            "At last, the {x} was ready in a box. But the box was left in the rain. When it was opened, the {x} was spoiled. {N} was very sad.",
        ),
        moral=("give with love", "work hard for the people we love", "make others happy"),
        told=("wants to give {ax} to someone dear", "works hard to get {ax} as a gift"),
        happy=("makes someone very happy", "gives the best gift of all"), sad=("loses the gift on the way",),
    ),
    Plot(
        name="broken rule", kinds=("thing",),
        want=(
            "{H} had {ax}. {Hhe} told {N} not to touch it. But {day_low}, {N} was alone in the room with it.",
            "{day}, {N} saw {ax} on the top shelf. It belonged to {h}. {N} knew that {he} must not take it, but {he} wanted it so much.",
            "{h_gave} {N} {ax} to keep for one day. {N} had to leave it in the house. But {day_low}, {N} took it {to}.",
            "There was {ax} in {h}'s room. {N} was not allowed to play with it. {day}, the door was open.",
        ),
        talk=(
            '"Nobody will see me," said {N}. "I only want to look."',
            '"You should not do that," said {F}. "It is only for a minute," said {N}.',
            '"Just one time," {N} whispered. "Then I will put it back."',
        ),
        attempt=(
            "{N} took the {x} with both hands. It was fun for a while. But then it fell down with a loud sound.",
            "{He} held the {x} up high and turned around. Then {he} slipped, and the {x} broke.",
            "{N} ran around with the {x}. Then {he} bumped into the table, and a part of the {x} came off.",
            "{He} was not careful at all. Soon the {x} was dirty, and it had a big crack.",
        ),
        turn=(
            "{N} wanted to hide it under the bed. But {his} tummy hurt, and {he} knew that it was wrong.",
            "{N} was scared. {He} thought for a long time. Then {he} went to {h} and told the truth.",
            "{H} came in and saw it. {N} looked down and said, \"I am so sorry. I did it.\"",
            "{N} began to cry. {F} held {his} hand, and they went to {h} to say sorry.",
        ),
        solve=(
            "{H} was not angry for long. {Hhe} was glad that {N} had told the truth. Together they fixed the {x}.",
            "{H} gave {N} a hug. \"Thank you for being honest,\" {hhe} said. Then they cleaned up together.",
            "{N} helped to mend the {x} with glue. After that, {he} always asked first.",
        ),
        bad=(
            "But the {x} could not be fixed. {H} was very sad, and {N} had to go to bed early.",
            "{H} did not smile that day. The {x} was thrown away, and {N} wished that {he} had listened.",
        ),
        moral=("tell the truth", "say sorry when we do something wrong", "listen to the people who care for us"),
        told=("breaks a rule and takes {ax}", "must not touch {ax} but does it anyway"),
        happy=("says sorry in the end", "tells the truth"), sad=("cannot make it whole again",),
    ),
    Plot(
        name="contest", kinds=("thing",),
        want=(
            "{day}, there was a big race {p}. The winner would get {ax}. {N} wanted to win it.",
            "{day}, {N} heard about a contest {p}. The prize was {ax}. {F} wanted the prize too.",
            "There was a fair {p}. At one table, the best singer could win {ax}. {N} wanted to try.",
            "{day}, the teacher held up {ax}. \"This is for the one who does the best job,\" said the teacher. {N} could not wait to begin.",
        ),
        talk=(
            '"I will win," said {N}. "We will see," said {F}. "May the best one win!"',
            '"I am too slow," said {N}. "You can do it," said {h}. "Just do your best."',
            '"Are you ready?" asked {F}. "I am ready," said {N}, "but my legs are shaking."',
        ),
        attempt=(
            "{N} practiced every day. At first {he} was not good at all, but {he} did not stop.",
            "The contest began. {N} tried so hard that {his} face turned red.",
            "{N} was behind all the others. {He} wanted to stop, but then {he} thought of the {x}.",
            "Everyone looked at {N}. {He} took a deep breath and began.",
        ),
        turn=(
            "Then {F} fell down and could not get up. {N} stopped and helped {fhim}.",
            "Near the end, {N} heard {h} call out {his} name. {He} felt strong again.",
            "In the middle of it, {N} made a mistake. {He} did not cry. {He} smiled and went on.",
            "The others were fast and strong, but they got tired. {N} went on, step by step.",
        ),
        solve=(
            "In the end, {N} got the prize. {He} held the {x} up high, and everyone cheered.",
            "{N} was so surprised when {he} heard {his} name. The {x} was {his} prize!",
            "{N} and {F} both did so well that they got the {x} together. They danced with joy.",
        ),
        bad=(
            "But {N} did not win. Someone else took the {x} home, and {N} walked home alone in the rain.",
            "But {N} came in last. {He} saw the {x} go to another child, and {he} cried all the way home.",
        ),
        moral=("do our best and not give up", "be kind, even in a race", "practice when something is hard"),
        told=("wants to win {ax}", "joins a contest for {ax}"), happy=("wins the prize", "wins by trying hard"), sad=("does not win it",),
    ),
    Plot(
        name="honest finder", kinds=("thing",),
        want=(
            "{day}, {N} was walking {p} when {he} saw {ax} on the ground. Nobody was there. {N} picked it up.",
            "{day}, {N} and {F} were {p}. Something was hidden in the grass. It was {ax}!",
            "{day}, {N} sat down on a bench {p}. Next to {him} was {ax}. Someone had left it there.",
            "On the way {to}, {N} found {ax}. {He} had always wanted one.",
        ),
        talk=(
            '"It is so nice! Can I keep it?" asked {N}. "But someone may miss it," said {F}.',
            '"Who does this {x} belong to?" {N} asked {h}. "I do not know," said {h}. "Let us find out."',
            '"Finders keepers!" said {N}. "Hmm," said {F}. "Is that fair?"',
        ),
        attempt=(
            "{N} wanted to keep the {x}. But {he} thought about the one who had lost it.",
            "{N} asked at every door. Some people shook their heads, and some did not open.",
            "{He} put the {x} in {his} bag and looked around. {His} heart was beating fast.",
            "{N} took it home. But that night, {he} could not sleep.",
        ),
        turn=(
            "Then {N} saw an old lady with a sad face. She was looking for something on the ground.",
            "The next morning, {N} met a little girl who was crying. She had lost something dear to her.",
            "Then a small boy came along the road. \"Did anyone see my {x}?\" he asked everyone.",
            "Soon they met a man who looked left and right. He had lost something, and he was very sad.",
        ),
        solve=(
            "{N} held out the {x}. \"Is this yours?\" {he} asked. There was a big smile and a big thank you.",
            "{N} gave the {x} back at once. To say thank you, they all ate warm cookies together.",
            "{N} gave back the {x}. It was hard, but it felt good. {He} had a new friend now.",
        ),
        bad=(
            "But {N} ran away and kept the {x}. After that, {he} could not be happy with it. {He} felt bad every time {he} saw it.",
            "But {N} hid the {x} and said nothing. Soon everyone knew it, and nobody wanted to play with {him}.",
        ),
        moral=("be honest", "give back what is not ours", "do the right thing when nobody sees us"),
        told=("finds {ax}", "finds {ax} that belongs to someone else"), happy=("gives it back", "does the right thing"),
        sad=("keeps it and feels bad",),
    ),
)  # fmt: skip
