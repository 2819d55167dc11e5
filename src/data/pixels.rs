//! From frames to the numbers a model sees.

use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};

use super::Size;
use crate::frame::{Frame, Planes};

/// Brings frames to `size`, in the official order: mirror (if `flip`), resize until both sides are covered, crop the
/// middle, and map 0..=255 to -1..=1. Returns `[F,3,H,W]`, row-major.
///
/// For squares this is torchvision's `Resize` of the shorter side (bilinear, antialiased, in floating point) and
/// `CenterCrop`; for other shapes the frame is scaled by the larger of both ratios, which leaves no side uncovered.
pub fn pixels(frames: &[Frame], size: Size, flip: bool) -> Vec<f32> {
    let mut pixels = Pixels::new(size, flip, frames.len());
    let mut planes = Vec::new();
    for frame in frames {
        pixels.push(&frame.planes(&mut planes));
    }
    pixels.finish()
}

/// Pictures that are brought to size one after another, as [`pixels()`] does.
///
/// Only what the crop keeps is computed. Columns of a picture are summed up to the rows that come out, and these to pixels, all in
/// floating point.
pub(crate) struct Pixels {
    size: Size,
    flip: bool,
    out: Vec<f32>,
    plan: Option<Plan>,
    /// The rows and columns of a picture that the crop needs, 0 to 1.
    unit: Vec<f32>,
    row: Vec<f32>,
}

/// How pictures of one size are scaled.
struct Plan {
    from: Size,
    rows: Taps,
    columns: Taps,
}

impl Pixels {
    /// For `frames` pictures.
    pub fn new(size: Size, flip: bool, frames: usize) -> Pixels {
        let out = Vec::with_capacity(frames * 3 * size.height * size.width);
        Pixels { size, flip, out, plan: None, unit: Vec::new(), row: Vec::new() }
    }

    /// Appends one picture.
    pub fn push(&mut self, picture: &Planes) {
        let from = Size { height: picture.height, width: picture.width };
        if self.plan.as_ref().is_none_or(|plan| plan.from != from) {
            let target = covering(from.width, from.height, self.size);
            let rows = Taps::new(from.height, target.height, self.size.height);
            let columns = Taps::new(from.width, target.width, self.size.width);
            self.plan = Some(Plan { from, rows, columns });
        }
        let Plan { rows, columns, .. } = self.plan.as_ref().expect("was set above");
        let width = columns.needed.len();
        // Mirrored columns are the same ones, counted from the other side.
        let left = if self.flip { from.width - columns.needed.end } else { columns.needed.start };
        for plane in picture.rgb {
            self.unit.clear();
            for y in rows.needed.clone() {
                let levels = &plane[y * picture.stride + left..][..width];
                self.unit.extend(levels.iter().map(|level| f32::from(*level) / 255.0));
            }
            for y in 0..self.size.height {
                rows.sum_rows(y, &self.unit, width, &mut self.row);
                if self.flip {
                    self.row.reverse();
                }
                columns.sum_pixels(&self.row, &mut self.out);
            }
        }
    }

    /// The pixels of all pictures.
    pub fn finish(self) -> Vec<f32> {
        self.out
    }
}

/// What each row (or column) that comes out is summed up of: `count` neighbours, and their weights.
struct Taps {
    /// The first and the last that any of them takes.
    needed: std::ops::Range<usize>,
    count: usize,
    /// The first neighbour of each, counted from the first that is needed.
    starts: Vec<usize>,
    /// `count` for each; what reaches beyond the border weighs 0.
    weights: Vec<f32>,
}

impl Taps {
    /// For the middle `kept` of `to`, scaled from `from`. A triangle as wide as two steps of the larger grid, cut off at the border,
    /// with a sum of 1: torch's `_upsample_bilinear2d_aa`.
    fn new(from: usize, to: usize, kept: usize) -> Taps {
        let scale = from as f64 / to as f64;
        let reach = scale.max(1.0);
        let first = half_to_even(to - kept);
        let neighbours: Vec<(usize, Vec<f64>)> = (first..first + kept)
            .map(|index| {
                let centre = (index as f64 + 0.5) * scale;
                let start = (centre - reach + 0.5).max(0.0) as usize;
                let end = ((centre + reach + 0.5) as usize).min(from);
                let weight = |at: usize| (1.0 - ((at as f64 - centre + 0.5) / reach).abs()).max(0.0);
                (start, (start..end).map(weight).collect())
            })
            .collect();
        let count = neighbours.iter().map(|(_, weights)| weights.len()).max().unwrap_or(0);
        // As many neighbours for each: those at the border are given some before them.
        let start_of = |start: usize| start.min(from - count);
        let lowest = neighbours.iter().map(|(start, _)| start_of(*start)).min().unwrap_or(0);
        let highest = neighbours.iter().map(|(start, _)| start_of(*start) + count).max().unwrap_or(0);
        let mut taps = Taps { needed: lowest..highest, count, starts: Vec::new(), weights: Vec::new() };
        for (start, weights) in neighbours {
            let (sum, begin) = (weights.iter().sum::<f64>(), taps.weights.len());
            taps.starts.push(start_of(start) - lowest);
            taps.weights.resize(begin + count, 0.0);
            let own = &mut taps.weights[begin + start - start_of(start)..];
            for (own, weight) in own.iter_mut().zip(&weights) {
                *own = (weight / sum) as f32;
            }
        }
        taps
    }

    /// Row `y` out of `rows`, which are `width` long.
    fn sum_rows(&self, y: usize, rows: &[f32], width: usize, sum: &mut Vec<f32>) {
        sum.clear();
        sum.resize(width, 0.0);
        for (k, &weight) in self.weights[y * self.count..][..self.count].iter().enumerate() {
            let row = &rows[(self.starts[y] + k) * width..][..width];
            for (sum, value) in sum.iter_mut().zip(row) {
                *sum += weight * value;
            }
        }
    }

    /// All pixels of one row, in -1..=1.
    fn sum_pixels(&self, row: &[f32], pixels: &mut Vec<f32>) {
        match self.count {
            2 => self.sum_of::<2>(row, pixels),
            3 => self.sum_of::<3>(row, pixels),
            4 => self.sum_of::<4>(row, pixels),
            5 => self.sum_of::<5>(row, pixels),
            6 => self.sum_of::<6>(row, pixels),
            _ => {
                for (start, weights) in self.starts.iter().zip(self.weights.chunks_exact(self.count)) {
                    let sum: f32 = row[*start..].iter().zip(weights).map(|(value, weight)| value * weight).sum();
                    pixels.push((sum - 0.5) / 0.5);
                }
            }
        }
    }

    /// As [`Taps::sum_pixels`] for a number of neighbours that the compiler knows: twice as fast.
    fn sum_of<const N: usize>(&self, row: &[f32], pixels: &mut Vec<f32>) {
        for (start, weights) in self.starts.iter().zip(self.weights.as_chunks::<N>().0) {
            let values: &[f32; N] = row[*start..].first_chunk().expect("the needed columns hold all neighbours");
            let mut sum = 0.0;
            for k in 0..N {
                sum += values[k] * weights[k];
            }
            pixels.push((sum - 0.5) / 0.5);
        }
    }
}

/// The size that `width` x `height` is scaled to so that it covers `size` and at least one side fits.
pub fn covering(width: usize, height: usize, size: Size) -> Size {
    // Which side binds is decided in whole numbers; the other is cut, as Python's `int` does.
    if size.width * height >= size.height * width {
        let other = (size.width as f64 * height as f64 / width as f64) as usize;
        Size { width: size.width, height: other.max(size.height) }
    } else {
        let other = (size.height as f64 * width as f64 / height as f64) as usize;
        Size { width: other.max(size.width), height: size.height }
    }
}

fn bilinear() -> ResizeOptions {
    ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Bilinear)).use_alpha(false)
}

/// Half of `value`, rounded as Python's `round` does: a tie goes to the even number.
fn half_to_even(value: usize) -> usize {
    let half = value / 2;
    if value % 4 == 3 { half + 1 } else { half }
}

/// Scales a frame to exactly `size` with the same filter, in bytes. For pictures that are to be shown or filmed.
pub fn resize(frame: &Frame, size: Size) -> Frame {
    let source = ImageRef::new(frame.width as u32, frame.height as u32, &frame.rgb, PixelType::U8x3)
        .expect("a frame has three bytes per pixel");
    let mut scaled = Image::new(size.width as u32, size.height as u32, PixelType::U8x3);
    Resizer::new().resize(&source, &mut scaled, &bilinear()).expect("both images are of one pixel type and not empty");
    Frame { width: size.width, height: size.height, rgb: scaled.into_vec() }
}
