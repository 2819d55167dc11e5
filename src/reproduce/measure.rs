//! What the claims ask of clips, in terms of [`eval`](crate::eval)'s measures.

use rayon::prelude::*;

use crate::{
    clip::Clip,
    data::{
        augment,
        shapes::{Scene, Style},
    },
    eval::{camera, classify, jump, style, track, watermark},
    frame::Frame,
};

pub use crate::{
    data::shapes::Motion,
    eval::{camera::Similarity, jump::Jump},
};

/// What an animation shows of what was asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// The motion that the clip shows, if it is one.
    pub motion: Option<Motion>,
    /// Whether that is the prompted one.
    pub moves: bool,
    /// Whether the middle frame shows the prompted shape in the prompted colour.
    pub shows: bool,
}

/// Judges each clip by the scene that its prompt described.
pub fn verdicts(clips: &[Clip], scenes: &[Scene], style: Style) -> Vec<Verdict> {
    clips.par_iter().zip(scenes).map(|(clip, scene)| verdict(clip, scene, style)).collect()
}

fn verdict(clip: &Clip, scene: &Scene, style: Style) -> Verdict {
    let motion = track::track(clip).and_then(|track| track.motion());
    let middle = clip.frames.get(clip.frames.len() / 2);
    let shows = middle.is_some_and(|frame| shows(frame, scene, style));
    Verdict { motion, moves: motion == Some(scene.motion), shows }
}

/// Whether `frame` shows the scene's shape in its colour.
pub fn shows(frame: &Frame, scene: &Scene, style: Style) -> bool {
    classify::classify(frame, style).is_some_and(|found| found.shape == scene.shape && found.colour == scene.colour)
}

/// The share of `items` that `is` true of; NaN of none.
pub fn share<T>(items: &[T], is: impl Fn(&T) -> bool) -> f64 {
    items.iter().filter(|item| is(item)).count() as f64 / items.len() as f64
}

/// The mean; NaN of nothing.
pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// The jumps of those clips in which a shape can be followed.
pub fn jumps(clips: &[Clip]) -> Vec<Jump> {
    clips.par_iter().filter_map(jump::jump).collect()
}

/// How many times as much the first jump as the second; NaN where there is nothing to compare.
pub fn jump_ratio(these: &[Jump], those: &[Jump]) -> Jump {
    if these.is_empty() || those.is_empty() {
        return Jump { place: f64::NAN, colour: f64::NAN, background: f64::NAN };
    }
    jump::ratio(these, those)
}

/// The parts of a jump, named.
pub fn jump_parts(jump: Jump) -> [(&'static str, f64); 3] {
    [("jump of place", jump.place), ("jump of colour", jump.colour), ("jump of background", jump.background)]
}

/// How strongly all of `clips` together carry the watermark.
pub fn watermark(clips: &[Clip]) -> f64 {
    let frames: Vec<Frame> = clips.iter().flat_map(|clip| clip.frames.iter().cloned()).collect();
    watermark::energy(&frames)
}

/// What the camera does in each clip.
pub fn cameras(clips: &[Clip]) -> Vec<Similarity> {
    clips.par_iter().map(camera::fit).collect()
}

/// The share of cameras that do `motion`, and nothing else that counts beside it ([`Similarity::shows`]).
pub fn share_of_camera(cameras: &[Similarity], motion: augment::Motion) -> f64 {
    share(cameras, |found| found.shows(motion))
}

/// The share of cameras that do all of `motions`, each as far as it would have to alone.
pub fn share_of_all(cameras: &[Similarity], motions: &[augment::Motion]) -> f64 {
    share(cameras, |found| motions.iter().all(|motion| found.amount(*motion) >= found.least(*motion)))
}

/// How far the cameras go in the way of `motion`, in the mean.
pub fn amount_of_camera(cameras: &[Similarity], motion: augment::Motion) -> f64 {
    mean(&cameras.iter().map(|found| found.amount(motion)).collect::<Vec<_>>())
}

/// How far `frames` are from `stills` in style, in multiples of how far the stills are from each other.
pub fn style_distance(frames: &[Frame], stills: &[Frame]) -> f64 {
    style::distance(frames, stills) / style::spread(stills)
}

/// Peak signal-to-noise ratio in dB, over all pixels of all frames.
pub fn psnr(these: &[Frame], those: &[Frame]) -> f64 {
    let squares = |(a, b): (&Frame, &Frame)| -> f64 {
        a.rgb.iter().zip(&b.rgb).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum()
    };
    let total: f64 = these.iter().zip(those).map(squares).sum();
    let count: usize = these.iter().map(|frame| frame.rgb.len()).sum();
    10.0 * (255f64.powi(2) * count as f64 / total).log10()
}
