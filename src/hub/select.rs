//! Which files of a repository a model folder needs, judged by their names alone.
//!
//! Of each folder of a pipeline: the small files (configuration, vocabulary) and one set of weights. What other
//! frameworks read, and parts that are never loaded (safety checker, image encoder), stays on the server.

use std::collections::{BTreeMap, BTreeSet};
use thiserror::Error;

/// The subfolders of a pipeline that are looked into.
const COMPONENTS: [&str; 7] = ["unet", "vae", "text_encoder", "tokenizer", "scheduler", "motion_adapter", "controlnet"];

/// File formats of weights, best first.
const FORMATS: [&str; 5] = ["safetensors", "bin", "ckpt", "pt", "pth"];

/// Copies of the same weights in another precision or state, best first; the plain file is better than all.
const VARIANTS: [&str; 6] = ["fp16", "bf16", "fp32", "ema", "non_ema", "no_ema"];

/// The names that libraries save weights under, best first.
const USUAL_STEMS: [&str; 2] = ["diffusion_pytorch_model", "model"];

/// What trainers leave beside the weights.
const TRAINER_STEMS: [&str; 5] = ["training_args", "optimizer", "scheduler", "rng_state", "random_states_0"];

/// Beginnings of the names of other frameworks' files.
const FOREIGN: [&str; 3] = ["flax_", "tf_", "openvino_"];

/// How many names an error lists.
const LISTED: usize = 12;

/// Why no set of files can be chosen.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Unclear {
    /// Several different checkpoints lie in one folder.
    #[error(
        "there are {} different checkpoints in {}: {}; add the one to use, `/FILE`, to the name",
        .names.len(), place(.folder), list(.names)
    )]
    Ambiguous {
        /// Folder in the repository, empty for its root.
        folder: String,
        /// The checkpoints, sorted.
        names: Vec<String>,
    },
    /// Weights in several files of which some are missing on the server.
    #[error(
        "the sharded weights `{stem}` in {} lack {missing}; the repository is incomplete, name another revision or \
         file",
        place(.folder)
    )]
    Shards {
        /// Folder in the repository, empty for its root.
        folder: String,
        /// Common start of the files' names.
        stem: String,
        /// What is missing, in words.
        missing: String,
    },
    /// Nothing a model consists of.
    #[error(
        "there are no weights or configuration files in it, only {}; add the file to use, `/FILE`, to the name",
        list(.names)
    )]
    Nothing {
        /// What there is, sorted.
        names: Vec<String>,
    },
}

fn place(folder: &str) -> String {
    if folder.is_empty() { "it".into() } else { format!("`{folder}/`") }
}

fn list(names: &[String]) -> String {
    let shown = names[..names.len().min(LISTED)].join(", ");
    match names.len().saturating_sub(LISTED) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// The files, of those named relative to a model folder, that are needed to load it; sorted.
pub(super) fn needed(files: &[&str]) -> Result<Vec<String>, Unclear> {
    let mut chosen = small(files, "");
    if !is_pipeline(files) {
        chosen.extend(weights(files, "")?);
    }
    for component in COMPONENTS {
        chosen.extend(small(files, component));
        chosen.extend(weights(files, component)?);
    }
    if chosen.is_empty() {
        return Err(Unclear::Nothing { names: sorted(files.iter().map(|&name| name.to_owned()).collect()) });
    }
    Ok(sorted(chosen))
}

/// Whether the weights lie in component folders, which makes a checkpoint at the root a second copy of them.
fn is_pipeline(files: &[&str]) -> bool {
    let has_weights = |folder: &&str| inside(files, folder).any(|name| Weight::parse(name).is_some());
    files.contains(&"model_index.json") || COMPONENTS.iter().any(has_weights)
}

fn sorted(mut names: Vec<String>) -> Vec<String> {
    names.sort();
    names
}

/// Names of the files directly in `folder`, without it.
fn inside<'a>(files: &[&'a str], folder: &str) -> impl Iterator<Item = &'a str> {
    let below = move |name: &&'a str| match folder {
        "" => Some(*name),
        folder => name.strip_prefix(folder)?.strip_prefix('/'),
    };
    files.iter().filter_map(below).filter(|name| !name.contains('/'))
}

fn join(folder: &str, name: &str) -> String {
    if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") }
}

fn small(files: &[&str], folder: &str) -> Vec<String> {
    let wanted = |name: &&str| {
        // The index of sharded weights comes with its shards: alone it would send a reader to files that are absent.
        (name.ends_with(".json") || name.ends_with(".txt"))
            && !name.contains(".index.")
            && !FOREIGN.iter().any(|start| name.starts_with(start))
    };
    inside(files, folder).filter(wanted).map(|name| join(folder, name)).collect()
}

fn weights(files: &[&str], folder: &str) -> Result<Vec<String>, Unclear> {
    let found: Vec<Weight<'_>> = inside(files, folder).filter_map(Weight::parse).collect();
    let Some(stem) = one_stem(&found, folder, inside(files, folder).any(|name| name == "config.json"))? else {
        return Ok(Vec::new());
    };
    let mut sets: BTreeMap<_, Vec<&Weight<'_>>> = BTreeMap::new();
    for weight in found.iter().filter(|weight| weight.stem == stem && weight.part != Part::Index) {
        sets.entry(weight.rank()).or_default().push(weight);
    }
    let Some(set) = sets.into_values().next() else { return Ok(Vec::new()) };
    let mut names: Vec<String> = set.iter().map(|weight| join(folder, weight.name)).collect();
    if let Part::Shard { total, .. } = set[0].part {
        names.extend(index(&found, set[0], folder)?);
        all_shards(&set, total, folder)?;
    }
    Ok(names)
}

/// The stem to take from a folder: the only one, or a usual one where a `config.json` describes it.
fn one_stem(found: &[Weight<'_>], folder: &str, described: bool) -> Result<Option<String>, Unclear> {
    let weights = || found.iter().filter(|weight| weight.part != Part::Index);
    let stems: BTreeSet<&str> = weights().map(|weight| weight.stem.as_str()).collect();
    let usual = USUAL_STEMS.into_iter().find(|stem| described && stems.contains(stem));
    match (stems.len(), usual) {
        (0 | 1, _) => Ok(stems.first().map(|&stem| stem.to_owned())),
        (_, Some(stem)) => Ok(Some(stem.to_owned())),
        _ => {
            let names = weights().map(|weight| join(folder, weight.name)).collect();
            Err(Unclear::Ambiguous { folder: folder.to_owned(), names: sorted(names) })
        }
    }
}

fn index(found: &[Weight<'_>], of: &Weight<'_>, folder: &str) -> Result<Vec<String>, Unclear> {
    let same = |weight: &&Weight<'_>| {
        weight.part == Part::Index && (&weight.stem, weight.format, weight.variant) == (&of.stem, of.format, of.variant)
    };
    let names: Vec<String> = found.iter().filter(same).map(|weight| join(folder, weight.name)).collect();
    if names.is_empty() {
        return Err(lacks(of, folder, "their index `*.index.json`".into()));
    }
    Ok(names)
}

fn all_shards(set: &[&Weight<'_>], total: u32, folder: &str) -> Result<(), Unclear> {
    let numbers: BTreeSet<u32> = set.iter().filter_map(|weight| weight.number()).collect();
    match (1..=total).find(|number| !numbers.contains(number)) {
        Some(number) => Err(lacks(set[0], folder, format!("shard {number} of {total}"))),
        None => Ok(()),
    }
}

fn lacks(weight: &Weight<'_>, folder: &str, missing: String) -> Unclear {
    Unclear::Shards { folder: folder.to_owned(), stem: weight.stem.clone(), missing }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Whole,
    Shard { total: u32, number: u32 },
    Index,
}

/// A weight file's name, taken apart: `<stem>[-00001-of-00002][.<variant>].<format>`.
struct Weight<'a> {
    name: &'a str,
    stem: String,
    /// Place in [`VARIANTS`], counted from one; zero for the plain file.
    variant: usize,
    /// Place in [`FORMATS`].
    format: usize,
    part: Part,
}

impl<'a> Weight<'a> {
    fn parse(name: &'a str) -> Option<Self> {
        let is_index = name.contains(".index.") && name.ends_with(".json");
        let mut words: Vec<&str> =
            name.split('.').filter(|word| !is_index || !matches!(*word, "index" | "json")).collect();
        let last = words.iter().rposition(|word| FORMATS.contains(word)).filter(|&at| at > 0)?;
        let format = FORMATS.iter().position(|format| *format == words[last])?;
        if !is_index && last + 1 != words.len() {
            return None;
        }
        words.remove(last);
        let (mut variant, mut shard) = (0, None);
        let kept: Vec<&str> = words.into_iter().map(|word| take_shard(word, &mut shard)).collect();
        let kept: Vec<&str> = kept.into_iter().filter(|word| !take_variant(word, &mut variant)).collect();
        let stem = match kept.join(".") {
            // Transformers' two names of one model.
            stem if stem == "pytorch_model" => "model".into(),
            stem => stem,
        };
        let part = match (is_index, shard) {
            (true, _) => Part::Index,
            (false, Some((number, total))) => Part::Shard { total, number },
            (false, None) => Part::Whole,
        };
        let foreign = FOREIGN.iter().any(|start| name.starts_with(start)) || TRAINER_STEMS.contains(&stem.as_str());
        (!foreign).then_some(Self { name, stem, variant, format, part })
    }

    /// Files of one set have the same rank, and the set with the least is the best.
    fn rank(&self) -> (usize, usize, bool, u32) {
        match self.part {
            Part::Shard { total, .. } => (self.format, self.variant, true, total),
            _ => (self.format, self.variant, false, 0),
        }
    }

    fn number(&self) -> Option<u32> {
        match self.part {
            Part::Shard { number, .. } => Some(number),
            _ => None,
        }
    }
}

/// Cuts `-00001-of-00002` off `word`.
fn take_shard<'a>(word: &'a str, shard: &mut Option<(u32, u32)>) -> &'a str {
    let split = || {
        let (head, total) = word.rsplit_once("-of-")?;
        let (stem, number) = head.rsplit_once('-')?;
        Some((stem, number.parse().ok()?, total.parse().ok()?))
    };
    match split() {
        Some((stem, number, total)) => {
            *shard = Some((number, total));
            stem
        }
        None => word,
    }
}

fn take_variant(word: &str, variant: &mut usize) -> bool {
    match VARIANTS.iter().position(|known| *known == word) {
        Some(place) => {
            *variant = place + 1;
            true
        }
        None => false,
    }
}
