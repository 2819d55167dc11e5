//! A world small enough to learn on a laptop: coloured shapes that move, each clip with the caption that says so.

use super::Size;
use super::choice::{below, between};
use crate::clip::Clip;
use crate::frame::Frame;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

/// Samples per pixel side: 16 per pixel make edges smooth.
const SAMPLES: usize = 4;

type Rgb = [u8; 3];

/// Colours of shapes and backgrounds, by name. Far enough apart to be told from each other after the VAE.
pub const COLOURS: [(&str, Rgb); 8] = [
    ("red", [220, 40, 40]),
    ("green", [40, 170, 70]),
    ("blue", [45, 85, 215]),
    ("yellow", [240, 205, 50]),
    ("purple", [140, 60, 180]),
    ("orange", [240, 130, 35]),
    ("white", [240, 240, 240]),
    ("black", [25, 25, 25]),
];

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
    /// To about twice its size, in place.
    Growing,
    /// Not at all.
    Still,
}

/// What it moves over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Background {
    /// One colour.
    Plain,
    /// Slanting stripes of two shades.
    Striped,
    /// A chequerboard of two shades.
    Checkered,
}

/// All that a clip shows. [`Scene::draw`] makes one up; the fields may be set to anything else before rendering.
#[derive(Clone, Debug, PartialEq)]
pub struct Scene {
    /// What moves.
    pub shape: Shape,
    /// Index of its colour in [`COLOURS`].
    pub colour: usize,
    /// How it moves.
    pub motion: Motion,
    /// What it moves over.
    pub background: Background,
    /// Index of the background's colour in [`COLOURS`], not `colour`.
    pub background_colour: usize,
    /// Half the shape's size, as a share of the picture's shorter side.
    pub radius: f64,
    /// The shape's place across the motion, 0 to 1 of the picture.
    pub offset: f64,
    /// The shape's place along the motion, 0 to 1 of the picture, at the first and the last frame.
    pub travel: (f64, f64),
}

impl Scene {
    /// The scene number `index` of `seed`.
    pub fn draw(seed: u64, index: u64) -> Scene {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        key[8..16].copy_from_slice(&index.to_le_bytes());
        key[16..22].copy_from_slice(b"shapes");
        let random = &mut ChaCha8Rng::from_seed(key);
        let colour = below(random, COLOURS.len() as u64) as usize;
        let other = 1 + below(random, COLOURS.len() as u64 - 1) as usize;
        let radius = between(random, 0.13, 0.2);
        Scene {
            shape: pick(random, [Shape::Circle, Shape::Square, Shape::Triangle]),
            colour,
            motion: pick(
                random,
                [Motion::Left, Motion::Right, Motion::Up, Motion::Down, Motion::Growing, Motion::Still],
            ),
            background: pick(random, [Background::Plain, Background::Striped, Background::Checkered]),
            background_colour: (colour + other) % COLOURS.len(),
            radius,
            offset: between(random, radius + 0.06, 0.94 - radius),
            travel: (between(random, radius, radius + 0.08), between(random, 0.92 - radius, 1.0 - radius)),
        }
    }

    /// Such as "a red circle moving left on a striped blue background".
    pub fn caption(&self) -> String {
        let shape = match self.shape {
            Shape::Circle => "circle",
            Shape::Square => "square",
            Shape::Triangle => "triangle",
        };
        let motion = match self.motion {
            Motion::Left => "moving left",
            Motion::Right => "moving right",
            Motion::Up => "moving up",
            Motion::Down => "moving down",
            Motion::Growing => "growing",
            Motion::Still => "standing still",
        };
        let background = match self.background {
            Background::Plain => "",
            Background::Striped => "striped ",
            Background::Checkered => "checkered ",
        };
        let (colour, _) = COLOURS[self.colour];
        let (behind, _) = COLOURS[self.background_colour];
        format!("{} {colour} {shape} {motion} on a {background}{behind} background", article(colour))
    }

    /// The scene as `frames` frames of `size`, shown `fps` times a second.
    pub fn render(&self, size: Size, frames: usize, fps: f64) -> Clip {
        let frame = |index: usize| {
            let time = if frames > 1 { index as f64 / (frames - 1) as f64 } else { 0.5 };
            self.frame(size, time)
        };
        Clip { frames: (0..frames).map(frame).collect(), fps }
    }

    /// The scene at `time`, 0 to 1.
    fn frame(&self, size: Size, time: f64) -> Frame {
        let (width, height) = (size.width as f64, size.height as f64);
        let short = width.min(height);
        let (x, y, radius) = self.place(time);
        let mut rgb = Vec::with_capacity(3 * size.width * size.height);
        for row in 0..size.height {
            for column in 0..size.width {
                let mut sum = [0u32; 3];
                for sample in 0..SAMPLES * SAMPLES {
                    let px = column as f64 + ((sample % SAMPLES) as f64 + 0.5) / SAMPLES as f64;
                    let py = row as f64 + ((sample / SAMPLES) as f64 + 0.5) / SAMPLES as f64;
                    let (dx, dy) = ((px - x * width) / (radius * short), (py - y * height) / (radius * short));
                    let colour = if self.shape.covers(dx, dy) {
                        COLOURS[self.colour].1
                    } else {
                        self.behind(px / short, py / short)
                    };
                    (0..3).for_each(|c| sum[c] += u32::from(colour[c]));
                }
                let count = (SAMPLES * SAMPLES) as u32;
                rgb.extend(sum.map(|total| ((total + count / 2) / count) as u8));
            }
        }
        Frame { width: size.width, height: size.height, rgb }
    }

    /// Centre, as shares of width and height, and radius of the shape.
    fn place(&self, time: f64) -> (f64, f64, f64) {
        let (from, to) = self.travel;
        let along = from + (to - from) * time;
        match self.motion {
            Motion::Right => (along, self.offset, self.radius),
            Motion::Left => (1.0 - along, self.offset, self.radius),
            Motion::Down => (self.offset, along, self.radius),
            Motion::Up => (self.offset, 1.0 - along, self.radius),
            Motion::Growing => (0.5, 0.5, self.radius * (0.8 + 1.4 * time)),
            Motion::Still => (self.offset, 0.5, self.radius),
        }
    }

    /// The background's colour at a place measured in shorter sides.
    fn behind(&self, x: f64, y: f64) -> Rgb {
        let colour = COLOURS[self.background_colour].1;
        let darker = match self.background {
            Background::Plain => false,
            Background::Striped => ((x + y) * 8.0).rem_euclid(2.0) < 1.0,
            Background::Checkered => ((x * 6.0).floor() + (y * 6.0).floor()).rem_euclid(2.0) < 1.0,
        };
        if darker { shade(colour) } else { colour }
    }
}

impl Shape {
    /// Whether the shape of radius 1 around the origin covers a point. Down is positive.
    fn covers(self, x: f64, y: f64) -> bool {
        match self {
            Shape::Circle => x * x + y * y <= 1.0,
            Shape::Square => x.abs() <= 0.9 && y.abs() <= 0.9,
            // Corners on the circle of radius 1.1; its three sides lie at half of that from the centre.
            Shape::Triangle => {
                let inner = 0.55;
                let slope = 3f64.sqrt() / 2.0;
                y <= inner && x * slope - y * 0.5 <= inner && -x * slope - y * 0.5 <= inner
            }
        }
    }
}

fn pick<T: Copy, const N: usize>(random: &mut ChaCha8Rng, from: [T; N]) -> T {
    from[below(random, N as u64) as usize]
}

fn article(word: &str) -> &'static str {
    if word.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" }
}

/// A shade that stays recognisably the same colour; black gets lighter.
fn shade(colour: Rgb) -> Rgb {
    if colour.iter().all(|c| *c < 64) { colour.map(|c| c + 45) } else { colour.map(|c| (u32::from(c) * 7 / 10) as u8) }
}
