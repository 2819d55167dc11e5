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
        let along = |step: usize, length: usize, values: &[f64]| -> Vec<f64> {
            let reach = kernel.len() / 2;
            let value = |at: usize| {
                let place = at / step % length;
                let start = at - place * step;
                let neighbour = |tap: usize| (place + tap).saturating_sub(reach).min(length - 1);
                kernel.iter().enumerate().map(|(tap, weight)| weight * values[start + step * neighbour(tap)]).sum()
            };
            (0..values.len()).map(value).collect()
        };
        let across = along(1, self.width, &self.values);
        Plane { values: along(self.width, self.height, &across), ..*self }
    }

    /// Blurred by a quarter, a half, a quarter: calms noise and keeps edges in place.
    pub fn soft(&self) -> Plane {
        self.filtered(&[0.25, 0.5, 0.25])
    }

    /// Blurred by a Gaussian of standard deviation `sigma`, in pixels.
    pub fn blurred(&self, sigma: f64) -> Plane {
        let reach = (3.0 * sigma).ceil() as i32;
        let kernel: Vec<f64> = (-reach..=reach).map(|at| (-0.5 * (f64::from(at) / sigma).powi(2)).exp()).collect();
        let total: f64 = kernel.iter().sum();
        self.filtered(&kernel.iter().map(|weight| weight / total).collect::<Vec<_>>())
    }
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
