//! Which frames of a video make a training clip, and whether they are mirrored.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::{Config, ShortClips};

/// The random numbers that belong to one position of the stream. Everything random about an item comes from here, in a
/// fixed order, so that the item depends on nothing else.
pub fn random(seed: u64, position: u64) -> ChaCha8Rng {
    random_of(seed, position, *b"training")
}

/// The random numbers of number `index` of `seed`, other ones for every `purpose`.
pub fn random_of(seed: u64, index: u64, purpose: [u8; 8]) -> ChaCha8Rng {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(&index.to_le_bytes());
    key[16..24].copy_from_slice(&purpose);
    ChaCha8Rng::from_seed(key)
}

/// A whole number below `bound`, which must not be 0. Kept here so that no new version of a crate changes a run's data.
pub fn below(random: &mut ChaCha8Rng, bound: u64) -> u64 {
    ((u128::from(random.next_u64()) * u128::from(bound)) >> 64) as u64
}

/// A number in `low..high`.
pub fn between(random: &mut ChaCha8Rng, low: f64, high: f64) -> f64 {
    low + (high - low) * (random.next_u64() >> 11) as f64 / (1u64 << 53) as f64
}

/// What was drawn for one item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Indices of the frames, `sample_n_frames` of them, never falling.
    pub frames: Vec<usize>,
    /// Whether the clip is mirrored, left to right.
    pub flip: bool,
}

/// The video is too short for the frames and the stride that were asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooShort {
    /// Frames that it would take.
    pub needed: usize,
}

/// Draws the frames of a clip out of `available` (at least 1) and whether it is mirrored.
///
/// Frames are drawn as the official dataset does: a stretch of `(sample_n_frames - 1) * sample_stride + 1` frames, or the
/// whole of a shorter video, starts anywhere it fits, and `sample_n_frames` indices are spread over it, cut to whole
/// numbers. With [`ShortClips::Refuse`] a shorter video is an error instead.
pub fn choose(config: &Config, available: usize, random: &mut ChaCha8Rng) -> Result<Choice, TooShort> {
    let needed = (config.sample_n_frames - 1) * config.sample_stride + 1;
    if available < needed && config.short_clips == ShortClips::Refuse {
        return Err(TooShort { needed });
    }
    let length = available.min(needed);
    let start = below(random, (available - length + 1) as u64) as usize;
    let frames = spread(start, start + length - 1, config.sample_n_frames);
    let flip = config.horizontal_flip && below(random, 2) == 1;
    Ok(Choice { frames, flip })
}

/// `numpy.linspace(first, last, count, dtype=int)`, in the same floating-point steps.
pub fn spread(first: usize, last: usize, count: usize) -> Vec<usize> {
    if count < 2 {
        return vec![first; count];
    }
    let step = (last - first) as f64 / (count - 1) as f64;
    let mut indices: Vec<usize> = (0..count).map(|i| (i as f64 * step + first as f64) as usize).collect();
    indices[count - 1] = last;
    indices
}
