//! How much a clip changes from frame to frame beyond what an even motion explains.

use super::mask::Mask;
use super::plane::mean;
use super::segment::{Region, segment};
use super::track;
use crate::clip::Clip;
use crate::frame::Frame;

/// How far the masks are grown before what lies outside counts as background, in pixels of a picture of 64.
const MARGIN: f64 = 3.0;

/// The least means that [`ratio`] divides by: what rounding and resampling alone can cause.
pub const FLOOR: Jump = Jump { place: 0.25, colour: 1.0, background: 0.5 };

/// Mean changes from frame to frame.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Jump {
    /// Of the shape's place beyond an even motion: the length of its second difference, in pixels.
    pub place: f64,
    /// Of the shape's mean colour: the distance in RGB, in levels.
    pub colour: f64,
    /// Of the background: the mean absolute difference of its pixels' RGB, in levels.
    pub background: f64,
}

/// The changes within `clip`; `None` if it has fewer than three frames or [`track()`](track::track) loses the shape.
/// Of frames without a shape, only the place counts, as between its neighbours.
pub fn jump(clip: &Clip) -> Option<Jump> {
    let regions: Vec<Option<Region>> = clip.frames.iter().map(segment).collect();
    let side = track::side(clip)?;
    let spots = track::of_regions(&regions, side)?.spots;
    if spots.len() < 3 {
        return None;
    }
    let second = |a: f64, b: f64, c: f64| a - 2.0 * b + c;
    let bend = |[a, b, c]: &[track::Spot; 3]| second(a.x, b.x, c.x).hypot(second(a.y, b.y, c.y));
    let pairs: Vec<(&Region, &Region, &[Frame])> = regions
        .windows(2)
        .zip(clip.frames.windows(2))
        .filter_map(|(pair, frames)| Some((pair[0].as_ref()?, pair[1].as_ref()?, frames)))
        .collect();
    Some(Jump {
        place: mean(spots.array_windows().map(bend)),
        colour: mean(pairs.iter().map(|(a, b, _)| distance(a.colour, b.colour))),
        background: mean(pairs.iter().map(|(a, b, frames)| {
            let shape = covered(a).or(&covered(b)).grown(MARGIN * side / 64.0);
            difference(&frames[0], &frames[1], &shape.outside())
        })),
    })
}

/// How many times as much `these` clips jump as `those`, by the means of both sets; divided by no less than [`FLOOR`], so
/// that clips that stand perfectly still do not make it infinite. NaN if a set is empty.
pub fn ratio(these: &[Jump], those: &[Jump]) -> Jump {
    let of = |value: fn(&Jump) -> f64| {
        let average = |set: &[Jump]| set.iter().map(value).sum::<f64>() / set.len() as f64;
        let floor = value(&FLOOR);
        average(these).max(floor) / average(those).max(floor)
    };
    Jump { place: of(|jump| jump.place), colour: of(|jump| jump.colour), background: of(|jump| jump.background) }
}

fn covered(region: &Region) -> Mask {
    region.mask.or(&region.halo)
}

fn distance(a: [f64; 3], b: [f64; 3]) -> f64 {
    (0..3).map(|c| (a[c] - b[c]).powi(2)).sum::<f64>().sqrt()
}

/// The mean absolute difference of both frames within `mask`, in levels.
fn difference(a: &Frame, b: &Frame, mask: &Mask) -> f64 {
    mean(mask.pixels().flat_map(|at| (3 * at..3 * at + 3).map(|at| f64::from(a.rgb[at].abs_diff(b.rgb[at])))))
}
