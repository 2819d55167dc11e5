//! How strongly frames carry the corpus's watermark.

use super::plane::{Plane, luminance};
use crate::data::Size;
use crate::data::shapes;
use crate::frame::Frame;

/// Brings the fit to the strength that [`shapes::veil`] was given: compression and the softened surroundings take a share
/// of the mark. Fitted once, to 300 scenes of 64 x 64 in all styles.
const CALIBRATION: f64 = 1.09;

/// Levels by which a background is uncertain at least; a pixel whose surroundings vary more counts less.
const CERTAINTY: f64 = 6.0;

/// How much of the watermark `frames` of one size carry: about the strength that they were [veiled](shapes::veil) with, about
/// 0 (of either sign, by chance) for what is clean. 0 if there are no frames.
///
/// In each frame, what is seen through the mark is taken from the unmarked pixels around it. With that, a mark of full
/// strength has a known profile, softened as the veil softens; the frame's brightness is fitted by a multiple of it
/// (weighted least squares over all frames).
pub fn energy(frames: &[Frame]) -> f64 {
    let Some(first) = frames.first() else { return 0.0 };
    let pattern = Pattern::new(Size { height: first.height, width: first.width });
    let fits: Vec<(f64, f64)> = frames.iter().map(|frame| pattern.fit(frame)).collect();
    let (shared, full): (f64, f64) = fits.iter().fold((0.0, 0.0), |sum, fit| (sum.0 + fit.0, sum.1 + fit.1));
    CALIBRATION * shared / full.max(1e-9)
}

/// The mark of one size of frames.
struct Pattern {
    /// As [`shapes::watermark`] draws it.
    mark: Plane,
    /// How far each pixel is from any mark, 0 to 1.
    free: Plane,
    /// Standard deviation, in pixels, of the surroundings that a background is taken from: one cell of a letter.
    reach: f64,
}

impl Pattern {
    fn new(size: Size) -> Pattern {
        let mark = Plane { width: size.width, height: size.height, values: shapes::watermark(size) };
        let ink = Plane { values: mark.values.iter().map(|mark| mark.abs()).collect(), ..mark }.soft();
        let free = Plane { values: ink.values.iter().map(|ink| (1.0 - ink).powi(2).max(1e-4)).collect(), ..ink };
        Pattern { mark, free, reach: size.width.min(size.height) as f64 / 32.0 }
    }

    /// The product of the mark's full profile with what the frame shows of it, and with itself.
    fn fit(&self, frame: &Frame) -> (f64, f64) {
        let light = Plane::of(frame, luminance);
        let (behind, variance) = self.behind(&light);
        let profile = self.mark.with(&behind, |mark, behind| match mark {
            mark if mark > 0.0 => mark * (255.0 - behind),
            mark => mark * behind,
        });
        let (profile, seen) =
            (self.detail(&profile.soft()), self.detail(&light.with(&behind, |seen, behind| seen - behind)));
        (0..seen.values.len()).fold((0.0, 0.0), |(shared, full), at| {
            let weight = 1.0 / (CERTAINTY.powi(2) + variance.values[at]);
            let profile = profile.values[at];
            (shared + weight * profile * seen.values[at], full + weight * profile * profile)
        })
    }

    /// Mean and variance of the unmarked pixels around each.
    fn behind(&self, light: &Plane) -> (Plane, Plane) {
        let total = self.free.blurred(self.reach);
        let around = |values: &Plane| {
            values.with(&self.free, |v, free| v * free).blurred(self.reach).with(&total, |sum, total| sum / total)
        };
        let behind = around(light);
        let square = around(&light.with(light, |a, b| a * b));
        let variance = square.with(&behind, |square, mean| (square - mean * mean).max(0.0));
        (behind, variance)
    }

    /// What differs from the surroundings.
    fn detail(&self, plane: &Plane) -> Plane {
        plane.with(&plane.blurred(self.reach), |here, around| here - around)
    }
}
