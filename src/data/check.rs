//! Reads a whole set as training would, every frame of every clip, and says what is wrong with it.
//!
//! [`examine`] looks at one clip, [`Report`] draws all of them together: broken files, sizes and rates, what is there twice,
//! [`cuts`] between scenes, and a [`mark`] that all clips share. [`list`] writes down what was found good, to be compared later.
//!
//! Where an item is a single frame, a picture is a clip, none is too short, the frames of a folder need not be of one size, and
//! rates and cuts are not looked for: no item spans them.

pub mod cuts;
pub mod list;
pub mod mark;
mod report;

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;

use rayon::prelude::*;

pub use report::{Cut, Report, Twice};

use super::dataset::Place;
use super::decode::Walk;
use super::faults::{DataError, Failure};
use super::{Config, Dataset, choice, decode, picture};
use cuts::Cuts;
use mark::{Mark, Still, Structure, Votes};

/// What is known of one clip.
#[derive(Debug)]
pub struct Finding {
    /// Its number in the set.
    pub item: usize,
    /// Its name.
    pub id: String,
    /// Where it lies.
    pub path: PathBuf,
    /// Its caption.
    pub caption: String,
    /// Bytes and hash of its file, or of all frames of its folder; none if it cannot be opened.
    pub content: Option<Content>,
    /// Pixels and frames, of what can be read.
    pub shape: Option<Shape>,
    /// Why it cannot be trained on.
    pub failure: Option<Failure>,
    /// Frames at which another scene begins.
    pub cuts: Vec<usize>,
}

/// What is known of a set.
#[derive(Debug)]
pub struct Findings {
    /// Of each clip that was looked at, in their order.
    pub clips: Vec<Finding>,
    /// What lies over many clips at one place.
    pub marks: Vec<Mark>,
}

/// What a file holds, byte for byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// Size.
    pub bytes: u64,
    /// Hash, in hexadecimal.
    pub blake3: String,
}

/// The measures of a clip.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shape {
    /// Pixels per row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Frames.
    pub frames: usize,
    /// Frames per second; pictures have none, and where items are single frames it does not matter.
    pub fps: Option<f64>,
}

/// The same set, named so that it is found from any folder.
pub fn from_anywhere(config: &Config) -> Config {
    let absolute = |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone());
    let shard = |name: &String| absolute(&PathBuf::from(name)).to_str().map_or_else(|| name.clone(), str::to_owned);
    Config {
        csv_path: config.csv_path.as_ref().map(absolute),
        video_folder: config.video_folder.as_ref().map(absolute),
        videos: config.videos.as_ref().map(absolute),
        shards: config.shards.iter().map(shard).collect(),
        ..config.clone()
    }
}

/// Looks at all clips of `dataset` on `threads` threads. `told` hears how many are done and how many of them cannot be read;
/// `stop` is asked before each clip: what was seen until then is what comes back.
pub fn examine_all(
    dataset: &Dataset,
    threads: usize,
    mut told: impl FnMut(usize, usize),
    stop: impl Fn() -> bool + Sync,
) -> Result<Findings, DataError> {
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .map_err(|error| DataError::Threads(error.to_string()))?;
    // What is read waits here for its vote, which takes one thread: no more of it than is being read.
    let (sender, receiver) = sync_channel(threads);
    let (mut clips, mut votes) = (Vec::with_capacity(dataset.len()), Votes::default());
    thread::scope(|scope| {
        scope.spawn(|| {
            let each = |sender: &mut SyncSender<(Finding, Option<Structure>)>, item| {
                if !stop() {
                    // The receiver lives until all senders are gone.
                    let _ = sender.send(examine(dataset, item));
                }
            };
            pool.install(|| (0..dataset.len()).into_par_iter().for_each_with(sender, each));
        });
        let mut broken = 0;
        for (clip, structure) in receiver {
            broken += usize::from(clip.failure.is_some());
            structure.into_iter().for_each(|structure| votes.add(structure));
            clips.push(clip);
            told(clips.len(), broken);
        }
    });
    clips.sort_by_key(|clip| clip.item);
    Ok(Findings { clips, marks: votes.find() })
}

/// Looks at clip number `item`, from its first frame to its last. Beside what is known of it: what stands still in it.
pub fn examine(dataset: &Dataset, item: usize) -> (Finding, Option<Structure>) {
    let mut finding = Finding {
        item,
        id: dataset.id(item),
        caption: dataset.caption(item).to_string(),
        content: None,
        path: dataset.path(item),
        shape: None,
        failure: None,
        cuts: Vec::new(),
    };
    let mut still = Still::default();
    let path = finding.path.clone();
    let look = || look(dataset, &mut finding, &mut still);
    let looked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(look));
    finding.failure = looked.unwrap_or_else(|panic| Err(Failure::of_panic(path, panic.as_ref()))).err();
    (finding, still.structure())
}

fn look(dataset: &Dataset, finding: &mut Finding, still: &mut Still) -> Result<(), Failure> {
    let config = dataset.config();
    let place = dataset.place(&dataset.row(finding.item)?)?;
    finding.content = hashed(&place).ok();
    let single = config.sample_n_frames == 1;
    let (mut cuts, mut size) = (Cuts::default(), None);
    let walked = decode::walk(place, Walk { stills: single, alike: !single }, |frame| {
        size.get_or_insert((frame.width, frame.height));
        if !single {
            cuts.add(&frame);
        }
        still.add(&frame);
    })?;
    let (width, height) = size.expect("a clip without a frame is a failure");
    let fps = walked.fps.filter(|_| !single);
    finding.shape = Some(Shape { width, height, frames: walked.frames, fps });
    finding.cuts = cuts.finish();
    let chosen = choice::choose(config, walked.frames, &mut choice::random(0, 0));
    chosen.map(drop).map_err(|short| Failure::TooShort {
        path: finding.path.clone(),
        available: walked.frames,
        needed: short.needed,
    })
}

/// Size and hash of clip number `item`; none if it cannot be opened.
pub fn content(dataset: &Dataset, item: usize) -> Option<Content> {
    let place = dataset.place(&dataset.row(item).ok()?).ok()?;
    hashed(&place).ok()
}

/// Of a file or a member of an archive, of its bytes; of a folder, of the names and bytes of its frames in their order.
fn hashed(place: &Place) -> io::Result<Content> {
    let mut hasher = blake3::Hasher::new();
    match place {
        Place::Bytes(_, bytes) => {
            hasher.update(bytes);
        }
        Place::Path(path) if path.is_dir() => {
            let files = picture::frames_in(path).map_err(|failure| io::Error::other(failure.to_string()))?;
            for file in &files {
                let name = file.file_name().unwrap_or_default().as_encoded_bytes();
                hasher.update(&(name.len() as u64).to_le_bytes()).update(name);
                hasher.update(&file.metadata()?.len().to_le_bytes());
                hasher.update_reader(File::open(file)?)?;
            }
        }
        Place::Path(path) => {
            hasher.update_reader(File::open(path)?)?;
        }
    }
    Ok(Content { bytes: hasher.count(), blake3: hasher.finalize().to_hex().to_string() })
}
