//! A watermark: fine structure at the same place in most clips.
//!
//! Of each clip the mean picture is kept, small and grey; what moves is blurred away in it. Its fine structure (brighter or darker
//! than the surroundings) has, at any one place, no sign that clips of different scenes would agree on, unless something was
//! laid over all of them. Where they agree more than chance allows, on enough neighbouring places, that is told.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::frame::Frame;

/// Pixels of the small picture along its longer side.
const SIDE: usize = 192;
/// The surroundings reach so many pixels of the small picture to each side.
const REACH: usize = 3;
/// Levels by which a pixel differs from its surroundings to count.
const CONTRAST: f32 = 3.0;
/// Fewer clips of one shape say nothing.
const CLIPS: usize = 12;
/// Share of the clips that agree, less those that disagree.
const AGREED: f64 = 0.35;
/// Standard deviations of a fair coin by which they agree; of a few clips that all agree, almost what that comes to.
const SURE: f64 = 5.0;
/// Pixels that agree, close together: of a mark.
const PLACES: usize = 16;
/// How far apart they may be to belong together.
const GAP: usize = 4;
/// Clips that are asked whether they carry what was found.
const ASKED: usize = 512;

/// The mean picture of a clip, small and grey.
#[derive(Clone, Debug, Default)]
pub struct Still {
    /// Pixels of the clip's first frame.
    of: (usize, usize),
    width: usize,
    height: usize,
    sum: Vec<f32>,
    frames: f32,
}

/// The fine structure of a clip's mean picture.
#[derive(Clone, Debug)]
pub struct Structure {
    width: usize,
    height: usize,
    /// 1 where it is brighter than around, -1 where it is darker, 0 where it is neither.
    signs: Vec<i8>,
}

/// Something that lies over many clips.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mark {
    /// `watermark`, or `border` for what reaches from side to side: a letterbox or a banner.
    pub kind: Kind,
    /// Where it is, in words.
    pub region: String,
    /// Its edges as shares of width and height: left, top, right, bottom.
    pub bounds: [f64; 4],
    /// Share of the clips of that shape that carry it.
    pub share: f64,
    /// Clips of that shape.
    pub clips: usize,
}

/// What it may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A text, a logo.
    Watermark,
    /// From side to side.
    Border,
}

impl Still {
    /// Adds a frame; those of another size than the first are left out.
    pub fn add(&mut self, frame: &Frame) {
        let of = (frame.width, frame.height);
        if self.sum.is_empty() {
            let longer = frame.width.max(frame.height);
            let side = |side: usize| (side * SIDE.min(longer)).div_ceil(longer).max(1);
            (self.of, self.width, self.height) = (of, side(frame.width), side(frame.height));
            self.sum = vec![0.0; self.width * self.height];
        }
        if self.of != of {
            return;
        }
        for (y, row) in self.sum.chunks_exact_mut(self.width).enumerate() {
            let (top, bottom) = (y * frame.height / self.height, (y + 1) * frame.height / self.height);
            for (x, sum) in row.iter_mut().enumerate() {
                let (left, right) = (x * frame.width / self.width, (x + 1) * frame.width / self.width);
                *sum += grey(frame, left..right, top..bottom);
            }
        }
        self.frames += 1.0;
    }

    /// What of it is fine; none if there was no frame.
    pub fn structure(self) -> Option<Structure> {
        let Still { width, height, sum, frames, .. } = self;
        if sum.is_empty() {
            return None;
        }
        let mean: Vec<f32> = sum.iter().map(|sum| sum / frames).collect();
        let around = blurred(&mean, width, height);
        let sign = |(here, around): (&f32, &f32)| match here - around {
            difference if difference >= CONTRAST => 1,
            difference if difference <= -CONTRAST => -1,
            _ => 0,
        };
        let signs = mean.iter().zip(&around).map(sign).collect();
        Some(Structure { width, height, signs })
    }
}

/// Mean brightness of a part of `frame`, green alone standing for it twice.
fn grey(frame: &Frame, across: Range<usize>, down: Range<usize>) -> f32 {
    let pixels = (across.len() * down.len()) as f32;
    let row = |y: usize| &frame.rgb[3 * (y * frame.width + across.start)..3 * (y * frame.width + across.end)];
    let sum: u32 = down
        .flat_map(|y| row(y).as_chunks::<3>().0)
        .map(|[red, green, blue]| u32::from(*red) + 2 * u32::from(*green) + u32::from(*blue))
        .sum();
    sum as f32 / (4.0 * pixels)
}

/// Mean of the square around each pixel, as far as the picture reaches.
fn blurred(values: &[f32], width: usize, height: usize) -> Vec<f32> {
    let around = |at: usize, end: usize| at.saturating_sub(REACH)..(at + REACH + 1).min(end);
    let mut across = Vec::with_capacity(values.len());
    for row in values.chunks_exact(width) {
        across.extend((0..width).map(|x| mean(&row[around(x, width)])));
    }
    let column = |x: usize, y: usize| {
        let rows = around(y, height);
        let count = rows.len() as f32;
        rows.map(|y| across[y * width + x]).sum::<f32>() / count
    };
    (0..values.len()).map(|at| column(at % width, at / width)).collect()
}

fn mean(values: &[f32]) -> f32 {
    values.iter().sum::<f32>() / values.len() as f32
}

/// How clips of one shape agree about each pixel.
#[derive(Default)]
struct Vote {
    clips: usize,
    brighter: Vec<u32>,
    darker: Vec<u32>,
    asked: Vec<Vec<i8>>,
}

impl Vote {
    fn add(&mut self, signs: Vec<i8>) {
        self.clips += 1;
        self.brighter.resize(signs.len(), 0);
        self.darker.resize(signs.len(), 0);
        for (at, sign) in signs.iter().enumerate() {
            self.brighter[at] += u32::from(*sign > 0);
            self.darker[at] += u32::from(*sign < 0);
        }
        if self.asked.len() < ASKED {
            self.asked.push(signs);
        }
    }

    /// The sign that is agreed on at a pixel, or 0.
    fn agreed(&self, at: usize) -> i8 {
        let (brighter, darker) = (f64::from(self.brighter[at]), f64::from(self.darker[at]));
        let lead = (brighter - darker).abs();
        let sure = SURE.min(0.9 * (self.clips as f64).sqrt());
        if lead < AGREED * self.clips as f64 || lead < sure * (brighter + darker).sqrt() {
            return 0;
        }
        if brighter > darker { 1 } else { -1 }
    }

    /// Share of the clips whose signs are those of `mark` at more than half of its pixels.
    fn share(&self, mark: &[(usize, i8)]) -> f64 {
        let carries = |signs: &&Vec<i8>| 2 * mark.iter().filter(|(at, sign)| signs[*at] == *sign).count() > mark.len();
        self.asked.iter().filter(carries).count() as f64 / self.asked.len() as f64
    }
}

/// What the clips that were looked at agree on, by shape.
#[derive(Default)]
pub struct Votes(BTreeMap<(usize, usize), Vote>);

impl Votes {
    /// One clip more.
    pub fn add(&mut self, Structure { width, height, signs }: Structure) {
        self.0.entry((width, height)).or_default().add(signs);
    }

    /// What lies over the clips of the most frequent shape. Empty if nothing does, or if there are fewer than a dozen.
    pub fn find(self) -> Vec<Mark> {
        let most = self.0.into_iter().max_by_key(|(_, vote)| vote.clips);
        let Some(((width, height), vote)) = most.filter(|(_, vote)| vote.clips >= CLIPS) else { return Vec::new() };
        let agreed: Vec<i8> = (0..width * height).map(|at| vote.agreed(at)).collect();
        let marks = parts(&agreed, width, height).into_iter().filter(|part| part.len() >= PLACES);
        marks.map(|part| describe(&part, &agreed, (width, height), &vote)).collect()
    }
}

/// The pixels that are not 0, in parts that lie apart.
fn parts(agreed: &[i8], width: usize, height: usize) -> Vec<Vec<usize>> {
    let (mut parts, mut taken) = (Vec::new(), vec![false; agreed.len()]);
    for start in (0..agreed.len()).filter(|at| agreed[*at] != 0) {
        if std::mem::replace(&mut taken[start], true) {
            continue;
        }
        let (mut part, mut next) = (vec![start], 0);
        while let Some(&at) = part.get(next) {
            next += 1;
            let around = |at: usize, end: usize| at.saturating_sub(GAP)..(at + GAP + 1).min(end);
            for y in around(at / width, height) {
                for x in around(at % width, width) {
                    let other = y * width + x;
                    if agreed[other] != 0 && !std::mem::replace(&mut taken[other], true) {
                        part.push(other);
                    }
                }
            }
        }
        parts.push(part);
    }
    parts
}

fn describe(part: &[usize], agreed: &[i8], (width, height): (usize, usize), vote: &Vote) -> Mark {
    let range = |place: fn(usize, usize) -> usize, side: usize| {
        let places = || part.iter().map(|at| place(*at, width));
        let (first, last) = (places().min().unwrap_or(0), places().max().unwrap_or(0) + 1);
        (first as f64 / side as f64, last as f64 / side as f64)
    };
    let (left, right) = range(|at, width| at % width, width);
    let (top, bottom) = range(|at, width| at / width, height);
    let third = |low: f64, high: f64, names: [&'static str; 3]| names[((low + high) * 1.5).min(2.0) as usize];
    let (down, across) = (third(top, bottom, ["upper", "middle", "lower"]), third(left, right, ["left", "", "right"]));
    // Up to a pixel of both edges.
    let spans = |low: f64, high: f64, side: usize| low * side as f64 <= 1.0 && (1.0 - high) * side as f64 <= 1.0;
    let border = spans(left, right, width) || spans(top, bottom, height);
    let region = match (down, across) {
        _ if border => "from side to side".to_owned(),
        ("middle", "") => "middle".to_owned(),
        (down, "") => format!("{down} middle"),
        (down, across) => format!("{down} {across}"),
    };
    let signs: Vec<(usize, i8)> = part.iter().map(|at| (*at, agreed[*at])).collect();
    let kind = if border { Kind::Border } else { Kind::Watermark };
    Mark { kind, region, bounds: [left, top, right, bottom], share: vote.share(&signs), clips: vote.clips }
}
