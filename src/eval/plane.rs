//! One number per pixel.

use crate::frame::Frame;

/// One number per pixel, row by row.
#[derive(Clone, Debug)]
pub(super) struct Plane {
    pub width: usize,
    pub height: usize,
    pub values: Vec<f64>,
}

/// Brightness of a colour as the eye weighs it (ITU-R BT.601), in the unit of the colour.
pub(super) fn luminance([red, green, blue]: [f64; 3]) -> f64 {
    0.299 * red + 0.587 * green + 0.114 * blue
}

impl Plane {
    /// What `value` makes of each pixel's colour, in levels of 0 to 255.
    pub fn of(frame: &Frame, value: impl Fn([f64; 3]) -> f64) -> Plane {
        let values = frame.rgb.as_chunks::<3>().0.iter().map(|rgb| value(rgb.map(f64::from))).collect();
        Plane { width: frame.width, height: frame.height, values }
    }

    /// What `value` makes of each pair of values.
    pub fn with(&self, other: &Plane, value: impl Fn(f64, f64) -> f64) -> Plane {
        let values = self.values.iter().zip(&other.values).map(|(a, b)| value(*a, *b)).collect();
        Plane { values, ..*self }
    }

    /// Blurred along both sides by a symmetric `kernel` of odd length; the border goes on for ever.
    pub fn filtered(&self, kernel: &[f64]) -> Plane {
        let Plane { width, height, .. } = *self;
        let reach = kernel.len() / 2;
        let mut across = vec![0.0; self.values.len()];
        for (row, blurred) in self.values.chunks_exact(width).zip(across.chunks_exact_mut(width)) {
            let before = std::iter::repeat_n(row[0], reach);
            let after = std::iter::repeat_n(row[width - 1], reach);
            let padded: Vec<f64> = before.chain(row.iter().copied()).chain(after).collect();
            kernel.iter().enumerate().for_each(|(tap, weight)| add(blurred, &padded[tap..tap + width], *weight));
        }
        let mut values = vec![0.0; self.values.len()];
        for (y, blurred) in values.chunks_exact_mut(width).enumerate() {
            for (tap, weight) in kernel.iter().enumerate() {
                let row = (y + tap).saturating_sub(reach).min(height - 1);
                add(blurred, &across[row * width..][..width], *weight);
            }
        }
        Plane { values, ..*self }
    }

    /// Blurred by a quarter, a half, a quarter: calms noise and keeps edges in place.
    pub fn soft(&self) -> Plane {
        self.filtered(&[0.25, 0.5, 0.25])
    }

    /// Of half the size, each value the mean of four; an odd last row or column is dropped.
    pub fn halved(&self) -> Plane {
        let (width, height) = (self.width / 2, self.height / 2);
        let at = |x: usize, y: usize| self.values[y * self.width + x];
        let square = |at_half: usize| {
            let (x, y) = (2 * (at_half % width), 2 * (at_half / width));
            (at(x, y) + at(x + 1, y) + at(x, y + 1) + at(x + 1, y + 1)) / 4.0
        };
        Plane { width, height, values: (0..width * height).map(square).collect() }
    }

    /// Blurred by a Gaussian of standard deviation `sigma`, in pixels.
    pub fn blurred(&self, sigma: f64) -> Plane {
        let reach = (3.0 * sigma).ceil() as i32;
        let kernel: Vec<f64> = (-reach..=reach).map(|at| (-0.5 * (f64::from(at) / sigma).powi(2)).exp()).collect();
        let total: f64 = kernel.iter().sum();
        self.filtered(&kernel.iter().map(|weight| weight / total).collect::<Vec<_>>())
    }
}

fn add(to: &mut [f64], values: &[f64], weight: f64) {
    to.iter_mut().zip(values).for_each(|(to, value)| *to += weight * value);
}

/// The middle value, or the mean of the two middle ones; 0 of nothing.
pub(super) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        count => (values[(count - 1) / 2] + values[count / 2]) / 2.0,
    }
}

/// The mean; 0 of nothing.
pub(super) fn mean(values: impl IntoIterator<Item = f64>) -> f64 {
    let (mut sum, mut count) = (0.0, 0usize);
    for value in values {
        (sum, count) = (sum + value, count + 1);
    }
    if count == 0 { 0.0 } else { sum / count as f64 }
}
