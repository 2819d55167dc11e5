//! Animated GIF.
//!
//! A GIF frame shows at most 256 colours. One palette serves the whole clip, because a palette of its own for every frame
//! makes still areas shimmer; for the same reason the colours in between are mixed by a fixed pattern of dots that stays
//! where it is, and not by passing errors on. A clip of 256 colours or fewer is written exactly.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use color_quant::NeuQuant;

use super::Clip;

/// Pixels shown to the palette's training, spread evenly over the clip.
const TRAINING_PIXELS: usize = 1 << 19;

/// Height of the dot pattern, in levels of 256: about the distance between neighbours of a good palette.
const DITHER: f32 = 12.0;

impl Clip {
    /// The clip as a GIF that loops for ever.
    pub fn gif(&self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.encode_gif(&mut bytes)?;
        Ok(bytes)
    }

    /// Writes the clip as a GIF that loops for ever.
    pub(super) fn write_gif(&self, path: &Path) -> Result<()> {
        let mut file = BufWriter::new(File::create(path).with_context(|| format!("cannot create {}", path.display()))?);
        self.encode_gif(&mut file)?;
        file.flush().with_context(|| format!("cannot write {}", path.display()))
    }

    fn encode_gif(&self, out: &mut impl Write) -> Result<()> {
        let (width, height) = self.size()?;
        let (width, height) = (side(width)?, side(height)?);
        let delays = delays(self.frames.len(), self.fps)?;
        let mut palette = Palette::of(self);
        let mut encoder = ::gif::Encoder::new(out, width, height, &palette.rgb)?;
        encoder.set_repeat(::gif::Repeat::Infinite)?;
        for (frame, delay) in self.frames.iter().zip(delays) {
            let indices = palette.apply(&frame.rgb, frame.width);
            let picture = ::gif::Frame { width, height, delay, buffer: indices.into(), ..Default::default() };
            encoder.write_frame(&picture)?;
        }
        Ok(())
    }
}

fn side(pixels: usize) -> Result<u16> {
    u16::try_from(pixels)
        .with_context(|| format!("a GIF cannot be {pixels} pixels wide or high; write .mp4 or a folder"))
}

/// GIF counts hundredths of a second. Rounding is carried over, so that the clip as a whole keeps its length.
fn delays(frames: usize, fps: f64) -> Result<Vec<u16>> {
    ensure!(
        (0.01..=50.0).contains(&fps),
        "a GIF shows 0.01 to 50 frames per second, not {fps}; choose another rate, or write .mp4 or .webp"
    );
    let moment = |index: usize| (index as f64 * 100.0 / fps).round() as u64;
    Ok((0..frames).map(|index| (moment(index + 1) - moment(index)) as u16).collect())
}

/// At most 256 colours, and how to find one for a pixel.
struct Palette {
    rgb: Vec<u8>,
    finder: Finder,
}

enum Finder {
    /// Every colour of the clip has its entry.
    Exact(HashMap<[u8; 3], u8>),
    /// The nearest entry by the upper six bits of each channel, filled as it is asked for.
    Nearest(Vec<Option<u8>>),
}

impl Palette {
    fn of(clip: &Clip) -> Palette {
        Palette::exact(clip).unwrap_or_else(|| Palette::trained(clip))
    }

    fn exact(clip: &Clip) -> Option<Palette> {
        let mut colours = HashMap::new();
        let mut rgb = Vec::new();
        for frame in &clip.frames {
            for pixel in frame.rgb.as_chunks::<3>().0 {
                if !colours.contains_key(pixel) {
                    colours.insert(*pixel, u8::try_from(colours.len()).ok()?);
                    rgb.extend_from_slice(pixel);
                }
            }
        }
        Some(Palette { rgb, finder: Finder::Exact(colours) })
    }

    fn trained(clip: &Clip) -> Palette {
        let pixels = clip.frames.iter().map(|frame| frame.rgb.len() / 3).sum::<usize>();
        let step = pixels.div_ceil(TRAINING_PIXELS).max(1);
        let all = clip.frames.iter().flat_map(|frame| frame.rgb.as_chunks::<3>().0);
        let sample: Vec<u8> = all.step_by(step).flat_map(|[r, g, b]| [*r, *g, *b, 255]).collect();
        let rgb = NeuQuant::new(1, 256, &sample).color_map_rgb();
        Palette { rgb, finder: Finder::Nearest(vec![None; 1 << 18]) }
    }

    /// The palette index of every pixel of a picture `width` pixels wide.
    fn apply(&mut self, rgb: &[u8], width: usize) -> Vec<u8> {
        let pixels = rgb.as_chunks::<3>().0;
        let palette = &self.rgb;
        match &mut self.finder {
            Finder::Exact(colours) => pixels.iter().map(|pixel| colours[pixel]).collect(),
            Finder::Nearest(cache) => {
                let at = |(index, pixel): (usize, &[u8; 3])| {
                    let pixel = dither(*pixel, index % width, index / width);
                    let key = pixel.iter().fold(0, |key, channel| key << 6 | usize::from(channel >> 2));
                    *cache[key].get_or_insert_with(|| nearest(palette, pixel))
                };
                pixels.iter().enumerate().map(at).collect()
            }
        }
    }
}

/// Eye-weighted distance, green counting most.
fn nearest(palette: &[u8], pixel: [u8; 3]) -> u8 {
    // The middle of the cell that the cache keeps one answer for.
    let middle = pixel.map(|channel| i32::from(channel & 0xfc) + 2);
    let distance = |entry: &[u8; 3]| -> i32 {
        [3, 4, 2].iter().zip(0..3).map(|(weight, c)| weight * (i32::from(entry[c]) - middle[c]).pow(2)).sum()
    };
    let entries = palette.as_chunks::<3>().0.iter().enumerate();
    entries.min_by_key(|(_, entry)| distance(entry)).map_or(0, |(index, _)| index as u8)
}

/// Adds the 8x8 Bayer pattern, centred on zero.
fn dither(pixel: [u8; 3], x: usize, y: usize) -> [u8; 3] {
    let offset = (f32::from(bayer(x, y)) + 0.5) / 64.0 - 0.5;
    pixel.map(|channel| (f32::from(channel) + DITHER * offset).round().clamp(0.0, 255.0) as u8)
}

/// The 8x8 Bayer matrix: the bits of `x ^ y` and `y`, interleaved, lowest first.
fn bayer(x: usize, y: usize) -> u8 {
    let (mixed, y) = ((x ^ y) & 7, y & 7);
    (0..3).fold(0, |value, bit| value << 2 | ((mixed >> bit & 1) << 1 | (y >> bit & 1)) as u8)
}
