//! How the shape moves along a clip, and which of the world's motions that is.

use super::plane::mean;
use super::segment::{Region, segment};
use crate::clip::Clip;
use crate::data::shapes::Motion;

/// The side, in pixels, of the pictures that the thresholds below are made for; they scale with the shorter side.
const SIDE: f64 = 64.0;

/// The least way of a shape that moves, along one axis and by the line that fits best, in pixels of [`SIDE`].
const MOVES: f64 = 8.0;

/// The largest way across, as a share of the way along.
const ACROSS: f64 = 0.5;

/// The largest distance from the even motion that fits best (root mean square), as a share of the way along.
const UNEVEN: f64 = 0.2;

/// The largest growth of what moves.
const MOVING_GROWTH: f64 = 1.35;

/// The least growth of what grows, of its radius from first to last frame.
const GROWS: f64 = 1.3;

/// How far what grows may go, and stray from its mean place, in pixels of [`SIDE`].
const GROWING_WAY: f64 = 6.0;

/// How far what stands still may go, and stray from its mean place, in pixels of [`SIDE`].
const STILL_WAY: f64 = 4.0;

/// The growth of what stands still, and the range that each frame's radius has to keep, over the mean.
const STILL_GROWTH: (f64, f64) = (0.85, 1.2);

/// The least share of steps that go the motion's own way.
const STEPS: f64 = 0.7;

/// The largest share of frames in which the shape may be missing.
const MISSING: f64 = 0.25;

/// Where the shape is in one frame, in pixels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spot {
    /// Centre of its area, from the left.
    pub x: f64,
    /// Centre of its area, from the top.
    pub y: f64,
    /// Radius of a disc of its area.
    pub radius: f64,
}

/// Where the shape is in each frame of a clip.
#[derive(Clone, Debug, PartialEq)]
pub struct Track {
    /// One per frame.
    pub spots: Vec<Spot>,
    /// The frames' shorter side, in pixels.
    pub side: f64,
}

/// Follows the shape through `clip`. Frames that show none take a place between their neighbours'; `None` if more than a
/// quarter of them show none.
pub fn track(clip: &Clip) -> Option<Track> {
    of_regions(&clip.frames.iter().map(segment).collect::<Vec<_>>(), side(clip)?)
}

/// The shorter side of a clip's frames, in pixels.
pub(super) fn side(clip: &Clip) -> Option<f64> {
    clip.frames.first().map(|frame| frame.width.min(frame.height) as f64)
}

/// The track of what was found in each frame.
pub(super) fn of_regions(regions: &[Option<Region>], side: f64) -> Option<Track> {
    let spot = |region: &Region| Spot { x: region.centroid.0, y: region.centroid.1, radius: region.radius() };
    let found: Vec<(usize, Spot)> =
        regions.iter().enumerate().filter_map(|(at, region)| Some((at, spot(region.as_ref()?)))).collect();
    let missing = regions.len() - found.len();
    if found.is_empty() || missing as f64 > MISSING * regions.len() as f64 {
        return None;
    }
    Some(Track { spots: (0..regions.len()).map(|at| at_frame(&found, at)).collect(), side })
}

/// The spot at a frame: what was found there, or evenly between those found before and after, or the nearest.
fn at_frame(found: &[(usize, Spot)], at: usize) -> Spot {
    let next = found.partition_point(|(frame, _)| *frame < at);
    let (before, after) = (found[next.saturating_sub(1)], found[next.min(found.len() - 1)]);
    let gap = after.0 as f64 - before.0 as f64;
    let share = if gap > 0.0 { (at as f64 - before.0 as f64) / gap } else { 0.0 };
    let between = |from: f64, to: f64| from + (to - from) * share;
    let (a, b) = (before.1, after.1);
    Spot { x: between(a.x, b.x), y: between(a.y, b.y), radius: between(a.radius, b.radius) }
}

impl Track {
    /// The motion that the track shows, or `None` if it is none of them. What the thresholds ask for, in pixels of a
    /// picture of 64 (they scale with the shorter side), ways being those of the straight line that fits best:
    ///
    /// - left, right, up, down: 8 pixels or more along one axis, at most half of that across, the frames' distance from the
    ///   line at most a fifth of it (root mean square), seven of ten steps that way, radius growing by less than 1.35
    ///   (and shrinking by less);
    /// - growing: 1.3 times the radius or more, seven of ten steps growing, and at most 6 pixels of way;
    /// - standing still: at most 4 pixels of way and from the mean place in any frame, 0.85 to 1.2 times the radius at the
    ///   end, and in any frame of the mean.
    pub fn motion(&self) -> Option<Motion> {
        if self.spots.len() < 2 {
            return None;
        }
        Motion::ALL.into_iter().find(|motion| match motion {
            Motion::Left => self.moves(|spot| (-spot.x, spot.y)),
            Motion::Right => self.moves(|spot| (spot.x, spot.y)),
            Motion::Up => self.moves(|spot| (-spot.y, spot.x)),
            Motion::Down => self.moves(|spot| (spot.y, spot.x)),
            Motion::Growing => self.grows(),
            Motion::Still => self.stands(),
        })
    }

    /// Whether the first of the numbers that `axes` gives rises as it does for a shape that moves, and not the second.
    fn moves(&self, axes: impl Fn(&Spot) -> (f64, f64)) -> bool {
        let along: Vec<f64> = self.spots.iter().map(|spot| axes(spot).0).collect();
        let across: Vec<f64> = self.spots.iter().map(|spot| axes(spot).1).collect();
        let (forth, aside) = (Line::fit(&along), Line::fit(&across));
        let growth = self.growth();
        forth.way >= MOVES * self.scale()
            && aside.way.abs() <= ACROSS * forth.way
            && forth.residual.hypot(aside.residual) <= UNEVEN * forth.way
            && rising(&along) >= STEPS
            && (1.0 / MOVING_GROWTH..MOVING_GROWTH).contains(&growth)
    }

    fn grows(&self) -> bool {
        let radii: Vec<f64> = self.spots.iter().map(|spot| spot.radius).collect();
        self.growth() >= GROWS && rising(&radii) >= STEPS && self.keeps_place(GROWING_WAY)
    }

    fn stands(&self) -> bool {
        let steady = |ratio: f64| (STILL_GROWTH.0..=STILL_GROWTH.1).contains(&ratio);
        let typical = mean(self.spots.iter().map(|spot| spot.radius));
        steady(self.growth())
            && self.spots.iter().all(|spot| steady(spot.radius / typical))
            && self.keeps_place(STILL_WAY)
    }

    /// Whether the line's way and every frame's distance from the mean place are below `limit` pixels of [`SIDE`].
    fn keeps_place(&self, limit: f64) -> bool {
        let limit = limit * self.scale();
        let (x, y) = (self.line(|spot| spot.x), self.line(|spot| spot.y));
        let strays = |spot: &Spot| (spot.x - x.middle).hypot(spot.y - y.middle) > limit;
        x.way.hypot(y.way) <= limit && !self.spots.iter().any(strays)
    }

    /// How many times its first radius the shape has at the end, by the even growth that fits best.
    pub fn growth(&self) -> f64 {
        self.line(|spot| spot.radius.max(1e-6).ln()).way.exp()
    }

    /// The way from first to last frame along x and y, in pixels, by the straight lines that fit best.
    pub fn way(&self) -> (f64, f64) {
        (self.line(|spot| spot.x).way, self.line(|spot| spot.y).way)
    }

    fn line(&self, value: impl Fn(&Spot) -> f64) -> Line {
        Line::fit(&self.spots.iter().map(value).collect::<Vec<_>>())
    }

    fn scale(&self) -> f64 {
        self.side / SIDE
    }
}

/// The straight line that fits a series of numbers best.
struct Line {
    /// Rise from the first to the last.
    way: f64,
    /// Value halfway, which is the mean.
    middle: f64,
    /// Root mean square distance of the numbers from it.
    residual: f64,
}

impl Line {
    fn fit(values: &[f64]) -> Line {
        let middle = mean(values.iter().copied());
        let half = (values.len() as f64 - 1.0) / 2.0;
        let times = || (0..values.len()).map(|at| at as f64 - half);
        let slope = times().zip(values).map(|(time, value)| time * value).sum::<f64>()
            / times().map(|time| time * time).sum::<f64>().max(1e-9);
        let squares = times().zip(values).map(|(time, value)| (value - middle - slope * time).powi(2));
        Line { way: slope * 2.0 * half, middle, residual: mean(squares).sqrt() }
    }
}

/// The share of steps that go up.
fn rising(values: &[f64]) -> f64 {
    mean(values.windows(2).map(|pair| f64::from(u8::from(pair[1] > pair[0]))))
}
