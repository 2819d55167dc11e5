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
    assemble::expected::Found,
    files, hub,
    weights::{Content, Dialect, Identified, LoraFile, NamedTensors, WeightsError, publish::write_named},
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
    /// Leave tensors out whose names the format does not know.
    pub drop_unknown: bool,
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
    let local = hub::local(&order.input).map_err(WeightsError::from)?;
    if local.join("unet/config.json").is_file() {
        order.check_options(Some(Content::Checkpoint), "a base's folder, whose names are known", true)?;
        return image::convert(order, image::Source::Base);
    }
    if order.to == Some(To::Safetensors) && order.merge.is_empty() && !order.ema && !order.drop_unknown {
        order.check_options(None, "a file whose names stay", false)?;
        return plain::convert(order);
    }
    let mut file = Identified::read(&local)?;
    let content = file.format.content;
    order.check_options(Some(content), content.name(), false)?;
    let dropped = order.drop_unknown.then(|| file.drop_unknown());
    let mut outcome = match content {
        Content::Checkpoint => image::convert(order, image::Source::Checkpoint(file)),
        Content::UNet | Content::Vae | Content::TextEncoder => image::convert_part(order, file, &local),
        Content::MotionModule => module::convert(order, file, &local),
        Content::LowRank => low_rank::convert(order, file, &local),
        Content::Embedding => plain::convert_embedding(order, &local),
        Content::ControlNet | Content::SparseCtrl => control::convert(order, file, &local),
    }?;
    if let Some(names) = dropped.filter(|names| !names.is_empty()) {
        outcome.notes.push(format!("{} unknown tensors were left out: {}", names.len(), names.join(", ")));
    }
    Ok(outcome)
}

impl Order {
    fn make_parent(&self) -> Result<()> {
        let Some(parent) = self.output.parent() else { return Ok(()) };
        fs::create_dir_all(parent).with_context(|| format!("{}: cannot be made", parent.display()))
    }

    /// Refuses tensors that do not make their network.
    fn check_whole(&self, found: &Found) -> Result<()> {
        let file = self.input.display();
        match found.problem() {
            Some(problem) => {
                Err(refused(format!("{file}: it is not whole: {problem}; `animatediff inspect {file}` lists them")))
            }
            None => Ok(()),
        }
    }

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
        if let Some(foreign) = Some(&self.output).filter(|path| path.is_dir()).and_then(|dir| not_of_a_model(dir)) {
            let foreign = foreign.display();
            return Err(refused(format!(
                "{shown}: is not replaced, as {foreign} is no part of a model's folder; choose another"
            )));
        }
        if hub::is_name(&self.output) {
            return Err(refused(format!("{shown}: nothing is written to the Hub; give a path")));
        }
        // The nearest folder that is there: those below it are made when there is something to write.
        let there = self.output.ancestors().skip(1).find(|dir| dir.is_dir());
        let there = there.filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        files::check_writable(there).map_err(|error| refused(format!("{error:#}")))
    }

    /// Whether every option means something for what IN is.
    fn check_options(&self, content: Option<Content>, what: &str, all_known: bool) -> Result<()> {
        use Content::{Checkpoint, LowRank, MotionModule};
        let within = |contents: &[Content]| content.is_some_and(|content| contents.contains(&content));
        let given = [
            ("--rank", self.rank.is_some() && !within(&[LowRank])),
            ("--ema", self.ema && !within(&[Checkpoint])),
            ("--base", self.base.is_some() && !within(&[Checkpoint, MotionModule])),
            ("--drop-unknown", self.drop_unknown && all_known),
        ];
        match given.into_iter().find(|(_, idle)| *idle) {
            Some((flag, _)) => {
                let file = self.input.display();
                Err(refused(format!("{file}: {flag} does nothing to {what}; leave it out")))
            }
            None => Ok(()),
        }
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
        self.make_parent()?;
        write_named(&self.output, tensors, self.kind, metadata)
    }

    /// Fills a folder beside the output and puts it in place when it is whole.
    fn write_folder(&self, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        self.make_parent()?;
        files::write_dir(&self.output, fill)
    }
}

/// A file in `dir` that no model's folder has; only folders without one are ever replaced.
fn not_of_a_model(dir: &Path) -> Option<PathBuf> {
    const FILES: [&str; 13] = [
        "README.md",
        "model_index.json",
        "config.json",
        "scheduler_config.json",
        "adapter_config.json",
        WEIGHTS,
        "adapter_model.safetensors",
        "model.safetensors",
        "vocab.json",
        "merges.txt",
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
    ];
    const FOLDERS: [&str; 5] = ["unet", "vae", "text_encoder", "tokenizer", "scheduler"];
    let mut entries: Vec<PathBuf> = fs::read_dir(dir).ok()?.flatten().map(|entry| entry.path()).collect();
    entries.sort();
    entries.into_iter().find_map(|path| {
        let named = |names: &[&str]| path.file_name().is_some_and(|name| names.iter().any(|own| name == *own));
        match path.is_dir() && !path.is_symlink() {
            true if named(&FOLDERS) => not_of_a_model(&path),
            false if named(&FILES) => None,
            _ => Some(path),
        }
    })
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

/// The configuration that lies in the folder `path`, if it is one that has one.
fn given_config(path: &Path) -> Option<serde_json::Value> {
    let text = fs::read_to_string(path.join("config.json")).ok()?;
    serde_json::from_str(&text).ok().filter(serde_json::Value::is_object)
}

/// Name of the weights in a folder of diffusers.
const WEIGHTS: &str = "diffusion_pytorch_model.safetensors";
