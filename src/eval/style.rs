//! How far two sets of frames are apart in the way they are painted, whatever they show.

use super::plane::{Plane, luminance, mean, median};
use super::segment::{behind, segment, tinge, tinges};
use crate::frame::Frame;

/// How a frame is painted; each number scaled so that styles differ by about 1 in it, and what they show by less.
///
/// In this order: the background's tinge on both axes; its brightness; how far the shape's tinge is from it; whether
/// the shape has a hole; how far the shape's tinge reaches beyond its edge; how sharp edges are. Of a frame without a
/// shape, what belongs to it is 0.
pub type Descriptor = [f64; 7];

/// The largest hole of what is filled, as a share of its area; the least of outlines are nearly twice as large.
const FILLED: f64 = 0.023;

/// Describes how `frame` is painted.
pub fn descriptor(frame: &Frame) -> Descriptor {
    let tinges = tinges(frame);
    let behind = behind(&tinges);
    let light = Plane::of(frame, luminance);
    let [u, v] = behind.map(|level| level / 12.0);
    let [contrast, hole, glow] = shape(frame, &tinges, behind).unwrap_or_default();
    [
        u,
        v,
        median(light.values.clone()) / 250.0,
        contrast / 160.0,
        ((hole - FILLED) / FILLED).clamp(0.0, 1.0),
        2.0 * glow,
        sharpness(&light),
    ]
}

/// The shape's distance from the background in tinge, in levels; the share of its hole; and, as a share of that distance,
/// what is left of it two to five pixels of 64 outside the edge.
fn shape(frame: &Frame, tinges: &[Plane; 2], behind: [f64; 2]) -> Option<[f64; 3]> {
    let region = segment(frame)?;
    let distance = |[u, v]: [f64; 2]| (u - behind[0]).hypot(v - behind[1]);
    let contrast = distance(tinge(region.colour));
    let pixel = frame.width.min(frame.height) as f64 / 64.0;
    let rim = region.mask.grown(5.0 * pixel).and(&region.mask.grown(2.0 * pixel).outside());
    let around = mean(rim.pixels().map(|at| distance([tinges[0].values[at], tinges[1].values[at]])));
    Some([contrast, region.hole, around / contrast.max(1.0)])
}

/// The share of all differences between neighbours, in brightness, that the larger ones make up: near 1 for sharp edges on
/// calm ground, less for soft ones and for grain.
fn sharpness(light: &Plane) -> f64 {
    let rows = light.values.chunks_exact(light.width);
    let steps: Vec<f64> = rows.flat_map(|row| row.windows(2).map(|pair| (pair[1] - pair[0]).abs())).collect();
    let large: f64 = steps.iter().filter(|step| **step > 16.0).sum();
    0.25 * large / steps.iter().sum::<f64>().max(1.0)
}

/// The mean distance between the [descriptors](descriptor) of a frame of `these` and one of `those`. NaN if either is empty.
pub fn distance(these: &[Frame], those: &[Frame]) -> f64 {
    let (these, those) = (descriptors(these), descriptors(those));
    let sum: f64 = these.iter().flat_map(|a| those.iter().map(|b| apart(a, b))).sum();
    sum / (these.len() * those.len()) as f64
}

/// The mean distance between two different frames of one set: what [`distance`] between two sets of one style comes to. NaN
/// for fewer than two.
pub fn spread(these: &[Frame]) -> f64 {
    let these = descriptors(these);
    let sum: f64 = these.iter().flat_map(|a| these.iter().map(|b| apart(a, b))).sum();
    sum / (these.len() * these.len().saturating_sub(1)) as f64
}

fn descriptors(frames: &[Frame]) -> Vec<Descriptor> {
    frames.iter().map(descriptor).collect()
}

fn apart(a: &Descriptor, b: &Descriptor) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt()
}
