"""Plots about meeting somebody, animal or grown-up. Pure tables; how they are read stands in plot.py."""
# ruff: noqa: E501 - a table of sentences: one sentence a line reads better than one cut in two

from lib.text.storyteller.plot import Plot

PLOTS = (
    Plot(
        name="new friend", kinds=("animal", "person"),
        want=(
            "{day}, {N} met {ax} {p}. The {x} was all alone and had no one to play with.",
            "{N} was new {p} and had no friends there yet. {day}, {he} saw {ax}. The {x} looked at {him} and did not say a word.",
            "{day}, {ax} came to live next door. {N} wanted to be friends, but {he} was very shy.",
            "{day}, everyone was playing {p}. Only {ax} stood under a tree and watched. {N} saw it.",
        ),
        talk=(
            '"Hello! I am {N}," said {N}. "Do you want to play with me?" The {x} looked up and smiled.',
            '"Why are you alone?" asked {N}. "I do not have a friend," said the {x}.',
            '"Can I sit here?" asked {N}. "Yes, please," said the {x} in a very soft voice.',
        ),
        attempt=(
            "At first, {N} did not know what to say. {He} looked at {his} feet.",
            "Some others laughed and ran away. But {N} stayed.",
            "{N} wanted to play ball, but the {x} did not know how.",
            "{N} waved. The {x} took one step back.",
        ),
        turn=(
            "Then {N} took out two cookies and gave one to the {x}. They were good cookies.",
            "Then {N} made a funny face. The {x} began to laugh and could not stop.",
            "Then {N} showed the {x} {his} best game. They played it again and again.",
            "Just then, it began to rain. They ran under the same big leaf and sat close together.",
        ),
        solve=(
            "When the sun went down, they did not want to go home. They met again the next day, and the day after.",
            "From then on, {N} and the {x} did everything together.",
            "{N} ran home and called, \"I have a new friend!\" {H} was very glad.",
        ),
        bad=(
            "But the next day, the {x} had to move far away. {N} stood {p} and waved until it was dark. {He} was alone again.",
            "But {N} said something mean by mistake. The {x} ran away and never came back.",
        ),
        moral=("be kind to those who are alone", "say hello to somebody new", "be a good friend"),
        told=("meets {ax} who is all alone", "wants to be friends with {ax}"), happy=("makes a new friend", "finds out how nice a new friend is"),
        sad=("has to say goodbye",),
    ),
    Plot(
        name="helping", kinds=("animal", "person"),
        want=(
            "{day}, {N} was {p} when {he} heard a cry for help. It was {ax} with a foot stuck under a big log.",
            "{day}, {N} saw {ax} {p}. The {x} had fallen into a hole and could not get out.",
            "{day}, {N} and {F} met {ax} {p}. The {x} was hurt and could not walk.",
            "On the way {to}, {N} saw {ax} in the cold water. The {x} could not get back to the shore.",
        ),
        talk=(
            '"Please help me!" said the {x}. "Do not worry," said {N}. "I am here."',
            '"What happened to you?" asked {N}. "I was not careful," said the {x}. "It hurts so much."',
            '"I am too small to help," said {N}. "You are not too small," said the {x}. "Please try."',
        ),
        attempt=(
            "{N} pulled and pulled, but {he} was not strong enough.",
            "{He} looked for a rope, but there was no rope.",
            "{N} called out loud for {h}. Nobody could hear {him}.",
            "{N} tried to lift the {x}, but the {x} was too heavy.",
        ),
        turn=(
            "Then {N} found a long stick. {He} pushed it with all {his} might. At last, the {x} was free!",
            "Then {N} ran to get {h}. {Hhe} came at once, and together they got the {x} out.",
            "Then {N} had a clever plan. {He} made a long chain out of {his} clothes, and the {x} held on to it.",
            "{N} asked all the friends {p} to come. They pulled together, one, two, three, and the {x} was safe!",
        ),
        solve=(
            "The {x} was so thankful. \"You saved me,\" said the {x} and gave {N} a big hug.",
            "{N} put a soft cloth on the sore spot. Soon the {x} could smile again.",
            "They went home together and had hot soup. The {x} never forgot what {N} had done.",
        ),
        bad=(
            "But it got too cold and too dark. {N} had to go home, and nobody saw the {x} again. {N} was sad for a long time.",
            "But {N} was too scared and ran away. Later {he} came back, and the {x} was gone.",
        ),
        moral=("help those who need us", "be brave for others", "remember that even the small can do big things"),
        told=("hears the cry of {ax}", "sees {ax} who needs help"), happy=("saves the day", "helps with all {his} might"),
        sad=("cannot help in the end",),
    ),
    Plot(
        name="lost one", kinds=("animal", "person"),
        want=(
            "{day}, {N} heard someone cry behind a bush {p}. It was {ax}. \"I am lost,\" said the {x}.",
            "{day}, {ax} sat in front of the door. The {x} did not know the way home.",
            "{day}, {N} was {p} with {F}. They saw {ax} who walked around and around. The {x} could not find the way.",
            "It was late when {N} met {ax} {p}. The {x} had lost {xis} family.",
        ),
        talk=(
            '"Where do you live?" asked {N}. "By a tall tree with a swing," said the {x}.',
            '"Do not be afraid," said {N}. "I will take you home." "Thank you," said the {x}.',
            '"Which way did you come?" asked {F}. "I cannot remember," said the {x} and began to cry.',
        ),
        attempt=(
            "They went left, but the road ended. They went right, but there was only water.",
            "They asked a bird, but the bird only sang and flew away.",
            "{N} climbed up a hill to look around. There was too much mist.",
            "They walked for a long time. The {x} got more and more tired.",
        ),
        turn=(
            "Then {N} saw small steps in the mud. They followed the steps.",
            "Then {N} had an idea. They all stood still and listened. Far away, someone was calling a name.",
            "Then {h} came with a lamp. {Hhe} knew the place very well.",
            "Then the {x} saw a red roof behind the trees. \"That is it! That is my home!\" said the {x}.",
        ),
        solve=(
            "The family of the {x} came out and hugged everyone. They gave {N} a big piece of cake.",
            "The {x} was home at last. {N} waved goodbye and walked home with a warm heart.",
            "\"You can come and visit any time,\" said the {x}. And {N} did, the very next day.",
        ),
        bad=(
            "But night came, and they got lost too. They had to wait in the cold until morning, and everyone was crying.",
            "But they could not find the home of the {x}. In the end, the {x} walked away alone, and {N} never saw {xim} again.",
        ),
        moral=("help those who are lost", "stay calm and listen", "stay with those who need us"),
        told=("meets {ax} who is lost", "finds {ax} far from home"), happy=("shows the way home", "brings the lost one home"),
        sad=("cannot find the way",),
    ),
    Plot(
        name="not so scary", kinds=("animal", "person"),
        want=(
            "Everyone {p} was afraid of {ax}. They said that the {x} was mean. {day}, {N} met the {x}.",
            "{day}, {N} heard a loud noise {p}. It came from {ax}. {N} had never seen such a big {x} before.",
            "There was {ax} who lived alone {p}. {N} always ran past. But {day_low}, {his} ball fell right in front of the {x}.",
            "{F} told {N} about {ax} {p}. \"Never go there,\" {fhe} said. But {day_low}, {N} had to go that way.",
        ),
        talk=(
            '"Are you going to hurt me?" asked {N}. "No," said the {x}. "Why does everyone think so?"',
            '"Go away!" shouted {N}. "I only want to say hello," said the {x}.',
            '"Please let me go by," said {N}. "Of course," said the {x}. "But will you stay a little?"',
        ),
        attempt=(
            "{N} wanted to run, but {his} legs did not move.",
            "{He} hid behind a tree and held {his} breath.",
            "{N} took a step, and then another. The {x} looked right at {him}.",
            "{His} heart beat fast. The {x} came closer and closer.",
        ),
        turn=(
            "But the {x} only wanted to give {him} a flower. The {x} was not mean at all.",
            "Then {N} saw a tear in the eye of the {x}. The {x} was sad because nobody came to visit.",
            "Then the {x} sat down and began to sing. It was the most lovely song in the world.",
            "Then {N} fell over a root. The {x} helped {him} up and was very gentle.",
        ),
        solve=(
            "They talked until it was dark. {N} told everyone how nice the {x} was.",
            "{N} came back the next day with {F}. Soon nobody was afraid anymore.",
            "{N} smiled, and the {x} smiled too. It was the start of a good friendship.",
        ),
        bad=(
            "But {N} did not wait. {He} ran away and shouted. After that, the {x} was alone again, and nobody came.",
            "But the others came and threw stones. The {x} had to leave, and {N} felt very bad.",
        ),
        moral=("look at the heart and not at the face", "be kind before we judge", "give everyone a chance"),
        told=("is afraid of {ax}", "meets {ax} whom nobody likes"), happy=("finds out that there is no need to be afraid", "finds a friend there"),
        sad=("runs away too soon",),
    ),
    Plot(
        name="hungry guest", kinds=("animal", "person"),
        want=(
            "{N} had a big pie for lunch. {day}, the pie was gone! There were crumbs on the floor. They led to {ax}.",
            "Every night, some bread was missing from the kitchen. {day}, {N} hid behind the door and saw {ax} come in.",
            "{day}, {N} sat down {p} to eat a sandwich. {ax_cap} came along and looked at it with big eyes.",
            "{day}, {N} and {F} had a picnic {p}. When they looked away, {ax} took all the apples.",
        ),
        talk=(
            '"Did you take my food?" asked {N}. "Yes," said the {x}. "I am sorry. I was so hungry."',
            '"That is not yours!" said {N}. The {x} looked down. "I have not had food for two days," said the {x}.',
            '"Are you hungry?" asked {N}. "Very hungry," said the {x}.',
        ),
        attempt=(
            "{N} was angry. {He} wanted to call {h}.",
            "{N} thought about it. {He} was hungry too.",
            "{He} saw how thin the {x} was. Now {he} did not know what to do.",
            "The {x} began to shake and wanted to run away.",
        ),
        turn=(
            "Then {N} cut the rest in two and gave one half to the {x}.",
            "Then {N} went to the kitchen and came back with a bowl of warm soup.",
            "Then {N} said, \"You can eat with us. But next time, please ask.\"",
            "{N} opened {his} bag and took out all that was left. \"Here, this is for you,\" {he} said.",
        ),
        solve=(
            "The {x} ate it all up and gave a happy sigh. The next day, the {x} brought {N} a basket of berries.",
            "They sat side by side and ate. It tasted better than any lunch before.",
            "The {x} was full and happy. From then on, there was always one more plate on the table.",
        ),
        bad=(
            "But {N} sent the {x} away. It was a cold night, and {N} could not stop thinking of those hungry eyes.",
            "But the {x} took the rest too and ran off. {N} was hungry and sad that day.",
        ),
        moral=("share food with the hungry", "ask before we take", "try to understand others"),
        told=("finds out that {ax} takes the food", "meets {ax} who is very hungry"), happy=("shares a meal", "gives food with a kind heart"),
        sad=("ends up hungry and sad",),
    ),
    Plot(
        name="teacher of a skill", kinds=("animal", "person"),
        want=(
            "{N} could not swim. {day}, {he} met {ax} by the water. The {x} could swim very well.",
            "{N} wanted to dance, but {he} always fell over {his} own feet. {day}, {he} saw {ax} who danced {p}.",
            "{N} could not whistle. {day}, {he} heard {ax} whistle a lovely tune {p}.",
            "Everyone could ride a bike but {N}. {day}, {ax} saw {him} fall {p}.",
        ),
        talk=(
            '"Can you teach me?" asked {N}. "I can," said the {x}. "But you must try every day."',
            '"I will never learn it," said {N}. "I said that too, long ago," said the {x}.',
            '"What is your secret?" asked {N}. "I have no secret," said the {x}. "I just did not stop."',
        ),
        attempt=(
            "The first day was very hard. {N} wanted to go home.",
            "{N} tried it and fell. {F} laughed, and {N} turned red.",
            "{N} tried ten times, and ten times it went wrong.",
            "{He} did it too fast, and then {he} did it too slow.",
        ),
        turn=(
            "The {x} told {him} to close {his} eyes and feel the wind. Now it was much easier.",
            "The {x} did it very slowly, and {N} did the same. Bit by bit, it got better.",
            "The {x} stayed close. \"Do not look down,\" said the {x}. \"Look at me.\"",
            "On the third day, the {x} let go without a word. {N} did it all alone!",
        ),
        solve=(
            "{N} was so proud. {He} showed it to {h}, and {h} clapped.",
            "\"I can do it! I can do it!\" {N} called. The {x} was proud too.",
            "Soon {N} was so good that {he} could teach {F} as well.",
        ),
        bad=(
            "But {N} did not want to wait. {He} tried it alone, fell and hurt {his} arm. That was the end of it.",
            "But {N} gave up. The {x} went away, and {N} never learned it.",
        ),
        moral=("practice every day", "learn from others", "be patient with ourselves"),
        told=("wants to learn from {ax}", "gets help from {ax}"), happy=("learns something new", "learns it by trying every day"),
        sad=("gives up",),
    ),
)  # fmt: skip
