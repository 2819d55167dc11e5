//! From a position of the stream to one training item.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use super::cache::Encoded;
use super::choice::{self, Choice, TooShort};
use super::dataset::Place;
use super::faults::Failure;
use super::pixels::{self, Pixels};
use super::{Config, Dataset, picture};
use crate::frame::Frame;
use crate::video::Video;

/// One training item, still in plain bytes and numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Position in the stream that was asked for.
    pub position: u64,
    /// The clip's name.
    pub id: String,
    /// The clip's caption.
    pub caption: String,
    /// `[F,3,H,W]`, row-major, -1 to 1. Empty where the clip comes from a cache.
    pub pixels: Vec<f32>,
    /// F.
    pub frames: usize,
    /// H.
    pub height: usize,
    /// W.
    pub width: usize,
    /// What the networks before the UNet made of clip and caption, where that is known.
    pub encoded: Option<Encoded>,
}

impl Dataset {
    /// Reads the item at `position` of the stream of `seed`. Depends on nothing but the files and these two numbers.
    pub fn decode(&self, seed: u64, position: u64) -> Result<Sample, Failure> {
        self.decode_as(seed, position, false)
    }

    /// As [`Dataset::decode`], the other way round if `mirrored`; a decoder that panics is a failure, too.
    pub fn try_decode(&self, seed: u64, position: u64, mirrored: bool) -> Result<Sample, Failure> {
        catch_unwind(AssertUnwindSafe(|| self.decode_as(seed, position, mirrored)))
            .unwrap_or_else(|panic| Err(Failure::of_panic(self.path(self.item_at(seed, position)), panic.as_ref())))
    }

    fn decode_as(&self, seed: u64, position: u64, mirrored: bool) -> Result<Sample, Failure> {
        let mut random = choice::random(seed, position);
        let choose = |available| {
            let choice = choice::choose(self.config(), available, &mut random)?;
            Ok(Choice { flip: choice.flip != mirrored, ..choice })
        };
        Ok(Sample { position, ..self.read(self.item_at(seed, position), choose)? })
    }

    /// Reads the frames of clip number `item` that `choose` picks from however many there are. The position is then 0.
    pub(crate) fn read(
        &self,
        item: usize,
        choose: impl FnMut(usize) -> Result<Choice, TooShort>,
    ) -> Result<Sample, Failure> {
        let config = self.config();
        let row = self.row(item)?;
        let pixels = read(config, self.place(&row)?, choose)?;
        Ok(Sample {
            position: 0,
            id: row.id(),
            caption: row.caption.to_string(),
            pixels,
            frames: config.sample_n_frames,
            height: config.sample_size.height,
            width: config.sample_size.width,
            encoded: None,
        })
    }
}

/// A clip in whatever form, open.
enum Opened {
    /// A folder and the frames in it.
    Frames(PathBuf, Vec<PathBuf>),
    Picture(Frame),
    Video(Box<Video>),
}

impl Opened {
    /// Opens `place`. `stills` says whether a picture is a clip.
    fn of(place: Place, stills: bool) -> Result<Opened, Failure> {
        let (path, bytes) = match place {
            Place::Path(path) => (path, None),
            Place::Bytes(name, bytes) => (name, Some(bytes)),
        };
        if bytes.is_none() && path.is_dir() {
            let files = picture::frames_in(&path)?;
            return Ok(Opened::Frames(path, files));
        }
        if stills && picture::has_picture_extension(&path) {
            let frame = bytes.map_or_else(|| picture::read(&path), |bytes| picture::from_bytes(&path, &bytes));
            return frame.map(Opened::Picture);
        }
        let video = bytes.map_or_else(|| Video::open(&path), |bytes| Video::from_bytes(&path, bytes));
        Ok(Opened::Video(video?.into()))
    }

    /// Frames.
    fn len(&self) -> usize {
        match self {
            Opened::Frames(_, files) => files.len(),
            Opened::Picture(_) => 1,
            Opened::Video(video) => video.len(),
        }
    }
}

/// The pixels of the frames that `choose` picks from however many there are.
fn read(
    config: &Config,
    place: Place,
    mut choose: impl FnMut(usize) -> Result<Choice, TooShort>,
) -> Result<Vec<f32>, Failure> {
    let (size, path) = (config.sample_size, place.name().to_path_buf());
    let opened = Opened::of(place, config.sample_n_frames == 1)?;
    let available = opened.len();
    let choice = choose(available).map_err(|short| Failure::TooShort { path, available, needed: short.needed })?;
    Ok(match opened {
        Opened::Frames(path, files) => {
            pixels::pixels(&picture::read_frames(&path, &files, &choice.frames)?, size, choice.flip)
        }
        Opened::Picture(frame) => pixels::pixels(&[frame], size, choice.flip),
        Opened::Video(mut video) => {
            let mut pixels = Pixels::new(size, choice.flip, choice.frames.len());
            video.read_planes(&choice.frames, |planes, times| (0..times).for_each(|_| pixels.push(planes)))?;
            pixels.finish()
        }
    })
}

/// Every frame of a clip in whatever form; of a picture, one.
pub fn read_all(path: &Path) -> Result<Vec<Frame>, Failure> {
    let mut frames = Vec::new();
    walk(Place::Path(path.to_path_buf()), Walk { stills: true, alike: true }, |frame| frames.push(frame))?;
    Ok(frames)
}

/// What [`walk`] takes for a clip.
#[derive(Clone, Copy)]
pub(super) struct Walk {
    /// A picture, too.
    pub stills: bool,
    /// Of a folder's frames, only those of one size.
    pub alike: bool,
}

/// What [`walk`] went through.
pub(super) struct Walked {
    /// Frames.
    pub frames: usize,
    /// Frames per second, of a video.
    pub fps: Option<f64>,
}

/// Has `each` see every frame of a clip in turn, few of them in memory at a time.
pub(super) fn walk(place: Place, form: Walk, mut each: impl FnMut(Frame)) -> Result<Walked, Failure> {
    let opened = Opened::of(place, form.stills)?;
    let frames = opened.len();
    let fps = match opened {
        Opened::Frames(folder, files) => {
            let mut size = None;
            for file in &files {
                let frame = picture::read(file)?;
                let first = *size.get_or_insert((frame.width, frame.height));
                if form.alike && first != (frame.width, frame.height) {
                    return Err(picture::unlike(&folder, file, &frame, first));
                }
                each(frame);
            }
            None
        }
        Opened::Picture(frame) => {
            each(frame);
            None
        }
        Opened::Video(mut video) => {
            for index in 0..frames {
                video.read(&[index])?.into_iter().for_each(&mut each);
            }
            Some(video.fps())
        }
    };
    Ok(Walked { frames, fps })
}
