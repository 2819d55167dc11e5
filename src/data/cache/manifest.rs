//! The list of a cache's files, and what they were made of.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::super::faults::DataError;
use super::super::{ShortClips, Size};
use crate::files;

/// The manifest's name in the folder of a cache.
pub const MANIFEST: &str = "cache.json";
/// Of the layout of files and entries, and of what their key is made of.
const VERSION: u32 = 2;
/// No side of a tensor is longer.
const LONGEST: i64 = 1 << 15;

/// What a cache is of. A run that trains from it must be described by the same.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Key {
    /// Seed of the stream.
    pub global_seed: u64,
    /// Pixels.
    pub sample_size: Size,
    /// Frames per clip.
    pub sample_n_frames: usize,
    /// Every so many frames of a video one is taken; 1 for pictures, which have none between.
    pub sample_stride: usize,
    /// Whether half of the clips are mirrored.
    pub horizontal_flip: bool,
    /// What happens to videos that are too short.
    pub short_clips: ShortClips,
    /// Neighbouring clips of archives that are shuffled among one another.
    pub shuffle_buffer: usize,
    /// Clips in the set.
    pub clips: usize,
    /// Hash of the clips' names and captions in their order: [`super::super::Dataset::fingerprint`].
    pub data: String,
    /// Hash of the VAE's encoder, its weights and what else decides what it computes.
    pub vae: String,
    /// Hash of the text encoder and the tokenizer, likewise.
    pub text_encoder: String,
}

impl Key {
    /// The first thing in which a cache of this key does not serve a run of `run`, in words.
    pub fn difference(&self, run: &Key) -> Option<String> {
        let fields = |key: &Key| serde_json::to_value(key).expect("a key is plain data");
        let (had, wanted) = (fields(self), fields(run));
        let (had, wanted) = (had.as_object().expect("a struct"), wanted.as_object().expect("a struct"));
        let (name, had) = had.iter().find(|(name, value)| wanted[*name] != **value)?;
        Some(match name.as_str() {
            "data" => "was made of other clips or captions (`data`: names, captions and their order)".into(),
            "vae" => "was made with another VAE (`vae`: the hash of its encoder differs)".into(),
            "text_encoder" => {
                "was made with another text encoder or tokenizer (`text_encoder`: the hash differs)".into()
            }
            _ => format!("was made with `{name}` {}, and here it is {}", plain(had), plain(&wanted[name])),
        })
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// How a cache is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Form {
    /// Epochs of the stream that are kept: so many choices of frames for each clip.
    pub positions: usize,
    /// Whether each of them is kept mirrored, too.
    pub both_flips: bool,
    /// Float16 rather than float32.
    pub half: bool,
    /// Entries per shard of clips.
    pub shard_clips: u64,
    /// Captions per shard.
    pub shard_texts: u64,
    /// Shape of an entry: `[F, 2·C, h, w]`.
    pub moments: Vec<i64>,
    /// Shape of a caption's states: `[L, D]`.
    pub states: Vec<i64>,
    /// Captions, each once, the empty one among them.
    pub texts: usize,
}

impl Form {
    /// Entries per clip.
    pub fn passes(&self) -> u64 {
        self.positions as u64 * if self.both_flips { 2 } else { 1 }
    }
}

/// One file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Shard {
    /// Its name in the folder.
    pub file: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// Its hash.
    pub blake3: String,
    /// Entries whose clip could not be read, and why. They have no row in the file.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub missing: BTreeMap<u64, String>,
}

/// What a cache is of, how it is kept, and its files as far as they are written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    version: u32,
    /// What it is of.
    pub key: Key,
    /// How it is kept.
    pub form: Form,
    /// Shards of clips.
    pub latents: Vec<Shard>,
    /// Shards of captions.
    pub texts: Vec<Shard>,
}

impl Manifest {
    /// Of a cache without files yet.
    pub fn new(key: Key, form: Form) -> Manifest {
        Manifest { version: VERSION, key, form, latents: Vec::new(), texts: Vec::new() }
    }

    /// The manifest in `folder`, if there is one.
    ///
    /// # Errors
    /// When it cannot be read, or is of another version.
    pub fn read(folder: &Path) -> Result<Option<Manifest>, DataError> {
        let path = folder.join(MANIFEST);
        let bad = |reason: String| DataError::Cache { path: path.clone(), reason };
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(bad(format!("cannot be read ({error}); check its permissions"))),
        };
        let value: Value = serde_json::from_slice(&text)
            .map_err(|error| bad(format!("not JSON ({error}); remove the folder and make the cache anew")))?;
        if value["version"] != VERSION {
            return Err(bad(format!(
                "of version {}, and this program reads {VERSION}; remove the folder and make the cache anew",
                value["version"]
            )));
        }
        let manifest: Manifest = serde_json::from_value(value)
            .map_err(|error| bad(format!("not a manifest ({error}); remove the folder and make the cache anew")))?;
        if !manifest.is_sound() {
            return Err(bad("contradicts itself; remove the folder and make the cache anew".into()));
        }
        Ok(Some(manifest))
    }

    /// Whether its numbers can be those of a cache.
    fn is_sound(&self) -> bool {
        let Manifest { key, form, texts, .. } = self;
        let shapes = matches!((&form.moments[..], &form.states[..]), ([frames, _, _, _], [_, _]) if *frames == key.sample_n_frames as i64)
            && form.moments.iter().chain(&form.states).all(|side| (1..=LONGEST).contains(side));
        let counts = [key.clips as u64, form.positions as u64, form.shard_clips, form.shard_texts, form.texts as u64];
        shapes && !counts.contains(&0) && texts.iter().all(|shard| shard.missing.is_empty())
    }

    /// Puts it into `folder`, atomically.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let text = serde_json::to_vec_pretty(self)?;
        files::write_atomic(&folder.join(MANIFEST), |out| Ok(out.write_all(&text)?))
    }

    /// Entries in all.
    pub fn entries(&self) -> u64 {
        self.key.clips as u64 * self.form.passes()
    }

    /// Files that a complete cache has: of clips, and of captions.
    pub fn shards(&self) -> (usize, usize) {
        let Form { shard_clips, shard_texts, texts, .. } = &self.form;
        (self.entries().div_ceil(*shard_clips) as usize, (*texts as u64).div_ceil(*shard_texts) as usize)
    }

    /// Whether all of them are there.
    pub fn is_complete(&self) -> bool {
        (self.latents.len(), self.texts.len()) == self.shards()
    }
}
