//! What the networks before the UNet made of a data set, in files: the moments of clips and the states of captions.
//!
//! A cache holds the stream of one seed: its entry number `p` is what position `p` of the stream would be decoded to, for the
//! first [`Form::positions`] epochs, and after those, if asked, the same once more mirrored. So a run from the cache equals
//! one without it as long as the cache lasts; later epochs have orders of their own and take up the entries again.
//!
//! A cache is of a [`Key`]: what decides which clips, frames and captions there are, and which networks looked at them, by the
//! values of their weights and not by their paths. Of the clips it knows the names and captions, not the bytes: a file that was
//! replaced by another of its name is not noticed here. `animatediff data check --verify` tells of those.
//!
//! This module reads, and checks that what is read is what was written, and for this set and these networks. Encoding is
//! [`crate::train::caching`]'s.

mod manifest;
mod store;

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, OnceLock};

pub use manifest::{Form, Key, MANIFEST, Manifest, Shard};
use store::Store;

use super::faults::{DataError, Failure};
use super::{Dataset, Sample};

/// The tensor in a shard of clips, `[entries, F, 2·C, h, w]`: mean and logarithm of the variance, side by side.
pub const MOMENTS: &str = "moments";
/// The tensor in a shard of captions, `[captions, L, D]`.
pub const STATES: &str = "states";

/// What the networks before the UNet make of a clip and its caption, as bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct Encoded {
    /// `[F, 2·C, h, w]`.
    pub moments: Stored,
    /// Of the caption, `[L, D]`.
    pub states: Stored,
    /// Of the empty caption, `[L, D]`.
    pub empty: Stored,
}

/// The values of a tensor, row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    /// Little-endian floats.
    pub bytes: Arc<[u8]>,
    /// Shape.
    pub shape: Vec<i64>,
    /// Float16 rather than float32.
    pub half: bool,
}

/// The captions of a set, each once.
#[derive(Clone, Debug)]
pub struct Captions {
    /// The empty one, then the others in the order in which they first come.
    pub texts: Vec<String>,
    /// Which of them each clip has.
    pub rows: Vec<u32>,
}

impl Captions {
    /// Those of `dataset`.
    ///
    /// # Errors
    /// When its list is damaged.
    pub fn of(dataset: &Dataset) -> Result<Captions, DataError> {
        let mut texts = vec![String::new()];
        let mut seen = HashMap::from([(String::new(), 0)]);
        let row = |item: usize| {
            let row = dataset.row(item).map_err(|failure| failure.of_the_set().expect("only a list fails here"))?;
            let caption = row.caption.to_string();
            Ok(*seen.entry(caption).or_insert_with_key(|caption| {
                texts.push(caption.clone());
                texts.len() as u32 - 1
            }))
        };
        let rows = (0..dataset.len()).map(row).collect::<Result<_, _>>()?;
        Ok(Captions { texts, rows })
    }
}

/// A complete cache, open for reading.
#[derive(Debug)]
pub struct Cache {
    manifest: Manifest,
    latents: Store,
    texts: Store,
    empty: Stored,
    rows: Vec<u32>,
    /// Where each clip stands in each epoch that is kept, once a run is past them.
    places: OnceLock<Vec<Vec<u32>>>,
}

impl Cache {
    /// Opens the cache in `folder` for a run of `dataset` that is described by `key`. Shards are hashed when they are first
    /// read from, not here.
    ///
    /// # Errors
    /// When it is not complete, a file is missing, or it was made for something else: the key that differs, with both values.
    pub fn open(folder: &Path, key: &Key, dataset: &Dataset) -> Result<Cache, DataError> {
        let bad = |reason: String| DataError::Cache { path: folder.to_path_buf(), reason };
        let manifest = Manifest::read(folder)?
            .ok_or_else(|| bad("holds no cache; make one with `animatediff data cache`, or correct the path".into()))?;
        if let Some(difference) = manifest.key.difference(key) {
            return Err(bad(format!(
                "{difference}; make it anew with `animatediff data cache`, or take `train_data.cache` out"
            )));
        }
        let captions = Captions::of(dataset)?;
        if !manifest.is_complete() || manifest.form.texts != captions.texts.len() {
            return Err(bad(
                "is not complete; run the same `animatediff data cache` again, which goes on where it stopped".into(),
            ));
        }
        let form = &manifest.form;
        let latents = Store::open(folder, MOMENTS, &manifest.latents, form.shard_clips, &form.moments, form.half)?;
        let texts = Store::open(folder, STATES, &manifest.texts, form.shard_texts, &form.states, form.half)?;
        let empty = texts.row(0).map_err(|failure| bad(failure.to_string()))?.expect("captions are all there");
        Ok(Cache { latents, texts, empty, rows: captions.rows, places: OnceLock::new(), manifest })
    }

    /// What it was made of, and how.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The item at `position` of the stream, as far as the cache tells it: no pixels.
    pub fn sample(&self, dataset: &Dataset, position: u64) -> Result<Sample, Failure> {
        let Key { global_seed, sample_size, sample_n_frames, .. } = self.manifest.key;
        let item = dataset.item_at(global_seed, position);
        let moments = self.latents.row(self.entry(dataset, position, item))?;
        let moments = moments.map_err(|reason| Failure::NotCached { path: dataset.path(item), reason })?;
        let states = self.texts.row(u64::from(self.rows[item]))?.expect("captions are all there");
        let row = dataset.row(item)?;
        Ok(Sample {
            position,
            id: row.id(),
            caption: row.caption.to_string(),
            pixels: Vec::new(),
            frames: sample_n_frames,
            height: sample_size.height,
            width: sample_size.width,
            encoded: Some(Encoded { moments, states, empty: self.empty.clone() }),
        })
    }

    /// The entry that serves `item` at `position`: its own while they last, then those of earlier epochs in turn.
    fn entry(&self, dataset: &Dataset, position: u64, item: usize) -> u64 {
        let (clips, form) = (self.manifest.key.clips as u64, &self.manifest.form);
        if position < clips * form.positions as u64 {
            return position;
        }
        let pass = position / clips % form.passes();
        let (epoch, mirrored) = (pass % form.positions as u64, pass / form.positions as u64);
        let places = self.places.get_or_init(|| self.places(dataset));
        (mirrored * form.positions as u64 + epoch) * clips + u64::from(places[epoch as usize][item])
    }

    fn places(&self, dataset: &Dataset) -> Vec<Vec<u32>> {
        let Key { global_seed, clips, .. } = self.manifest.key;
        let epoch = |epoch: usize| {
            let mut places = vec![0; clips];
            for place in 0..clips {
                places[dataset.item_at(global_seed, (epoch * clips + place) as u64)] = place as u32;
            }
            places
        };
        (0..self.manifest.form.positions).map(epoch).collect()
    }
}
