//! Makes the cache of a data set: every clip through the VAE and every caption through the text encoder, once.
//!
//! One process at a time writes a cache. Shards appear whole, each is entered in the manifest when it is on the disk, and those
//! that are there already are kept if their hashes are right: so the work can be stopped at any moment and taken up again.

use std::{
    collections::BTreeMap,
    fs,
    ops::Range,
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{Receiver, sync_channel},
    },
    thread,
};

use anyhow::{Context, Result, anyhow, bail};
use rayon::prelude::*;
use tch::{Device, Kind, Tensor, no_grad};

use super::{Config, Refused, Stage, encode, folder, recipe::Recipe};
use crate::{
    assemble::Base,
    data::{
        self, Dataset, Sample,
        cache::{Captions, Form, Key, MANIFEST, MOMENTS, Manifest, STATES, Shard},
        faults::Failure,
    },
    files,
    model::{clip::TextEncoder, vae::Vae},
    native::MappedFile,
    nn::Plan,
    tokenizer::Tokenizer,
    weights::{NamedTensors, write::write_safetensors},
};

/// Files of the tokenizer that decide about its tokens.
const TOKENIZER: [&str; 5] =
    ["merges.txt", "special_tokens_map.json", "tokenizer.json", "tokenizer_config.json", "vocab.json"];

/// How a cache is to be kept.
#[derive(Clone, Copy, Debug)]
pub struct Order {
    /// Epochs of the stream.
    pub positions: usize,
    /// Each of them mirrored, too.
    pub both_flips: bool,
    /// Float16 rather than float32.
    pub half: bool,
    /// Size of a shard, in bytes; one row is the least.
    pub shard_bytes: u64,
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Made {
    /// Shards that were there already.
    pub kept: usize,
    /// Shards that were written.
    pub written: usize,
    /// Shards that were there, and damaged.
    pub damaged: usize,
    /// Entries whose clip could not be read.
    pub missing: usize,
    /// Entries of clips.
    pub entries: u64,
    /// Captions.
    pub texts: usize,
    /// Bytes of all shards.
    pub bytes: u64,
    /// Whether it was stopped before the end.
    pub stopped: bool,
}

/// A cache in the making.
pub struct Maker {
    folder: PathBuf,
    manifest: Manifest,
    dataset: Arc<Dataset>,
    captions: Captions,
    tokenizer: Tokenizer,
    text_encoder: TextEncoder,
    vae: Vae,
    device: Device,
    threads: usize,
    _lock: fs::File,
}

/// What identifies a cache for a run of `config`: of `frames` frames per clip, on `dataset` and `base`.
pub fn key(config: &Config, frames: usize, dataset: &Dataset, base: &Base) -> Result<Key> {
    let data = &config.train_data;
    let is_encoder = |name: &str| name.starts_with("encoder.") || name.starts_with("quant_conv.");
    let mut text = blake3::Hasher::new();
    add_tensors(&mut text, &base.text_tensors()?, |_| true)?;
    let tokenizer = base.tokenizer_folder()?;
    for name in TOKENIZER {
        if let Ok(bytes) = fs::read(tokenizer.join(name)) {
            text.update(name.as_bytes()).update(&bytes);
        }
    }
    let mut vae = blake3::Hasher::new();
    add_tensors(&mut vae, &base.vae_tensors()?, is_encoder)?;
    Ok(Key {
        global_seed: config.global_seed,
        sample_size: data.sample_size,
        sample_n_frames: frames,
        sample_stride: if frames == 1 { 1 } else { data.sample_stride },
        horizontal_flip: data.horizontal_flip,
        short_clips: data.short_clips,
        shuffle_buffer: data.shuffle_buffer,
        clips: dataset.len(),
        data: dataset.fingerprint().to_owned(),
        vae: vae.finalize().to_hex().to_string(),
        text_encoder: text.finalize().to_hex().to_string(),
    })
}

/// Adds names, shapes and values (in float32, so that the form of the file does not matter) of what `keep` picks.
fn add_tensors(hasher: &mut blake3::Hasher, tensors: &NamedTensors, keep: impl Fn(&str) -> bool) -> Result<()> {
    for name in tensors.names().filter(|name| keep(name)) {
        let tensor = tensors.get(name).with_context(|| format!("`{name}` is gone"))?.to_kind(Kind::Float).contiguous();
        let mut bytes = vec![0; tensor.numel() * 4];
        tensor.f_copy_data_u8(&mut bytes, tensor.numel())?;
        hasher.update(name.as_bytes()).update(format!("{:?}", tensor.size()).as_bytes()).update(&bytes);
    }
    Ok(())
}

impl Maker {
    /// Loads what is needed and finds out what is in `folder` already.
    ///
    /// # Errors
    /// When the configuration does not serve, or `folder` holds another cache or something else.
    pub fn prepare(stage: Stage, config: &Config, folder: &Path, order: Order) -> Result<Maker> {
        let device = config.device.resolve().map_err(|reason| Refused(anyhow!(reason)))?;
        let (frames, base) = (Recipe::new(stage, config).frames, Base::open_files(&config.base_files())?);
        super::run::check_size(config, &base).map_err(Refused)?;
        let data = data::Config { sample_n_frames: frames, cache: None, ..config.train_data.clone() };
        let dataset = Arc::new(Dataset::open(&data)?);
        let captions = Captions::of(&dataset);
        let tokenizer = base.tokenizer()?;
        let size = data.sample_size;
        let (channels, scale) = (base.vae.latent_channels, base.vae.downscale());
        let moments = vec![frames as i64, 2 * channels, size.height as i64 / scale, size.width as i64 / scale];
        let states = vec![tokenizer.length() as i64, base.text.hidden_size];
        let rows = |shape: &[i64]| {
            let bytes = shape.iter().product::<i64>() as u64 * if order.half { 2 } else { 4 };
            (order.shard_bytes / bytes).max(1)
        };
        let form = Form {
            positions: order.positions,
            both_flips: order.both_flips,
            half: order.half,
            shard_clips: rows(&moments),
            shard_texts: rows(&states),
            moments,
            states,
            texts: captions.texts.len(),
        };
        let wanted = Manifest::new(key(config, frames, &dataset, &base)?, form);
        let (manifest, lock) = take_up(folder, wanted).map_err(Refused)?;
        let (text_encoder, _) = base.text_encoder(Plan::frozen(), device, Kind::Float)?;
        let vae = base.vae(device, Kind::Float)?;
        let (folder, threads) = (folder.to_owned(), config.num_workers);
        Ok(Maker { folder, manifest, dataset, captions, tokenizer, text_encoder, vae, device, threads, _lock: lock })
    }

    /// Entries and captions that a complete cache has.
    pub fn rows(&self) -> u64 {
        self.manifest.entries() + self.captions.texts.len() as u64
    }

    /// Makes what is missing. `told` hears how many rows are done, of [`Maker::rows`]; `stop` is asked after each: then all
    /// whole shards are kept, and the one in the making is not.
    pub fn make(mut self, mut told: impl FnMut(u64), stop: impl Fn() -> bool + Sync) -> Result<Made> {
        let mut made = Made { entries: self.manifest.entries(), texts: self.captions.texts.len(), ..Made::default() };
        self.drop_damaged(&mut made);
        made.kept = self.manifest.texts.len() + self.manifest.latents.len();
        let mut done = 0;
        for number in 0..self.manifest.shards().1 {
            let rows = range(number, self.manifest.form.shard_texts, self.captions.texts.len() as u64);
            if number >= self.manifest.texts.len() {
                let Some(shard) = self.texts(number, rows.clone(), |row| told(done + row), &stop)? else { break };
                self.manifest.texts.push(shard);
                self.enter(&mut made)?;
            }
            done += rows.end - rows.start;
            told(done);
        }
        for number in 0..self.manifest.shards().0 {
            let rows = range(number, self.manifest.form.shard_clips, self.manifest.entries());
            if number >= self.manifest.latents.len() {
                let Some(shard) = self.clips(number, rows.clone(), |row| told(done + row), &stop)? else { break };
                self.manifest.latents.push(shard);
                self.enter(&mut made)?;
            }
            done += rows.end - rows.start;
            told(done);
        }
        let shards = || self.manifest.latents.iter().chain(&self.manifest.texts);
        made.missing = shards().map(|shard| shard.missing.len()).sum();
        made.bytes = shards().map(|shard| shard.bytes).sum();
        made.stopped = !self.manifest.is_complete();
        if made.missing as u64 == made.entries {
            bail!("none of the clips can be read: {}", self.manifest.latents[0].missing.values().next().expect("all"));
        }
        Ok(made)
    }

    fn enter(&self, made: &mut Made) -> Result<()> {
        made.written += 1;
        self.manifest.write(&self.folder)
    }

    /// Keeps the shards before the first one that is not what the manifest says, in either list.
    fn drop_damaged(&mut self, made: &mut Made) {
        let folder = &self.folder;
        let mut keep = |shards: &mut Vec<Shard>| {
            let whole: Vec<bool> = shards.par_iter().map(|shard| is_whole(folder, shard)).collect();
            made.damaged += whole.iter().filter(|whole| !**whole).count();
            shards.truncate(whole.iter().position(|whole| !whole).unwrap_or(shards.len()));
        };
        keep(&mut self.manifest.texts);
        keep(&mut self.manifest.latents);
    }

    /// Makes a shard of captions; none if stopped.
    fn texts(
        &self,
        number: usize,
        rows: Range<u64>,
        mut told: impl FnMut(u64),
        stop: impl Fn() -> bool,
    ) -> Result<Option<Shard>> {
        let mut states = Vec::new();
        for row in rows.clone() {
            if stop() {
                return Ok(None);
            }
            let caption = [self.captions.texts[row as usize].as_str()];
            let found = no_grad(|| encode::states(&self.tokenizer, &self.text_encoder, &caption, self.device));
            states.push(self.kept(&found.squeeze_dim(0)));
            told(row + 1 - rows.start);
        }
        self.write(STATES, number, &states, BTreeMap::new()).map(Some)
    }

    /// Makes a shard of clips; none if stopped. Clips are decoded on threads of their own while others are encoded.
    fn clips(
        &self,
        number: usize,
        rows: Range<u64>,
        mut told: impl FnMut(u64),
        stop: impl Fn() -> bool + Sync,
    ) -> Result<Option<Shard>> {
        let (mut moments, mut missing) = (Vec::new(), BTreeMap::new());
        let pool =
            rayon::ThreadPoolBuilder::new().num_threads(self.threads).build().context("no threads to decode on")?;
        let (source, stop) = (Source::of(self), &stop);
        thread::scope(|scope| {
            let decoded = source.decode_ahead(scope, pool, rows.clone(), stop);
            for (row, outcome) in rows.clone().zip(decoded) {
                match outcome {
                    Ok(sample) => {
                        moments.push(self.kept(&encode::moments(
                            &self.vae,
                            std::slice::from_ref(&sample),
                            self.device,
                        )));
                    }
                    Err(failure) => {
                        tracing::warn!("left out: {failure}");
                        missing.insert(row, failure.to_string());
                    }
                }
                told(row + 1 - rows.start);
                if stop() {
                    break;
                }
            }
        });
        let all = (moments.len() + missing.len()) as u64 == rows.end - rows.start;
        if all { self.write(MOMENTS, number, &moments, missing).map(Some) } else { Ok(None) }
    }

    /// As it is kept: in host memory.
    fn kept(&self, tensor: &Tensor) -> Tensor {
        tensor.to_device(Device::Cpu).to_kind(if self.manifest.form.half { Kind::Half } else { Kind::Float })
    }

    fn write(&self, name: &str, number: usize, rows: &[Tensor], missing: BTreeMap<u64, String>) -> Result<Shard> {
        let file = PathBuf::from(format!("{name}-{number:05}.safetensors"));
        let path = self.folder.join(&file);
        let form = &self.manifest.form;
        let shape = if name == MOMENTS { &form.moments } else { &form.states };
        let kind = if form.half { Kind::Half } else { Kind::Float };
        let all = match rows {
            [] => Tensor::zeros([&[0], &shape[..]].concat(), (kind, Device::Cpu)),
            rows => Tensor::stack(rows, 0),
        };
        write_safetensors(&path, [(name, &all)], &BTreeMap::new())?;
        let written = MappedFile::open(&path).map_err(|error| files::failed(&path, "read back", error))?;
        let blake3 = blake3::hash(&written).to_hex().to_string();
        Ok(Shard { file, bytes: written.len() as u64, blake3, missing })
    }
}

/// What decoding needs of a [`Maker`], without its networks.
#[derive(Clone)]
struct Source {
    dataset: Arc<Dataset>,
    seed: u64,
    /// Entries from this one on are mirrored ones of those from 0 on.
    mirrored_from: u64,
    /// Clips that are decoded together.
    ahead: usize,
}

impl Source {
    fn of(maker: &Maker) -> Source {
        let Manifest { key, form, .. } = &maker.manifest;
        Source {
            dataset: Arc::clone(&maker.dataset),
            seed: key.global_seed,
            mirrored_from: form.positions as u64 * key.clips as u64,
            ahead: maker.threads.max(2),
        }
    }

    fn decode(&self, row: u64) -> Result<Sample, Failure> {
        self.dataset.try_decode(self.seed, row % self.mirrored_from, row >= self.mirrored_from)
    }

    /// The outcomes of `rows` in their order, as they come from threads in `scope`.
    fn decode_ahead<'scope>(
        self,
        scope: &'scope thread::Scope<'scope, '_>,
        pool: rayon::ThreadPool,
        rows: Range<u64>,
        stop: &'scope (impl Fn() -> bool + Sync),
    ) -> impl Iterator<Item = Result<Sample, Failure>> {
        let (sender, receiver): (_, Receiver<Vec<Result<Sample, Failure>>>) = sync_channel(1);
        scope.spawn(move || {
            let rows: Vec<u64> = rows.collect();
            for part in rows.chunks(self.ahead) {
                let outcomes = pool.install(|| part.par_iter().map(|row| self.decode(*row)).collect());
                // Whoever stopped listening wants no more.
                if stop() || sender.send(outcomes).is_err() {
                    break;
                }
            }
        });
        receiver.into_iter().flatten()
    }
}

/// Rows of shard `number`.
fn range(number: usize, rows_per_shard: u64, rows: u64) -> Range<u64> {
    let start = number as u64 * rows_per_shard;
    start..(start + rows_per_shard).min(rows)
}

fn is_whole(folder: &Path, shard: &Shard) -> bool {
    MappedFile::open(&folder.join(&shard.file)).is_ok_and(|file| blake3::hash(&file).to_hex().as_str() == shard.blake3)
}

/// The manifest to go on with in `folder`, which is made if it is not there, and the lock on it.
fn take_up(folder: &Path, wanted: Manifest) -> Result<(Manifest, fs::File)> {
    files::check_writable(folder)?;
    let lock = folder::lock(folder)?;
    files::remove_staging(folder)?;
    match Manifest::read(folder)? {
        Some(manifest) => {
            let asked = |form: &Form| (form.positions, form.both_flips, form.half);
            if let Some(difference) = manifest.key.difference(&wanted.key) {
                bail!("{}: {difference}; choose another folder with -o, or remove this one", folder.display());
            }
            if asked(&manifest.form) != asked(&wanted.form) {
                bail!(
                    "{}: was begun with other --positions, --both-flips or --dtype; give the same, or choose another folder",
                    folder.display()
                );
            }
            Ok((manifest, lock))
        }
        None => {
            let foreign = fs::read_dir(folder)?.flatten().map(|entry| entry.file_name());
            let ours = |name: &std::ffi::OsStr| {
                let name = name.to_string_lossy();
                name.starts_with('.') || name.ends_with(".safetensors")
            };
            if let Some(name) = foreign.into_iter().find(|name| !ours(name)) {
                bail!(
                    "{}: holds {} and no {MANIFEST}, so it is not the folder of a cache; choose another with -o",
                    folder.display(),
                    name.display()
                );
            }
            wanted.write(folder)?;
            Ok((wanted, lock))
        }
    }
}
