"""Caption-like English text from a small grammar; the training text of the golden tokenizer."""

import random

COLOURS = "red green blue yellow orange purple pink black white grey brown golden silver cyan magenta turquoise crimson violet beige teal".split()
SHAPES = "circle square triangle star ball cube sphere ring cross diamond hexagon rectangle arrow spiral dot line box cone cylinder pyramid".split()
ANIMALS = "cat dog horse bird fish rabbit fox bear wolf lion tiger elephant monkey owl eagle dolphin whale turtle butterfly bee deer sheep cow penguin panda".split()
PEOPLE = "man woman girl boy child dancer runner painter chef musician soldier astronaut robot knight princess".split()
PLACES = ("forest beach mountain valley river lake ocean desert city street garden field meadow waterfall canyon island village bridge "
          "castle kitchen library harbor park sunset sunrise skyline glacier cave volcano jungle").split()
MOTIONS = ("moving running walking flying swimming jumping dancing spinning rotating rolling falling rising drifting floating bouncing "
           "sliding growing shrinking turning waving burning flowing blooming melting exploding").split()
DIRECTIONS = ["to the left", "to the right", "upwards", "downwards", "in a circle", "towards the camera", "away from the camera",
              "across the screen", "from left to right", "from right to left", "diagonally", "slowly", "quickly", "back and forth"]
CAMERA = ["zoom in", "zoom out", "pan left", "pan right", "tilt up", "tilt down", "rolling clockwise", "rolling anticlockwise",
          "static camera", "handheld camera", "drone view", "aerial view", "close up", "wide shot", "tracking shot", "time lapse", "slow motion"]
LIGHT = ["at night", "at dawn", "in the rain", "in the snow", "under the stars", "in bright sunlight", "with soft light", "in thick fog",
         "with dramatic lighting", "on a cloudy day", "during a storm", "at golden hour", "in the moonlight"]
STYLES = ["photorealistic", "cinematic", "highly detailed", "masterpiece", "best quality", "oil painting", "watercolor", "cartoon style",
          "anime", "pixel art", "8k uhd", "film grain", "depth of field", "sharp focus", "bokeh", "black and white", "low poly", "realistic"]
BAD = ["worst quality", "low quality", "blurry", "bad anatomy", "extra fingers", "deformed", "watermark", "text", "jpeg artifacts",
       "cropped", "ugly", "semi realistic", "cgi", "sketch", "easynegative", "bad hands", "out of frame", "duplicate", "nsfw", "lowres"]
COMMON = """the of and to in a is that for it as was with be by on not he his but at are this have from or had an they which one you were all
her she there would their we him been has when who will no more if out so what up said its about than into them can only other time new some
could these two may first then do any like my now over such our man me even most made after also did many before must well back through years
where much your way down should because long each just state those people too little good world very make year still see own work men day here
life being both between under never know same last another while us off might great old go come since against right came take used himself few
house use place during high without again home around small however found part school every does got number away something fact though water
less public put think almost hand enough far head yet better set told nothing night end why called look going face light side eyes things asked
within room word young several present order keep country room white morning window beautiful computer picture frame camera video image sound
music color style detail motion smooth gentle wind cloud storm fire smoke dust sand stone rock wood metal glass paper cloth silk leather hair
eye mouth nose hand finger foot leg arm shoulder dress shirt hat coat shoe flower tree leaf grass branch root seed apple banana bread coffee
tea cup plate table chair door wall floor roof car truck train plane boat ship bicycle wheel engine road path rail station tower building""".split()
MORE = """ancient autumn winter spring summer evening afternoon midnight twilight shadow bright dark pale vivid vibrant colorful transparent shiny
glossy rough rusty dusty wooden metallic golden frozen snowy rainy sunny windy foggy misty stormy peaceful quiet crowded empty abandoned modern
futuristic vintage retro classic elegant delicate intricate ornate minimal abstract surreal fantasy medieval steampunk cyberpunk gothic baroque
portrait landscape panorama silhouette reflection texture pattern gradient contrast exposure focus lens focal length shutter aperture composition
perspective symmetry horizon foreground middle background animation animated render rendering unreal engine octane illustration drawing painting
pencil charcoal sculpture statue marble bronze ceramic crystal diamond emerald ruby sapphire pearl feather fur scale shell horn wing tail claw
dragon unicorn phoenix mermaid wizard witch fairy angel demon ghost zombie vampire pirate ninja samurai cowboy detective doctor nurse teacher
student farmer fisherman sailor pilot driver athlete swimmer skier surfer climber cyclist guitarist pianist violin guitar piano drum trumpet
orchestra concert festival parade wedding birthday christmas halloween firework lantern candle torch campfire fireplace chimney balcony window
curtain carpet pillow blanket mirror lamp clock bookshelf telephone keyboard laptop television microphone telescope microscope satellite rocket
spaceship planet moon galaxy nebula comet asteroid universe universe gravity electricity lightning thunder rainbow aurora hurricane tornado
avalanche earthquake glacier iceberg penguin squirrel hedgehog raccoon otter beaver badger moose reindeer antelope giraffe zebra hippo rhinoceros
crocodile lizard snake frog salamander spider scorpion beetle dragonfly mosquito ant worm snail octopus jellyfish seahorse starfish lobster crab
shrimp salmon shark strawberry blueberry cherry peach orange lemon grape melon pineapple mango coconut tomato potato carrot onion pepper mushroom
pumpkin cucumber lettuce spinach broccoli sandwich hamburger pizza noodle sushi cheese butter chocolate cookie pancake icecream honey sugar salt""".split()
CONTRACTIONS = ["it's", "don't", "we're", "I'm", "they've", "she'll", "he'd", "the cat's", "can't", "that's"]


def thing(pick):
    return pick([
        lambda: f"{pick(COLOURS)} {pick(SHAPES)}",
        lambda: f"{pick(COLOURS)} {pick(ANIMALS)}",
        lambda: pick(ANIMALS),
        lambda: f"{pick(['young', 'old', 'beautiful', 'smiling', 'tiny', 'giant'])} {pick(PEOPLE)}",
    ])()


def sentence(rng):
    """One caption or prompt."""
    pick = rng.choice
    return pick([
        lambda: f"a {thing(pick)} {pick(MOTIONS)} {pick(DIRECTIONS)} on a {pick(COLOURS)} background",
        lambda: f"a {thing(pick)} is {pick(MOTIONS)} {pick(DIRECTIONS)} near the {pick(PLACES)}, {pick(LIGHT)}",
        lambda: f"{pick(CAMERA)}, {pick(PLACES)} {pick(LIGHT)}, {pick(STYLES)}, {pick(STYLES)}",
        lambda: f"the {thing(pick)} and the {thing(pick)} are {pick(MOTIONS)} in the {pick(PLACES)}. {pick(STYLES)}!",
        lambda: f"{pick(STYLES)}, portrait of a {thing(pick)} in a {pick(PLACES)} ({pick(STYLES)}:1.{rng.randrange(10)})",
        lambda: ", ".join(rng.sample(BAD, 4)),
        lambda: f"{pick(CONTRACTIONS)} {pick(MOTIONS)} {pick(DIRECTIONS)}, {rng.randrange(2, 64)} {pick(ANIMALS)}s",
        lambda: " ".join(rng.choices(COMMON, k=8)),
    ])()


def corpus(sentences=6000, seed=20240717):
    rng = random.Random(seed)
    lines = [sentence(rng) for _ in range(sentences)]
    # Every word of every list occurs at least a few times.
    lists = [COLOURS, SHAPES, ANIMALS, PEOPLE, PLACES, MOTIONS, DIRECTIONS, CAMERA, LIGHT, STYLES, BAD, COMMON, MORE, CONTRACTIONS]
    return lines + [" ".join(words) for words in lists] * 3
