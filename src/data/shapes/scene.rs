//! What a clip shows, and how it is said.

use std::{collections::BTreeSet, f64::consts::PI};

use rand_chacha::ChaCha8Rng;

use super::super::choice::{below, between, random_of};

type Rgb = [u8; 3];

/// Colours of shapes, by name: saturated, and far enough apart to be told from each other after the VAE.
pub const COLOURS: [(&str, Rgb); 6] = [
    ("red", [220, 40, 40]),
    ("green", [40, 170, 70]),
    ("blue", [45, 85, 215]),
    ("yellow", [240, 205, 50]),
    ("purple", [150, 50, 190]),
    ("cyan", [60, 205, 215]),
];

/// Tones of backgrounds, by name: without colour, so that shapes stand out by theirs.
pub const TONES: [(&str, Rgb); 3] = [("white", [222, 222, 222]), ("grey", [128, 128, 128]), ("black", [36, 36, 36])];

/// Where a shape is: in the middle, or towards the edge that is nearest.
const PLACES: [&str; 5] = ["in the middle", "on the left", "on the right", "high up", "low down"];

/// From how far and how near stills are seen: shapes and textures are so many times as large.
const FAR: f64 = 0.7;
const NEAR: f64 = GROWTH;

/// How many times its size a shape grows to.
const GROWTH: f64 = 1.8;

/// How far textures are turned either way, in radians.
const TURN: f64 = PI / 6.0;

/// How far textures are shifted at most: five periods of the chequers and six of the stripes, so that any part of a period is as
/// likely.
const SHIFT: f64 = 2.0;

/// What moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A disc.
    Circle,
    /// An upright square.
    Square,
    /// An equal-sided triangle, one corner up.
    Triangle,
}

/// How it moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Motion {
    /// Towards the left edge.
    Left,
    /// Towards the right edge.
    Right,
    /// Towards the upper edge.
    Up,
    /// Towards the lower edge.
    Down,
    /// To 1.8 times its size, in place.
    Growing,
    /// Not at all.
    Still,
}

/// What it moves over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Texture {
    /// One tone.
    Plain,
    /// Slanting stripes of two shades.
    Striped,
    /// A chequerboard of two shades.
    Checkered,
}

/// Which combinations of shape, colour and motion are drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Split {
    /// Those that are trained on: five of six.
    #[default]
    Seen,
    /// Those that are kept from training: one of six, the same number for every shape, colour and motion.
    HeldOut,
    /// All of them.
    All,
}

/// Where the shape is, and how large.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pose {
    /// Centre, 0 to 1 of the width.
    pub x: f64,
    /// Centre, 0 to 1 of the height.
    pub y: f64,
    /// Half its size, as a share of the shorter side.
    pub radius: f64,
}

/// How the background's texture lies: shifted, then scaled, then turned around the picture's centre.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ground {
    /// Turn in radians, clockwise as one sees it.
    pub turn: f64,
    /// How many times as coarse as usual it is.
    pub scale: f64,
    /// Which of its points lies at the picture's centre, in shorter sides of the picture at scale 1.
    pub shift: (f64, f64),
}

/// All that a clip shows. [`Scene::draw`] makes one up; the fields may be set to anything else before rendering.
#[derive(Clone, Debug, PartialEq)]
pub struct Scene {
    /// What moves.
    pub shape: Shape,
    /// Index of its colour in [`COLOURS`].
    pub colour: usize,
    /// Whether it is called big, or small.
    pub big: bool,
    /// How it moves.
    pub motion: Motion,
    /// What it moves over.
    pub texture: Texture,
    /// Index of the background's tone in [`TONES`].
    pub tone: usize,
    /// How the texture lies.
    pub ground: Ground,
    /// Where it is at the first frame and at the last.
    pub way: (Pose, Pose),
}

impl Shape {
    /// All of them.
    pub const ALL: [Shape; 3] = [Shape::Circle, Shape::Square, Shape::Triangle];

    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Shape::Circle => "circle",
            Shape::Square => "square",
            Shape::Triangle => "triangle",
        }
    }
}

impl Motion {
    /// All of them.
    pub const ALL: [Motion; 6] =
        [Motion::Left, Motion::Right, Motion::Up, Motion::Down, Motion::Growing, Motion::Still];

    /// The words for it. Where things go is said in words that a base of stills has read, of where they are.
    pub fn name(self) -> &'static str {
        match self {
            Motion::Left => "moving left",
            Motion::Right => "moving right",
            Motion::Up => "moving up",
            Motion::Down => "moving down",
            Motion::Growing => "growing",
            Motion::Still => "standing still",
        }
    }
}

impl Texture {
    /// All of them.
    pub const ALL: [Texture; 3] = [Texture::Plain, Texture::Striped, Texture::Checkered];

    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Texture::Plain => "plain",
            Texture::Striped => "striped",
            Texture::Checkered => "checkered",
        }
    }
}

impl Scene {
    /// The scene number `index` of `seed`, of the combinations that `split` allows.
    pub fn draw(seed: u64, index: u64, split: Split) -> Scene {
        let random = &mut random(seed, index);
        loop {
            let motion = pick(random, Motion::ALL);
            let scene = Scene::with(random, motion, 1.0);
            let wanted = match split {
                Split::Seen => !scene.held_out(),
                Split::HeldOut => scene.held_out(),
                Split::All => true,
            };
            if wanted {
                return scene;
            }
        }
    }

    /// The picture number `index` of `seed`: a scene in which nothing moves, the shape standing anywhere. About every third is
    /// seen from nearer or farther than clips are, so that a base can also paint what has grown, or what a camera came close to;
    /// what is called small is then large in the picture, or the other way round.
    pub fn still(seed: u64, index: u64) -> Scene {
        let random = &mut random(seed, index);
        let nearness = if below(random, 3) == 0 { between(random, FAR.ln(), NEAR.ln()).exp() } else { 1.0 };
        Scene::with(random, Motion::Still, nearness)
    }

    /// The picture number `index` of `seed` for a camera to move over: on chequers, which show all that it does (stripes look
    /// alike wherever they are shifted to along themselves); seen from as far as any still, and upright, so that a base of
    /// stills knows what the camera comes close to, and what it turns.
    pub fn vista(seed: u64, index: u64) -> Scene {
        let scene = Scene::with(&mut random(seed, index), Motion::Still, FAR);
        Scene { texture: Texture::Checkered, ground: Ground { turn: 0.0, ..scene.ground }, ..scene }
    }

    fn with(random: &mut ChaCha8Rng, motion: Motion, nearness: f64) -> Scene {
        let big = below(random, 2) == 1;
        let radius = nearness * if big { between(random, 0.19, 0.22) } else { between(random, 0.15, 0.17) };
        Scene {
            shape: pick(random, Shape::ALL),
            colour: below(random, COLOURS.len() as u64) as usize,
            big,
            motion,
            texture: pick(random, Texture::ALL),
            tone: below(random, TONES.len() as u64) as usize,
            ground: Ground {
                turn: between(random, -TURN, TURN),
                scale: nearness,
                shift: (between(random, 0.0, SHIFT), between(random, 0.0, SHIFT)),
            },
            way: way(random, motion, radius),
        }
    }

    /// Whether its shape, colour and motion come together in no clip of [`Split::Seen`].
    pub fn held_out(&self) -> bool {
        (self.shape as usize + self.colour + self.motion as usize).is_multiple_of(6)
    }

    /// What a video's caption says, such as "a small red circle moving left on a striped grey background".
    pub fn caption(&self) -> String {
        format!("{} {} {}", self.subject(), self.motion.name(), self.background())
    }

    /// What a still's caption says, such as "a small red circle on the left, on a striped grey background": where the
    /// shape is at the first frame, and nothing of motion.
    pub fn still_caption(&self) -> String {
        format!("{} {}, {}", self.subject(), self.place(), self.background())
    }

    /// The same without the place, as captions of people often leave something out.
    pub fn brief_caption(&self) -> String {
        format!("{} {}", self.subject(), self.background())
    }

    fn subject(&self) -> String {
        let size = if self.big { "big" } else { "small" };
        format!("a {size} {} {}", COLOURS[self.colour].0, self.shape.name())
    }

    fn background(&self) -> String {
        format!("on a {} {} background", self.texture.name(), TONES[self.tone].0)
    }

    fn place(&self) -> &'static str {
        let (dx, dy) = (self.way.0.x - 0.5, self.way.0.y - 0.5);
        match () {
            () if dx.abs().max(dy.abs()) < 0.1 => PLACES[0],
            () if dx.abs() > dy.abs() && dx < 0.0 => PLACES[1],
            () if dx.abs() > dy.abs() => PLACES[2],
            () if dy < 0.0 => PLACES[3],
            () => PLACES[4],
        }
    }

    /// The shape's place and size at `time`, from 0 (first frame) to 1 (last frame).
    pub fn pose(&self, time: f64) -> Pose {
        let (from, to) = self.way;
        let between = |from: f64, to: f64| from + (to - from) * time;
        Pose { x: between(from.x, to.x), y: between(from.y, to.y), radius: between(from.radius, to.radius) }
    }
}

/// All words of the captions of clips and stills.
pub fn words() -> BTreeSet<String> {
    let shapes = Shape::ALL.iter().map(|shape| shape.name());
    let motions = Motion::ALL.iter().map(|motion| motion.name());
    let textures = Texture::ALL.iter().map(|texture| texture.name());
    let colours = COLOURS.iter().chain(&TONES).map(|(name, _)| *name);
    let phrases =
        shapes.chain(motions).chain(textures).chain(colours).chain(PLACES).chain(["a big small on background"]);
    phrases.flat_map(|phrase| phrase.split(' ')).map(String::from).collect()
}

/// From where to where: always inside the picture. What moves along goes 0.33 to 0.42 of it, from about the middle to near the edge
/// that it moves towards. So a direction tells of places too, in the mean over a clip, and a network that knows places has a
/// slope to learn from; of ways whose middles are all alike, only the product of direction and time tells anything.
fn way(random: &mut ChaCha8Rng, motion: Motion, radius: f64) -> (Pose, Pose) {
    let largest = if motion == Motion::Growing { radius * GROWTH } else { radius };
    let place = |random: &mut ChaCha8Rng| between(random, largest, 1.0 - largest);
    let (x, y) = (place(random), place(random));
    let end = radius + between(random, 0.0, 0.07);
    let start = end + between(random, 0.33, 0.42);
    let pose = |x, y, radius| Pose { x, y, radius };
    let along = |from: f64, to: f64, horizontal: bool| {
        if horizontal {
            (pose(from, y, radius), pose(to, y, radius))
        } else {
            (pose(x, from, radius), pose(x, to, radius))
        }
    };
    match motion {
        Motion::Left => along(start, end, true),
        Motion::Right => along(1.0 - start, 1.0 - end, true),
        Motion::Up => along(start, end, false),
        Motion::Down => along(1.0 - start, 1.0 - end, false),
        Motion::Growing => (pose(x, y, radius), pose(x, y, largest)),
        Motion::Still => (pose(x, y, radius), pose(x, y, radius)),
    }
}

fn random(seed: u64, index: u64) -> ChaCha8Rng {
    random_of(seed, index, *b"shapes\0\0")
}

fn pick<T: Copy, const N: usize>(random: &mut ChaCha8Rng, from: [T; N]) -> T {
    from[below(random, N as u64) as usize]
}
