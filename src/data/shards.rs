//! Clips in tar archives, as WebDataset keeps them: `key.mp4` beside `key.txt` or `key.json`, in shards of some thousand.
//!
//! The archives are scanned once, headers only, and what was found is kept as an [`super::index`] beside the first of them; it is
//! used again as long as all archives have the size and the time of change that they had. So any clip is reached at once, and
//! archives of millions of clips open in a moment.
//!
//! **Order.** Each epoch takes the shards in an order of its own, one after another, and the clips in them in the order of the
//! archive; windows of `shuffle_buffer` clips of that sequence are shuffled, each by itself. Both orders are computed from the seed and
//! the epoch, like that of [`super::order`]: so a position leads to its clip with no memory of what came before, a run resumes at
//! the exact clip, and processes that take every n-th position share the clips without overlap. Reading stays within a window: what
//! the system reads ahead of an archive is used soon.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::archive::{self, Found, Rest};
use super::faults::{DataError, Failure, fault};
use super::index::{self, Index, size_and_change};
use super::order;
use super::rows::{Member, Row};
use crate::video::VideoError;

/// Archives that are scanned side by side before their clips are written down.
const AT_ONCE: usize = 64;
/// Of what a scan takes for a clip: a list that was made otherwise is not used again.
const SCAN: u8 = 1;

/// Open archives and the list of their clips.
#[derive(Debug)]
pub(super) struct Shards {
    index: Index,
    shards: Vec<Shard>,
    /// Clips that are shuffled among one another.
    window: u64,
    /// The order of the epoch that was asked for last.
    latest: Mutex<Option<Arc<Epoch>>>,
}

/// One archive as it was when it was scanned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Shard {
    path: PathBuf,
    bytes: u64,
    /// Nanoseconds since 1970.
    changed: u64,
    /// Number of its first clip.
    first: u64,
}

/// The order in which one epoch takes the shards.
#[derive(Debug)]
struct Epoch {
    key: u64,
    /// Shards in their order, each with the number of clips in those before it.
    order: Vec<(usize, u64)>,
}

impl Shards {
    /// Opens the archives at `paths`, of which there is at least one. Pictures count as clips if `pictures`.
    pub fn open(paths: &[PathBuf], window: usize, pictures: bool) -> Result<Shards, DataError> {
        let shards = paths.iter().map(|path| Shard::of(path)).collect::<Result<Vec<_>, _>>()?;
        let kept = kept_at(paths, pictures);
        let (index, shards) = match reopen(&kept, &shards) {
            Some(found) => found,
            None => scan(&kept, shards, pictures)?,
        };
        Ok(Shards { index, shards, window: window as u64, latest: Mutex::new(None) })
    }

    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// A hash of all names, captions and places, and of the window that shuffles them.
    pub fn fingerprint(&self) -> String {
        let text = format!("{} {}", self.index.fingerprint(), self.window);
        blake3::hash(text.as_bytes()).to_hex().to_string()
    }

    pub fn empty_captions(&self) -> usize {
        self.index.empty_captions()
    }

    pub fn row(&self, item: usize) -> Result<Row<'_>, Failure> {
        self.index.row(item)
    }

    /// What a clip is called in messages: its archive, its name there and where it begins.
    pub fn name(&self, row: &Row) -> PathBuf {
        let place = row.member.and_then(|member| Some((self.shard(member)?, member.offset)));
        let shard = place.map_or(String::new(), |(shard, offset)| format!("{}, byte {offset}: ", shard.path.display()));
        PathBuf::from(format!("{shard}{}", row.file))
    }

    /// The clip's bytes.
    pub fn read(&self, row: &Row) -> Result<Vec<u8>, Failure> {
        let unreadable = |reason: String| Failure::Video(VideoError::Unreadable { path: self.name(row), reason });
        let member = row.member.ok_or_else(|| unreadable("the list does not say where it is".into()))?;
        let shard = self.shard(member).ok_or_else(|| unreadable("the list names no such archive".into()))?;
        let end = member.offset.checked_add(member.length).filter(|end| *end <= shard.bytes);
        if end.is_none() {
            return Err(unreadable("it lies beyond the end of its archive".into()));
        }
        let mut bytes = vec![0; member.length as usize];
        let read = File::open(&shard.path).and_then(|file| file.read_exact_at(&mut bytes, member.offset));
        read.map(|()| bytes).map_err(|error| unreadable(error.to_string()))
    }

    fn shard(&self, member: Member) -> Option<&Shard> {
        self.shards.get(usize::try_from(member.shard).ok()?)
    }

    /// Number of the clip at `position` of the stream of `seed`.
    pub fn item_at(&self, seed: u64, position: u64) -> usize {
        let count = self.len() as u64;
        let (epoch, place) = (self.epoch(order::mix(seed, position / count)), position % count);
        let window = place / self.window;
        let start = window * self.window;
        let length = self.window.min(count - start);
        let place = start + order::permute(order::mix(epoch.key, window + 1), place - start, length);
        let (shard, before) = epoch.order[epoch.order.partition_point(|(_, before)| *before <= place) - 1];
        (self.shards[shard].first + place - before) as usize
    }

    fn epoch(&self, key: u64) -> Arc<Epoch> {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        match &*latest {
            Some(epoch) if epoch.key == key => Arc::clone(epoch),
            _ => Arc::clone(latest.insert(Arc::new(self.order_of(key)))),
        }
    }

    fn order_of(&self, key: u64) -> Epoch {
        let count = self.shards.len();
        let mut before = 0;
        let mut order = Vec::with_capacity(count);
        for place in 0..count {
            let shard = order::permute(key, place as u64, count as u64) as usize;
            let end = self.shards.get(shard + 1).map_or(self.len() as u64, |next| next.first);
            let clips = end - self.shards[shard].first;
            // An archive without clips has no place.
            if clips > 0 {
                order.push((shard, before));
            }
            before += clips;
        }
        Epoch { key, order }
    }
}

impl Shard {
    fn of(path: &Path) -> Result<Shard, DataError> {
        let cannot = |error: std::io::Error| fault(path, format!("cannot be read ({error}); correct `shards`"));
        let path = path.canonicalize().map_err(cannot)?;
        let (bytes, changed) = size_and_change(&path).map_err(cannot)?;
        Ok(Shard { path, bytes, changed, first: 0 })
    }

    fn is_same(&self, other: &Shard) -> bool {
        (&self.path, self.bytes, self.changed) == (&other.path, other.bytes, other.changed)
    }
}

/// Where the list of these archives is kept: beside the first, under a name that only they give.
fn kept_at(paths: &[PathBuf], pictures: bool) -> PathBuf {
    let mut hasher = blake3::Hasher::new();
    for path in paths {
        hasher.update(path.as_os_str().as_encoded_bytes()).update(b"\n");
    }
    let hash = hasher.update(&[u8::from(pictures), SCAN]).finalize().to_hex();
    paths[0].with_file_name(format!(".shards-{}.index", &hash[..16]))
}

/// The list that was kept, if it is of `shards` as they are now.
fn reopen(kept: &Path, shards: &[Shard]) -> Option<(Index, Vec<Shard>)> {
    let index = kept.exists().then(|| Index::open(kept).ok())??;
    let known: Vec<Shard> = serde_json::from_str(index.archives()?).ok()?;
    let same = known.len() == shards.len() && known.iter().zip(shards).all(|(known, now)| known.is_same(now));
    let rising = known.windows(2).all(|pair| pair[0].first <= pair[1].first)
        && known.last().is_some_and(|last| last.first <= index.len() as u64);
    (same && rising).then_some((index, known))
}

/// Reads the headers of all archives and keeps what is in them at `kept`, or, where nothing can be written, in a file that goes when
/// it is closed.
fn scan(kept: &Path, shards: Vec<Shard>, pictures: bool) -> Result<(Index, Vec<Shard>), DataError> {
    let failed = |error: anyhow::Error, path: &Path| match error.downcast::<DataError>() {
        Ok(error) => error,
        Err(error) => fault(path, format!("{error:#}")),
    };
    match write(kept, shards.clone(), pictures) {
        Ok(shards) => Ok((Index::open(kept)?, shards)),
        Err(error) if error.is::<DataError>() => Err(failed(error, kept)),
        Err(error) => {
            tracing::warn!("the list of the archives cannot be kept, so they are scanned at each start: {error:#}");
            let folder = tempfile::tempdir().map_err(|error| failed(error.into(), kept))?;
            let path = folder.path().join("shards.index");
            let shards = write(&path, shards, pictures).map_err(|error| failed(error, &path))?;
            Ok((Index::open(&path)?, shards))
        }
    }
}

/// Writes the list of what is in the archives; gives the archives with the numbers of their first clips.
fn write(out: &Path, mut shards: Vec<Shard>, pictures: bool) -> Result<Vec<Shard>> {
    let mut rest = Rest::default();
    index::build_of_archives(out, |rows| {
        for start in (0..shards.len()).step_by(AT_ONCE) {
            let end = (start + AT_ONCE).min(shards.len());
            let part = &mut shards[start..end];
            let found: Vec<Found> =
                part.par_iter().map(|shard| archive::scan(&shard.path, pictures)).collect::<Result<_, _>>()?;
            for (number, (shard, found)) in part.iter_mut().zip(found).enumerate() {
                shard.first = rows.count as u64;
                for clip in &found.clips {
                    let place = Member { shard: (start + number) as u64, offset: clip.offset, length: clip.length };
                    rows.push(Row { file: &clip.file, caption: &clip.caption, member: Some(place) })?;
                }
                rest.add(&shard.path, found.rest);
            }
        }
        warn_of(&rest);
        match (rows.count, shards.first()) {
            (0, Some(first)) => Err(fault(&first.path, nothing(&rest, shards.len())).into()),
            _ => Ok(serde_json::to_string(&shards).context("the archives cannot be named")?),
        }
    })?;
    Ok(shards)
}

fn warn_of(rest: &Rest) {
    if let Some(first) = &rest.first_lone {
        let Rest { clips, captions, .. } = rest;
        tracing::warn!(
            "{clips} clips without a caption and {captions} captions without a clip are left out, first {first}"
        );
    }
}

/// Why there is nothing in so many archives.
fn nothing(rest: &Rest, shards: usize) -> String {
    let mut text = format!(
        "no clip with a caption in {shards} archives ({} clips without, {} captions without a clip); put `key.mp4` and \
         `key.txt` or `key.json` beside one another",
        rest.clips, rest.captions
    );
    if rest.pictures > 0 {
        text += &format!("; {} pictures are there, which serve where one frame is taken of each clip", rest.pictures);
    }
    if let Some(first) = &rest.first_other {
        text += &format!("; a key ends at the first dot, so that other members are no clips, such as {first}");
    }
    text
}
