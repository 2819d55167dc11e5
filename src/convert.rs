//! Weights from one format to another, and into one another: what `animatediff convert` does.
//!
//! A file is read whole by name and lazily by value; what is written has one tensor at a time in memory, is staged, synced and
//! renamed, and carries the metadata of what it came from. Prints nothing.

mod control;
mod image;
mod low_rank;
mod module;
mod plain;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use tch::Kind;

use crate::{
    files, hub,
    weights::{Content, Dialect, Identified, LoraFile, NamedTensors, publish::write_named},
};

/// What is to be converted, and into what.
#[derive(Clone, Debug, Default)]
pub struct Order {
    /// A file, a folder, or a name on the Hub.
    pub input: PathBuf,
    /// A `.safetensors` file, or a folder to make.
    pub output: PathBuf,
    /// Whose names; those of the input where nothing is said.
    pub to: Option<To>,
    /// Type of the floating-point tensors; that of the input where nothing is said.
    pub kind: Option<Kind>,
    /// Low-rank files to merge, and their scales.
    pub merge: Vec<(PathBuf, f64)>,
    /// Rank to bring merged low-rank files to.
    pub rank: Option<i64>,
    /// A base model that what a checkpoint lacks is taken from.
    pub base: Option<PathBuf>,
    /// The averaged weights of a checkpoint in the place of the others.
    pub ema: bool,
    /// Replace what is at the output.
    pub overwrite: bool,
}

/// What a conversion is to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum To {
    /// The same names, as safetensors.
    Safetensors,
    /// The names of a tool.
    Names(Dialect),
}

/// What was done, for people.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// What the output is.
    pub what: String,
    /// What a user should know.
    pub notes: Vec<String>,
}

/// A conversion that cannot be done as asked: the user's to mend.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Refused(String);

fn refused(message: impl Into<String>) -> anyhow::Error {
    anyhow::Error::new(Refused(message.into()))
}

/// Converts as `order` says.
///
/// # Errors
/// [`Refused`] where the order makes no sense, the reader's errors, and those of writing.
pub fn convert(order: &Order) -> Result<Outcome> {
    order.check_output()?;
    let local = hub::local(&order.input).map_err(crate::weights::WeightsError::from)?;
    if local.join("unet/config.json").is_file() {
        return image::convert(order, image::Source::Base);
    }
    let plain = order.to == Some(To::Safetensors) && order.merge.is_empty() && !order.ema;
    if plain {
        return plain::convert(order);
    }
    let file = Identified::read(&local)?;
    if order.rank.is_some() && file.format.content != Content::LowRank {
        return Err(refused("--rank is about low-rank files that are merged into one; IN is none"));
    }
    if order.ema && file.format.content != Content::Checkpoint {
        return Err(refused("--ema is about whole checkpoints; IN is none"));
    }
    match file.format.content {
        Content::Checkpoint => image::convert(order, image::Source::Checkpoint(file)),
        Content::UNet | Content::Vae | Content::TextEncoder => image::convert_part(order, file),
        Content::MotionModule => module::convert(order, file, &local),
        Content::LowRank => low_rank::convert(order, file, &local),
        Content::Embedding => plain::convert_embedding(order, &local),
        Content::ControlNet | Content::SparseCtrl => control::convert(order, file),
    }
}

impl Order {
    /// Whether the output is one file rather than a folder.
    fn to_file(&self) -> bool {
        self.output.extension().is_some_and(|extension| extension == "safetensors")
    }

    fn check_output(&self) -> Result<()> {
        let shown = self.output.display();
        let wrong =
            self.output.extension().filter(|ending| ["ckpt", "pt", "pth", "bin"].iter().any(|own| ending == own));
        if wrong.is_some() {
            return Err(refused(format!(
                "{shown}: only safetensors are written; give a name that ends in .safetensors"
            )));
        }
        if self.output.exists() && !self.overwrite {
            return Err(refused(format!("{shown}: exists already; choose another name, or add --overwrite")));
        }
        if self.output.exists() && self.output.is_dir() == self.to_file() {
            return Err(refused(format!(
                "{shown}: is not replaced, as it is a folder and a file is to be written, or the reverse"
            )));
        }
        if self.output.is_dir() && !is_model_folder(&self.output) {
            return Err(refused(format!("{shown}: is not replaced, as it is no model's folder; choose another")));
        }
        if let Some(parent) = self.output.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            files::check_writable(parent).map_err(|error| refused(format!("{error:#}")))?;
        }
        Ok(())
    }

    /// The names to write, of those that a kind of file can have; the input's own where nothing is said.
    fn dialect(&self, what: &str, own: Dialect, choices: &[Dialect]) -> Result<Dialect> {
        let dialect = match self.to {
            Some(To::Names(dialect)) => dialect,
            _ => own,
        };
        if choices.contains(&dialect) {
            return Ok(dialect);
        }
        let choices = choices.iter().map(Dialect::to_string).collect::<Vec<_>>().join(", ");
        Err(refused(format!(
            "{} is {what}, which has no form of --to {dialect}; choose from: {choices}",
            self.input.display()
        )))
    }

    fn must_be_folder(&self, what: &str) -> Result<()> {
        if self.to_file() {
            return Err(refused(format!(
                "{}: {what} is a folder; give a name without .safetensors",
                self.output.display()
            )));
        }
        Ok(())
    }

    fn must_be_file(&self, what: &str) -> Result<()> {
        if !self.to_file() {
            return Err(refused(format!(
                "{}: {what} is one file; give a name that ends in .safetensors",
                self.output.display()
            )));
        }
        Ok(())
    }

    fn must_not_merge(&self, what: &str) -> Result<()> {
        match self.merge.first() {
            Some((path, _)) => Err(refused(format!("--merge {}: nothing can be merged into {what}", path.display()))),
            None => Ok(()),
        }
    }

    /// The low-rank files to merge.
    fn merges(&self) -> Result<Vec<(LoraFile, f64)>> {
        self.merge.iter().map(|(path, scale)| Ok((LoraFile::read(path)?, *scale))).collect()
    }

    /// The title of the output.
    fn title(&self) -> String {
        self.output.file_stem().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Writes one file.
    fn write(&self, tensors: NamedTensors, metadata: &BTreeMap<String, String>) -> Result<()> {
        write_named(&self.output, tensors, self.kind, metadata)
    }

    /// Fills a folder beside the output and puts it in place when it is whole.
    fn write_folder(&self, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        let staging = files::staging_path(&self.output)?;
        let made = fs::create_dir_all(&staging).with_context(|| format!("{}: cannot be made", staging.display()));
        let written = made.and_then(|()| fill(&staging)).and_then(|()| files::commit_dir(&staging, &self.output));
        if written.is_err() {
            let _ = fs::remove_dir_all(&staging);
        }
        written
    }
}

/// Only what looks like a model of diffusers is ever replaced.
fn is_model_folder(dir: &Path) -> bool {
    ["model_index.json", "config.json", "adapter_config.json"].iter().any(|name| dir.join(name).is_file())
}

/// What a file said of itself, with `card` in the place of what is about its form.
fn carried(of: &BTreeMap<String, String>, card: BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut metadata = of.clone();
    let title = metadata.get("modelspec.title").cloned();
    metadata.extend(card);
    metadata.extend(title.map(|title| ("modelspec.title".to_owned(), title)));
    metadata
}

/// Writes `config.json` of one of diffusers' models.
fn write_config(dir: &Path, config: &serde_json::Value) -> Result<()> {
    let path = dir.join("config.json");
    fs::write(&path, format!("{config:#}\n")).with_context(|| format!("{}: cannot be written", path.display()))
}

/// Name of the weights in a folder of diffusers.
const WEIGHTS: &str = "diffusion_pytorch_model.safetensors";
