//! Where a clip goes over to another scene.
//!
//! Frames are compared by a thumbnail (what is where) and by a histogram (which colours there are). At a cut the picture
//! changes much at once, and more than just before and just after; a flash changes twice, and a fast camera all the time.

use crate::frame::Frame;

/// Cells of a thumbnail along each side.
const CELLS: usize = 32;
/// Levels of each colour in a histogram.
const LEVELS: usize = 4;
/// Pixels that are looked at along each side, at most about so many.
const SAMPLES: usize = 256;

/// Levels (of 0 to 255) by which the cells of a thumbnail change at a cut, on average.
const CHANGE: f64 = 10.0;
/// Share of the pixels whose colour changes its place in the histogram at a cut.
const COLOURS: f64 = 0.15;
/// A change so large is a cut whatever the colours do.
const LARGE: f64 = 40.0;
/// So many times as much changes at a cut as from frame to frame around it.
const STANDS_OUT: f64 = 2.5;

/// Watches for cuts, frame by frame.
#[derive(Default)]
pub struct Cuts {
    last: Option<Look>,
    /// Change of thumbnail and histogram from each frame to the next.
    changes: Vec<(f64, f64)>,
}

/// A frame in short.
struct Look {
    thumbnail: Vec<[f32; 3]>,
    /// Cells that hold anything.
    filled: usize,
    histogram: [f32; LEVELS * LEVELS * LEVELS],
}

impl Cuts {
    /// The next frame.
    pub fn add(&mut self, frame: &Frame) {
        let look = Look::at(frame);
        if let Some(last) = &self.last {
            self.changes.push((last.moved(&look), last.recoloured(&look)));
        }
        self.last = Some(look);
    }

    /// Frames, counted from 0, at which another scene begins.
    pub fn finish(self) -> Vec<usize> {
        let change = |at: Option<usize>| at.and_then(|at| self.changes.get(at)).map_or(0.0, |change| change.0);
        let is_cut = |&at: &usize| {
            let (moved, recoloured) = self.changes[at];
            let around = change(at.checked_sub(1)).max(change(Some(at + 1)));
            let other = moved >= CHANGE && recoloured >= COLOURS || moved >= LARGE;
            other && moved >= STANDS_OUT * around
        };
        (0..self.changes.len()).filter(is_cut).map(|at| at + 1).collect()
    }
}

impl Look {
    fn at(frame: &Frame) -> Look {
        let mut cells = vec![([0.0f32; 3], 0.0f32); CELLS * CELLS];
        let mut histogram = [0.0; LEVELS * LEVELS * LEVELS];
        let (across, down) = ((frame.width / SAMPLES).max(1), (frame.height / SAMPLES).max(1));
        let mut seen = 0.0;
        for y in (0..frame.height).step_by(down) {
            for x in (0..frame.width).step_by(across) {
                let rgb = frame.pixel(x, y);
                let cell = &mut cells[y * CELLS / frame.height * CELLS + x * CELLS / frame.width];
                cell.0.iter_mut().zip(rgb).for_each(|(sum, level)| *sum += f32::from(level));
                cell.1 += 1.0;
                let place = rgb.iter().fold(0, |place, level| place * LEVELS + usize::from(*level) * LEVELS / 256);
                histogram[place] += 1.0;
                seen += 1.0;
            }
        }
        histogram.iter_mut().for_each(|count| *count /= seen);
        // Frames smaller than the thumbnail leave cells empty, the same ones in every frame.
        let filled = cells.iter().filter(|(_, count)| *count > 0.0).count();
        let thumbnail = cells.into_iter().map(|(sum, count)| sum.map(|sum| sum / count.max(1.0))).collect();
        Look { thumbnail, filled, histogram }
    }

    /// Mean change of the thumbnail's cells, in levels; of the cells that hold anything.
    fn moved(&self, other: &Look) -> f64 {
        let pairs = self.thumbnail.iter().flatten().zip(other.thumbnail.iter().flatten());
        let sum: f32 = pairs.map(|(a, b)| (a - b).abs()).sum();
        f64::from(sum) / (3 * self.filled.max(other.filled)) as f64
    }

    /// Half the distance of the histograms: 0 for the same colours, 1 for none in common.
    fn recoloured(&self, other: &Look) -> f64 {
        let sum: f32 = self.histogram.iter().zip(&other.histogram).map(|(a, b)| (a - b).abs()).sum();
        f64::from(sum) / 2.0
    }
}
