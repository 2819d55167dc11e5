//! Which shape of which colour a frame shows.

use super::plane::Plane;
use super::segment::{Region, segment, tinge};
use crate::data::shapes::{COLOURS, Shape, Style};
use crate::frame::Frame;

/// Samples per pixel side of a drawn template.
const SAMPLES: usize = 3;

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Found {
    /// The shape that overlaps best.
    pub shape: Shape,
    /// Index of the nearest colour in [`COLOURS`], as the style paints it.
    pub colour: usize,
    /// Centre of its area, in pixels from the left and from the top.
    pub centroid: (f64, f64),
    /// Half its size in pixels, in the sense of [`Pose`](crate::data::shapes::Pose): what the shape's area asks for.
    pub radius: f64,
    /// How well it overlaps with a perfect one of its area: shared over joint area, 0 to 1. Rendered ones reach 0.9.
    pub overlap: f64,
}

/// What `frame`, painted in `style`, shows; `None` if it shows no shape.
///
/// The colour is the palette's nearest in tinge (brightness aside); the shape is the one whose mask of equal area at the
/// same place overlaps most.
pub fn classify(frame: &Frame, style: Style) -> Option<Found> {
    Some(of_region(&segment(frame)?, style))
}

/// What `region` of a frame in `style` is.
pub fn of_region(region: &Region, style: Style) -> Found {
    let overlaps = Shape::ALL.map(|shape| (overlap(region, shape), shape));
    let (overlap, shape) = overlaps.into_iter().max_by(|a, b| a.0.total_cmp(&b.0)).expect("there are three shapes");
    let colour = nearest_colour(region.colour, style);
    Found { shape, colour, centroid: region.centroid, radius: radius(shape, region.area), overlap }
}

fn nearest_colour(colour: [f64; 3], style: Style) -> usize {
    let distance = |index: &usize| {
        let (one, other) = (tinge(colour), tinge(style.ink(*index)));
        (one[0] - other[0]).hypot(one[1] - other[1])
    };
    (0..COLOURS.len()).min_by(|a, b| distance(a).total_cmp(&distance(b))).expect("there are six colours")
}

/// The radius, in the sense of [`Pose`](crate::data::shapes::Pose), of a shape of `area`.
fn radius(shape: Shape, area: f64) -> f64 {
    (area / shape.area()).sqrt()
}

/// Shared over joint area of a region and a shape of the same area at the same place.
fn overlap(region: &Region, shape: Shape) -> f64 {
    let template = template(region, shape).soft();
    let (mut shared, mut joint) = (0.0, 0.0);
    for (a, b) in region.coverage.values.iter().zip(&template.values) {
        shared += a.min(*b);
        joint += a.max(*b);
    }
    shared / joint
}

/// How much of each pixel a perfect shape covers, 0 to 1.
fn template(region: &Region, shape: Shape) -> Plane {
    let Plane { width, height, .. } = region.coverage;
    let (radius, (x, y)) = (radius(shape, region.area), region.centroid);
    let share = |at: usize| {
        let (left, top) = ((at % width) as f64 - x, (at / width) as f64 - y);
        if left.abs().max(top.abs()) > 1.3 * radius + 2.0 {
            return 0.0;
        }
        let place = |sample: usize| (sample as f64 + 0.5) / SAMPLES as f64;
        let inside = |sample: &usize| {
            let (dx, dy) = (left + place(sample % SAMPLES), top + place(sample / SAMPLES));
            shape.depth(dx / radius, dy / radius) >= 0.0
        };
        (0..SAMPLES * SAMPLES).filter(inside).count() as f64 / (SAMPLES * SAMPLES) as f64
    };
    Plane { width, height, values: (0..width * height).map(share).collect() }
}
