//! Makes the cache of a data set: every clip through the VAE and every caption through the text encoder, once.
//!
//! One process at a time writes a cache. Shards appear whole, each is entered in the manifest when it is on the disk, and those
//! that are there already are kept if their hashes are right: so the work can be stopped at any moment and taken up again. Clips
//! that could not be read are tried again then, and a shard is made anew when one of its own can.

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
        faults::{DataError, Failure, Faults},
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
    /// Size of a shard, in bytes; one row is the least. None: that of the cache that is there, or [`SHARD_BYTES`].
    pub shard_bytes: Option<u64>,
}

/// Size of a shard unless something else is asked for.
pub const SHARD_BYTES: u64 = 256 << 20;

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Made {
    /// Shards that were there already.
    pub kept: usize,
    /// Shards that were written.
    pub written: usize,
    /// Shards that were there, and damaged.
    pub damaged: usize,
    /// Shards that lacked clips which can be read now.
    pub mended: usize,
    /// Entries whose clip could not be read.
    pub missing: usize,
    /// The clips that were tried, and those that could not be read.
    pub faults: Faults,
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
    source: Source,
    _lock: fs::File,
}

/// What identifies a cache for a run of `config`: of `frames` frames per clip, on `dataset` and `base`. Networks are told apart by
/// all that decides what they compute, so that weights which were replaced in place are noticed.
pub fn key(config: &Config, frames: usize, dataset: &Dataset, base: &Base) -> Result<Key> {
    let data = &config.train_data;
    let is_encoder = |name: &str| name.starts_with("encoder.") || name.starts_with("quant_conv.");
    let mut text = blake3::Hasher::new();
    // What shapes do not tell: heads, activations.
    text.update(&serde_json::to_vec(&base.text)?);
    add_tensors(&mut text, &base.text_tensors()?, |_| true)?;
    let tokenizer = base.tokenizer_folder()?;
    for name in TOKENIZER {
        if let Ok(bytes) = fs::read(tokenizer.join(name)) {
            text.update(name.as_bytes()).update(&bytes);
        }
    }
    let mut vae = blake3::Hasher::new();
    vae.update(&base.vae.norm_num_groups.to_le_bytes());
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
        let (recipe, base) = (Recipe::new(stage, config), Base::open_files(&config.base_files())?);
        super::run::check_size(config, &base).map_err(Refused)?;
        let data = data::Config { cache: None, ..recipe.train_data(config) };
        let dataset = Arc::new(Dataset::open(&data)?);
        let captions = Captions::of(&dataset)?;
        let tokenizer = base.tokenizer()?;
        let form = form(order, &dataset, &captions, &base, &tokenizer);
        let wanted = Manifest::new(key(config, recipe.frames, &dataset, &base)?, form);
        let (manifest, lock) = take_up(folder, wanted, order.shard_bytes.is_some()).map_err(Refused)?;
        let (text_encoder, _) = base.text_encoder(Plan::frozen(), device, Kind::Float)?;
        let vae = base.vae(device, Kind::Float)?;
        let source = Source::new(&dataset, &manifest, config.num_workers)?;
        let folder = folder.to_owned();
        Ok(Maker { folder, manifest, dataset, captions, tokenizer, text_encoder, vae, device, source, _lock: lock })
    }

    /// Entries and captions that a complete cache has.
    pub fn rows(&self) -> u64 {
        self.manifest.entries() + self.captions.texts.len() as u64
    }

    /// Makes what is missing. `told` hears how many rows are done, of [`Maker::rows`]; `stop` is asked after each: then all
    /// whole shards are kept, and the one in the making is not.
    ///
    /// # Errors
    /// When a file cannot be written, and once more clips cannot be read than `max_unreadable` allows. What was written by then is
    /// kept, here too.
    pub fn make(mut self, mut told: impl FnMut(u64), stop: impl Fn() -> bool + Sync) -> Result<Made> {
        let mut made = Made {
            entries: self.manifest.entries(),
            texts: self.captions.texts.len(),
            faults: Faults::new(self.dataset.len()),
            ..Made::default()
        };
        let mut done = 0;
        for part in [Part::Texts, Part::Clips] {
            let whole = self.whole(part);
            made.damaged += whole.iter().filter(|whole| !**whole).count();
            for number in 0..self.shards(part) {
                let rows = self.rows_of(part, number);
                let there = whole.get(number) == Some(&true);
                if there && self.is_kept(part, number, &mut made)? {
                    made.kept += 1;
                } else {
                    let told = |row| told(done + row);
                    let shard = match part {
                        Part::Texts => self.texts(number, rows.clone(), told, &stop)?,
                        Part::Clips => self.clips(number, rows.clone(), told, &stop, &mut made.faults)?,
                    };
                    let Some(shard) = shard else { return Ok(Made { stopped: true, ..self.counted(made) }) };
                    self.enter(part, number, shard)?;
                    made.written += 1;
                    made.mended += usize::from(there);
                }
                done += rows.end - rows.start;
                told(done);
            }
        }
        Ok(self.counted(made))
    }

    /// With what is counted over all shards.
    fn counted(&self, made: Made) -> Made {
        let shards = || self.manifest.latents.iter().chain(&self.manifest.texts);
        Made {
            missing: shards().map(|shard| shard.missing.len()).sum(),
            bytes: shards().map(|shard| shard.bytes).sum(),
            ..made
        }
    }

    /// Shards of a complete cache.
    fn shards(&self, part: Part) -> usize {
        let (clips, texts) = self.manifest.shards();
        if part == Part::Texts { texts } else { clips }
    }

    /// Rows of shard `number`.
    fn rows_of(&self, part: Part, number: usize) -> Range<u64> {
        let form = &self.manifest.form;
        let (per_shard, rows) = match part {
            Part::Texts => (form.shard_texts, self.captions.texts.len() as u64),
            Part::Clips => (form.shard_clips, self.manifest.entries()),
        };
        let start = number as u64 * per_shard;
        start..(start + per_shard).min(rows)
    }

    fn listed(&self, part: Part) -> &[Shard] {
        if part == Part::Texts { &self.manifest.texts } else { &self.manifest.latents }
    }

    /// Of each shard that is listed, whether it is what was written.
    fn whole(&self, part: Part) -> Vec<bool> {
        let folder = &self.folder;
        self.listed(part).par_iter().map(|shard| is_whole(folder, shard)).collect()
    }

    /// Whether a whole shard stays as it is: if none of the clips that it lacks can be read now. They are counted then.
    fn is_kept(&self, part: Part, number: usize, made: &mut Made) -> Result<bool> {
        if part == Part::Texts {
            return Ok(true);
        }
        let missing: Vec<u64> = self.manifest.latents[number].missing.keys().copied().collect();
        let failures = self.source.failures(&missing);
        if failures.iter().any(Option::is_none) {
            return Ok(false);
        }
        let mut failures = missing.iter().zip(&failures).peekable();
        for row in self.rows_of(part, number) {
            let failure = failures.next_if(|(missing, _)| **missing == row).and_then(|(_, failure)| failure.as_ref());
            self.source.count(row, failure, &mut made.faults)?;
        }
        Ok(true)
    }

    fn enter(&mut self, part: Part, number: usize, shard: Shard) -> Result<()> {
        let shards = if part == Part::Texts { &mut self.manifest.texts } else { &mut self.manifest.latents };
        match shards.get_mut(number) {
            Some(place) => *place = shard,
            None => shards.push(shard),
        }
        self.manifest.write(&self.folder)
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
        faults: &mut Faults,
    ) -> Result<Option<Shard>> {
        let (mut moments, mut missing) = (Vec::new(), BTreeMap::new());
        let (source, stop) = (&self.source, &stop);
        thread::scope(|scope| -> Result<(), DataError> {
            let decoded = source.decode_ahead(scope, rows.clone(), stop);
            for (row, outcome) in rows.clone().zip(decoded) {
                source.count(row, outcome.as_ref().err(), faults)?;
                match outcome {
                    Ok(sample) => {
                        let found = encode::moments(&self.vae, std::slice::from_ref(&sample), self.device);
                        moments.push(self.kept(&found));
                    }
                    Err(failure) => drop(missing.insert(row, failure.to_string())),
                }
                told(row + 1 - rows.start);
                if stop() {
                    break;
                }
            }
            Ok(())
        })?;
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

/// How a new cache is kept.
fn form(order: Order, dataset: &Dataset, captions: &Captions, base: &Base, tokenizer: &Tokenizer) -> Form {
    let data::Config { sample_size: size, sample_n_frames: frames, .. } = dataset.config();
    let (channels, scale) = (base.vae.latent_channels, base.vae.downscale());
    let moments = vec![*frames as i64, 2 * channels, size.height as i64 / scale, size.width as i64 / scale];
    let states = vec![tokenizer.length() as i64, base.text.hidden_size];
    let rows = |shape: &[i64]| {
        let bytes = shape.iter().product::<i64>() as u64 * if order.half { 2 } else { 4 };
        (order.shard_bytes.unwrap_or(SHARD_BYTES) / bytes).max(1)
    };
    Form {
        positions: order.positions,
        both_flips: order.both_flips,
        half: order.half,
        shard_clips: rows(&moments),
        shard_texts: rows(&states),
        moments,
        states,
        texts: captions.texts.len(),
    }
}

/// The two kinds of shards.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Texts,
    Clips,
}

/// The clips of a [`Maker`], without its networks.
struct Source {
    dataset: Arc<Dataset>,
    seed: u64,
    /// Entries from this one on are mirrored ones of those from 0 on.
    mirrored_from: u64,
    /// Threads that decode.
    pool: rayon::ThreadPool,
    /// Clips that are decoded together.
    ahead: usize,
}

impl Source {
    fn new(dataset: &Arc<Dataset>, Manifest { key, form, .. }: &Manifest, threads: usize) -> Result<Source> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().context("no threads to decode on")?;
        Ok(Source {
            dataset: Arc::clone(dataset),
            seed: key.global_seed,
            mirrored_from: form.positions as u64 * key.clips as u64,
            pool,
            ahead: threads.max(2),
        })
    }

    fn decode(&self, row: u64) -> Result<Sample, Failure> {
        self.dataset.try_decode(self.seed, row % self.mirrored_from, row >= self.mirrored_from)
    }

    /// What is wrong with each of `rows`.
    fn failures(&self, rows: &[u64]) -> Vec<Option<Failure>> {
        self.pool.install(|| rows.par_iter().map(|row| self.decode(*row).err()).collect())
    }

    /// Counts the clip of an entry.
    fn count(&self, row: u64, failure: Option<&Failure>, faults: &mut Faults) -> Result<(), DataError> {
        faults.attempt(&self.dataset, self.dataset.item_at(self.seed, row % self.mirrored_from), failure)
    }

    /// The outcomes of `rows` in their order, as they come from a thread in `scope`: two parts of them wait at most.
    fn decode_ahead<'scope>(
        &'scope self,
        scope: &'scope thread::Scope<'scope, '_>,
        rows: Range<u64>,
        stop: &'scope (impl Fn() -> bool + Sync),
    ) -> impl Iterator<Item = Result<Sample, Failure>> {
        let (sender, receiver): (_, Receiver<Vec<Result<Sample, Failure>>>) = sync_channel(1);
        scope.spawn(move || {
            let rows: Vec<u64> = rows.collect();
            for part in rows.chunks(self.ahead) {
                let outcomes = self.pool.install(|| part.par_iter().map(|row| self.decode(*row)).collect());
                // Whoever stopped listening wants no more.
                if stop() || sender.send(outcomes).is_err() {
                    break;
                }
            }
        });
        receiver.into_iter().flatten()
    }
}

fn is_whole(folder: &Path, shard: &Shard) -> bool {
    MappedFile::open(&folder.join(&shard.file)).is_ok_and(|file| blake3::hash(&file).to_hex().as_str() == shard.blake3)
}

/// The manifest to go on with in `folder`, which is made if it is not there, and the lock on it. The size of the shards is that of
/// those which are there, unless it is `sized` by the order.
fn take_up(folder: &Path, wanted: Manifest, sized: bool) -> Result<(Manifest, fs::File)> {
    files::check_writable(folder)?;
    let lock = folder::lock(folder)?;
    files::remove_staging(folder)?;
    match Manifest::read(folder)? {
        Some(manifest) => {
            let sizes = |form: &Form| sized.then_some((form.shard_clips, form.shard_texts));
            let asked = |form: &Form| (form.positions, form.both_flips, form.half, sizes(form));
            if let Some(difference) = manifest.key.difference(&wanted.key) {
                bail!("{}: {difference}; choose another folder with -o, or remove this one", folder.display());
            }
            if asked(&manifest.form) != asked(&wanted.form) {
                bail!(
                    "{}: was begun with other --positions, --both-flips, --dtype or --shard-mib; give the same, or choose \
                     another folder",
                    folder.display()
                );
            }
            Ok((manifest, lock))
        }
        None => {
            let foreign = fs::read_dir(folder)?.flatten().map(|entry| entry.file_name());
            let ours = |name: &std::ffi::OsStr| {
                let name = name.to_string_lossy();
                let shard = [MOMENTS, STATES].iter().any(|part| name.starts_with(part));
                name.starts_with('.') || shard && name.ends_with(".safetensors")
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
