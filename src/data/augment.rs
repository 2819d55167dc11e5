//! Camera moves made from pictures and videos, as MotionLoRA trains on: the part of the picture that is shown moves,
//! shrinks, grows or turns along time.

use super::Size;
use super::choice::{between, random_of};
use super::pixels::resize;
use crate::clip::Clip;
use crate::frame::Frame;

/// Points sampled per side of a pixel: keeps fine detail from flickering while the crop moves.
const SAMPLES: usize = 2;

/// What the camera does. Directions are the camera's; what it films goes the other way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Motion {
    /// Closer: the crop shrinks.
    ZoomIn,
    /// Away: the crop grows.
    ZoomOut,
    /// The crop moves to the left.
    PanLeft,
    /// The crop moves to the right.
    PanRight,
    /// The crop moves up.
    TiltUp,
    /// The crop moves down.
    TiltDown,
    /// The crop turns clockwise, so that the picture turns anticlockwise.
    RollClockwise,
    /// The crop turns anticlockwise, so that the picture turns clockwise.
    RollAnticlockwise,
}

/// The part of a picture that one frame shows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Crop {
    /// Centre, in source pixels from the left.
    pub x: f64,
    /// Centre, in source pixels from the top.
    pub y: f64,
    /// Width, in source pixels.
    pub width: f64,
    /// Height, in source pixels.
    pub height: f64,
    /// Turn, in radians, clockwise as one sees it.
    pub angle: f64,
}

/// How far a move goes; drawn once per clip so that several clips of one picture differ.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Extent {
    /// Size of the smallest crop of a zoom, as a share of the largest.
    pub zoom: f64,
    /// Size of a pan's or tilt's crop, as a share of the largest; the rest of that is the way.
    pub slide: f64,
    /// Whole turn of a roll, in radians.
    pub turn: f64,
    /// Place across the motion, 0 to 1 of the free way.
    pub across: f64,
}

impl Extent {
    /// The extent number `index` of `seed`.
    pub fn draw(seed: u64, index: u64) -> Extent {
        let random = &mut random_of(seed, index, *b"camera\0\0");
        Extent {
            zoom: between(random, 0.5, 0.65),
            turn: between(random, 30f64.to_radians(), 60f64.to_radians()),
            across: between(random, 0.25, 0.75),
            slide: between(random, 0.75, 0.85),
        }
    }
}

/// The crop at `time` (0 to 1) of a move over a picture of `source` size, in the proportions of `target`. It always lies
/// inside the picture.
pub fn crop(motion: Motion, extent: Extent, source: Size, target: Size, time: f64) -> Crop {
    let (width, height) = (source.width as f64, source.height as f64);
    let aspect = target.width as f64 / target.height as f64;
    let largest = (height * aspect).min(width);
    let centred = |share: f64| {
        let width_now = largest * share;
        Crop { x: width / 2.0, y: height / 2.0, width: width_now, height: width_now / aspect, angle: 0.0 }
    };
    let moving = centred(extent.slide);
    // Along the motion it stays within the largest crop, however long the picture is; across it may lie anywhere.
    let whole = centred(1.0);
    let across = |size: f64, room: f64| size / 2.0 + (room - size) * extent.across;
    // Equal factors per frame look like an even speed.
    let zoom = |time: f64| centred(extent.zoom.powf(time));
    let pan = |time: f64| Crop {
        x: width / 2.0 + (whole.width - moving.width) * (time - 0.5),
        y: across(moving.height, height),
        ..moving
    };
    let tilt = |time: f64| Crop {
        x: across(moving.width, width),
        y: height / 2.0 + (whole.height - moving.height) * (time - 0.5),
        ..moving
    };
    let roll =
        |time: f64| Crop { angle: extent.turn * (time - 0.5), ..centred(roll_share(source, target, extent.turn)) };
    match motion {
        Motion::ZoomIn => zoom(time),
        Motion::ZoomOut => zoom(1.0 - time),
        Motion::PanRight => pan(time),
        Motion::PanLeft => pan(1.0 - time),
        Motion::TiltDown => tilt(time),
        Motion::TiltUp => tilt(1.0 - time),
        Motion::RollClockwise => roll(time),
        Motion::RollAnticlockwise => roll(1.0 - time),
    }
}

/// The largest crop that stays inside the picture through a whole roll, as a share of the largest upright one.
fn roll_share(source: Size, target: Size, turn: f64) -> f64 {
    let (width, height) = (source.width as f64, source.height as f64);
    let aspect = target.width as f64 / target.height as f64;
    let largest = (height * aspect).min(width);
    // The box around a turned rectangle need not be widest at the end of the turn: for a long one it is at its diagonal.
    (0..=64)
        .map(|step| {
            let (sin, cos) = (turn / 2.0 * f64::from(step) / 64.0).sin_cos();
            let (box_width, box_height) = (largest * (cos + sin / aspect), largest * (sin + cos / aspect));
            (width / box_width).min(height / box_height)
        })
        .fold(1.0, f64::min)
}

/// Films `source`, a picture (one frame) or one frame for each of the `frames` of the clip.
///
/// Returns frames of `target` size. The source may have any size; what is small is enlarged.
pub fn film(source: &[Frame], motion: Motion, extent: Extent, target: Size, frames: usize, fps: f64) -> Clip {
    let prepared: Vec<Frame> = source.iter().map(|frame| shrink(frame, motion, extent, target)).collect();
    let shot = |index: usize| {
        let time = if frames > 1 { index as f64 / (frames - 1) as f64 } else { 0.5 };
        let frame = &prepared[index.min(prepared.len() - 1)];
        let size = Size { width: frame.width, height: frame.height };
        sample(frame, crop(motion, extent, size, target, time), target)
    };
    Clip { frames: (0..frames).map(shot).collect(), fps }
}

/// Brings a large source down so that the smallest crop of the move has just the pixels that the clip needs.
fn shrink(frame: &Frame, motion: Motion, extent: Extent, target: Size) -> Frame {
    let size = Size { width: frame.width, height: frame.height };
    let smallest =
        [0.0, 1.0].map(|time| crop(motion, extent, size, target, time).width).into_iter().fold(f64::MAX, f64::min);
    let factor = target.width as f64 / smallest;
    if factor >= 1.0 {
        return frame.clone();
    }
    let side = |pixels: usize| ((pixels as f64 * factor).ceil() as usize).max(1);
    resize(frame, Size { width: side(frame.width), height: side(frame.height) })
}

/// What `crop` shows of `frame`, bilinearly sampled.
fn sample(frame: &Frame, crop: Crop, target: Size) -> Frame {
    let (sin, cos) = crop.angle.sin_cos();
    let mut rgb = Vec::with_capacity(3 * target.width * target.height);
    for row in 0..target.height {
        for column in 0..target.width {
            let mut sum = [0.0; 3];
            for point in 0..SAMPLES * SAMPLES {
                let u = column as f64 + ((point % SAMPLES) as f64 + 0.5) / SAMPLES as f64;
                let v = row as f64 + ((point / SAMPLES) as f64 + 0.5) / SAMPLES as f64;
                let (dx, dy) =
                    ((u / target.width as f64 - 0.5) * crop.width, (v / target.height as f64 - 0.5) * crop.height);
                let colour = bilinear(frame, crop.x + dx * cos - dy * sin, crop.y + dx * sin + dy * cos);
                (0..3).for_each(|c| sum[c] += colour[c]);
            }
            rgb.extend(sum.map(|total| (total / (SAMPLES * SAMPLES) as f64).round().clamp(0.0, 255.0) as u8));
        }
    }
    Frame { width: target.width, height: target.height, rgb }
}

/// The colour at a point; pixel centres lie at halves, and the border pixels go on for ever.
fn bilinear(frame: &Frame, x: f64, y: f64) -> [f64; 3] {
    let x = (x - 0.5).clamp(0.0, (frame.width - 1) as f64);
    let y = (y - 0.5).clamp(0.0, (frame.height - 1) as f64);
    let (left, top) = (x as usize, y as usize);
    let (right, bottom) = ((left + 1).min(frame.width - 1), (top + 1).min(frame.height - 1));
    let (fx, fy) = (x - left as f64, y - top as f64);
    let corners =
        [(left, top), (right, top), (left, bottom), (right, bottom)].map(|(x, y)| frame.pixel(x, y).map(f64::from));
    std::array::from_fn(|c| {
        let upper = corners[0][c] * (1.0 - fx) + corners[1][c] * fx;
        let lower = corners[2][c] * (1.0 - fx) + corners[3][c] * fx;
        upper * (1.0 - fy) + lower * fy
    })
}
