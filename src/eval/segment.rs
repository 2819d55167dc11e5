//! The coloured shape in a frame, told from its background by colour alone.
//!
//! Backgrounds come in any brightness and texture, but each style gives all of its own one tinge: none, cream, or blue.
//! So a pixel's colour without its brightness tells what it belongs to, stripes and chequers vanish, and an edge pixel's
//! share of the shape can be read off how far its tinge lies between both. A glowing shape is an exception: its glow has
//! its tinge, so that there, on a background that is dark and blue, brightness draws the edge.

use super::mask::Mask;
use super::plane::{Plane, luminance, mean, median};
use crate::frame::Frame;

/// Differences of tinge, in levels, below which nothing is told from the background.
const FAINTEST: f64 = 22.0;

/// Shares of the picture that a shape may cover.
const AREA: (f64, f64) = (0.008, 0.65);

/// The least share that the largest coherent part has of all that differs from the background; less is shattered.
const COHERENCE: f64 = 0.6;

/// The least share of its bounding box that a shape fills, holes included. A triangle fills half of it.
const SOLIDITY: f64 = 0.35;

/// A shape in a frame. Lengths are in pixels; pixel centres lie at halves.
#[derive(Clone, Debug)]
pub struct Region {
    /// Its pixels, with those of its hole if it is an outline.
    pub mask: Mask,
    /// All that has the shape's tinge around it as well, such as a glow.
    pub halo: Mask,
    /// Centre of its area, from the left and from the top.
    pub centroid: (f64, f64),
    /// Pixels it covers, shares of edge pixels and its hole included.
    pub area: f64,
    /// First and last column, first and last row.
    pub bounds: [usize; 4],
    /// Mean of its own pixels' RGB, in levels, edges and hole left out.
    pub colour: [f64; 3],
    /// Mean RGB of what lies around it, in levels.
    pub background: [f64; 3],
    /// Share of its area that is not its own colour: 0 for what is filled, more for outlines, whose insides are paler.
    pub hole: f64,
    /// How much of each pixel it covers, 0 to 1.
    pub(super) coverage: Plane,
}

impl Region {
    /// The radius of a disc of the same area, in pixels.
    pub fn radius(&self) -> f64 {
        (self.area / std::f64::consts::PI).sqrt()
    }
}

/// A colour without its brightness: red against green, and both against blue; in levels, the same distance for equal
/// changes of either.
pub(super) fn tinge([red, green, blue]: [f64; 3]) -> [f64; 2] {
    [(red - green) / 2f64.sqrt(), (red + green - 2.0 * blue) / 6f64.sqrt()]
}

/// The tinge of each pixel, slightly softened against noise.
pub(super) fn tinges(frame: &Frame) -> [Plane; 2] {
    [0, 1].map(|axis| Plane::of(frame, |rgb| tinge(rgb)[axis]).soft())
}

/// The shape that `frame` shows. `None` if nothing differs in colour from the background, or only what is too small, too
/// large, or shattered.
pub fn segment(frame: &Frame) -> Option<Region> {
    if frame.width < 8 || frame.height < 8 {
        return None;
    }
    let tinges = tinges(frame);
    let behind = behind(&tinges);
    let distance = tinges[0].with(&tinges[1], |u, v| (u - behind[0]).hypot(v - behind[1]));
    let halo = body(&distance, otsu(&distance.values).max(FAINTEST))?;
    let colour = core(&tinges, &distance, &halo);
    let mut coverage = towards(&tinges, behind, colour);
    let light = Plane::of(frame, luminance).soft();
    if behind[1] < NIGHT_TINGE && median(light.values.clone()) < NIGHT_LIGHT {
        coverage = bright(&light, &halo);
    }
    region(frame, coverage, halo)
}

/// Backgrounds with less than this on the second axis of [`tinge`], and this median brightness, are a night.
const NIGHT_TINGE: f64 = -14.0;
const NIGHT_LIGHT: f64 = 100.0;

/// The background's tinge: the middle of what a strip along the border shows.
pub(super) fn behind(tinges: &[Plane; 2]) -> [f64; 2] {
    let Plane { width, height, .. } = tinges[0];
    let strip = (width.min(height) / 20).max(2);
    let along = |at: usize| {
        let (x, y) = (at % width, at / width);
        x < strip || y < strip || x + strip >= width || y + strip >= height
    };
    [0, 1].map(|axis: usize| {
        median(tinges[axis].values.iter().enumerate().filter(|(at, _)| along(*at)).map(|(_, value)| *value).collect())
    })
}

/// The largest coherent part of what is at least `threshold` away from the background.
fn body(distance: &Plane, threshold: f64) -> Option<Mask> {
    let all = Mask::above(distance, threshold);
    // This bridges what a watermark or compression cut.
    let body = all.closed().largest();
    let share = all.and(&body).count() as f64 / all.count().max(1) as f64;
    (share >= COHERENCE).then_some(body)
}

/// The tinge of the half of the body that differs most.
fn core(tinges: &[Plane; 2], distance: &Plane, body: &Mask) -> [f64; 2] {
    let least = median(body.pixels().map(|at| distance.values[at]).collect());
    let strong: Vec<usize> = body.pixels().filter(|at| distance.values[*at] >= least).collect();
    [0, 1].map(|axis: usize| mean(strong.iter().map(|at| tinges[axis].values[*at])))
}

/// How far each pixel's tinge lies on the way from one to another, 0 to 1.
fn towards(tinges: &[Plane; 2], from: [f64; 2], to: [f64; 2]) -> Plane {
    let way = [to[0] - from[0], to[1] - from[1]];
    let length = (way[0].powi(2) + way[1].powi(2)).max(1.0);
    tinges[0].with(&tinges[1], |u, v| (((u - from[0]) * way[0] + (v - from[1]) * way[1]) / length).clamp(0.0, 1.0))
}

/// How much of each pixel is a luminous shape, that lies within `halo`: by brightness, between the glow's and its own.
fn bright(light: &Plane, halo: &Mask) -> Plane {
    let near = halo.grown(2.0);
    let levels: Vec<f64> = near.pixels().map(|at| light.values[at]).collect();
    let edge = otsu(&levels);
    let inside = mean(levels.into_iter().filter(|level| *level > edge));
    let share = |level: f64| ((level - edge) / (2.0 * (inside - edge).max(1.0)) + 0.5).clamp(0.0, 1.0);
    let values = (0..light.values.len())
        .map(|at| if near.contains(at % light.width, at / light.width) { share(light.values[at]) } else { 0.0 })
        .collect();
    Plane { values, ..*light }
}

/// Measures what `coverage` shows around `halo`, if it is a shape at all.
fn region(frame: &Frame, own: Plane, halo: Mask) -> Option<Region> {
    let coloured = Mask::above(&own, 0.5).and(&halo.grown(2.0)).closed().largest();
    let mask = coloured.filled();
    let pixels = (frame.width * frame.height) as f64;
    let bounds = mask.bounds()?;
    let share = mask.count() as f64 / pixels;
    let solid = mask.count() as f64 / ((bounds[1] - bounds[0] + 1) * (bounds[3] - bounds[2] + 1)) as f64;
    if !(AREA.0..=AREA.1).contains(&share) || solid < SOLIDITY {
        return None;
    }
    let coverage = whole(&own, &mask);
    let (area, centroid) = moments(&coverage);
    let inner =
        [0.8, 0.5].map(|least| Mask::above(&own, least).and(&mask)).into_iter().find(|part| part.count() > 0)?;
    let around = halo.or(&mask).grown(2.0).outside();
    let held = coloured.pixels().map(|at| own.values[at]).sum::<f64>();
    let total = mask.pixels().map(|at| coverage.values[at]).sum::<f64>();
    Some(Region {
        centroid,
        area,
        bounds,
        colour: mean_colour(frame, &inner),
        background: mean_colour(frame, &around),
        hole: (1.0 - held / total).clamp(0.0, 1.0),
        mask,
        halo,
        coverage,
    })
}

/// The shape's share of each pixel: its own near the edge, all of it inside, where holes and marks do not count.
fn whole(own: &Plane, mask: &Mask) -> Plane {
    let (near, inside) = (mask.grown(2.0), mask.shrunk(1.0));
    let value = |at: usize| match (at % own.width, at / own.width) {
        (x, y) if inside.contains(x, y) => 1.0,
        (x, y) if near.contains(x, y) => own.values[at],
        _ => 0.0,
    };
    Plane { values: (0..own.values.len()).map(value).collect(), ..*own }
}

fn moments(coverage: &Plane) -> (f64, (f64, f64)) {
    let (mut area, mut x_sum, mut y_sum) = (0.0, 0.0, 0.0);
    for (at, share) in coverage.values.iter().enumerate() {
        area += share;
        x_sum += share * ((at % coverage.width) as f64 + 0.5);
        y_sum += share * ((at / coverage.width) as f64 + 0.5);
    }
    (area, (x_sum / area, y_sum / area))
}

fn mean_colour(frame: &Frame, mask: &Mask) -> [f64; 3] {
    [0, 1, 2].map(|c| mean(mask.pixels().map(|at| f64::from(frame.rgb[3 * at + c]))))
}

/// The threshold that parts `values` best into two classes (Otsu 1979), to a hundredth of their range.
fn otsu(values: &[f64]) -> f64 {
    const BINS: usize = 100;
    let (low, high) = values.iter().fold((f64::MAX, f64::MIN), |(low, high), v| (low.min(*v), high.max(*v)));
    let width = (high - low).max(1e-9) / BINS as f64;
    let mut counts = [0.0; BINS];
    values.iter().for_each(|value| counts[(((value - low) / width) as usize).min(BINS - 1)] += 1.0);
    let total: f64 = counts.iter().sum();
    let moment: f64 = counts.iter().enumerate().map(|(bin, count)| bin as f64 * count).sum();
    let (mut below, mut moment_below, mut best) = (0.0, 0.0, (0.0, 0));
    for (bin, count) in counts.iter().enumerate().take(BINS - 1) {
        below += count;
        moment_below += bin as f64 * count;
        let between = (moment_below * total - moment * below).powi(2) / (below * (total - below)).max(1e-9);
        if between > best.0 {
            best = (between, bin + 1);
        }
    }
    low + best.1 as f64 * width
}
