//! What a weight file is, whether it is whole, and what it fits: what `animatediff inspect` tells.
//!
//! A file is told by its keys, and held against the network that they make: what is missing, what is too much, what has another
//! shape. Every value is looked at once, where it lies.

mod values;

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    path::Path,
};

use anyhow::Result;
use serde::Serialize;

use crate::{
    assemble::{Motion, expected},
    hub,
    weights::{
        Content, Embedding, Identified, LoraFile, NamedTensors, WeightsError,
        publish::HASH_KEY,
        read::{Container, WeightFile, read},
        write::dtype_of,
    },
};

/// What is known of a file.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Report {
    /// The file.
    pub file: String,
    /// What it is, in words.
    pub kind: String,
    /// Whose names it has.
    pub dialect: Option<String>,
    /// Of a motion module: v1, v2, v3 or custom.
    pub version: Option<String>,
    /// Of low-rank pairs: the rank, or the least and the greatest.
    pub rank: Option<String>,
    /// Of low-rank pairs: alpha, likewise.
    pub alpha: Option<String>,
    /// safetensors or pickle.
    pub container: String,
    /// Tensors.
    pub tensors: usize,
    /// Their elements.
    pub parameters: i64,
    /// Tensors of each type.
    pub types: BTreeMap<String, usize>,
    /// The base that it fits.
    pub fits: Option<String>,
    /// BLAKE3 of the tensors' bytes, by name; the same whatever the order or the metadata.
    pub hash: String,
    /// Names that its format does not know, with the nearest that it does.
    pub unknown: Vec<Unknown>,
    /// Names that it lacks.
    pub missing: Vec<String>,
    /// Tensors of another shape than the others make them.
    pub misshapen: Vec<String>,
    /// Tensors with NaN or infinite values.
    pub not_finite: Vec<String>,
    /// What else a user should know.
    pub notes: Vec<String>,
    /// How it is used here.
    pub usage: Option<String>,
    /// What would mend it.
    pub mend: Option<String>,
    /// What the file says of itself.
    pub metadata: BTreeMap<String, String>,
    /// Every tensor, where they are asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<Key>,
}

/// A name that no table knows.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Unknown {
    /// The name.
    pub name: String,
    /// The nearest that is known.
    pub nearest: Option<String>,
}

/// A tensor.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Key {
    /// Its name.
    pub name: String,
    /// Type of its elements, as safetensors call it.
    #[serde(rename = "type")]
    pub dtype: String,
    /// Its shape.
    pub shape: Vec<i64>,
}

/// Looks at `path`, a file, a folder of one network, or a base's folder, of which every part is looked at.
///
/// # Errors
/// When a file cannot be read at all; what is read and is of no use is told in the report.
pub fn inspect(path: &Path) -> Result<Vec<Report>> {
    let local = hub::local(path).map_err(WeightsError::from)?;
    if !local.join("unet/config.json").is_file() {
        return Ok(vec![inspect_one(path, &local)?]);
    }
    ["unet", "vae", "text_encoder"]
        .iter()
        .map(|part| match local.join(part).is_dir() {
            true => inspect_one(&path.join(part), &local.join(part)),
            false => Ok(Report {
                file: path.join(part).display().to_string(),
                kind: "nothing".into(),
                notes: vec!["the base has no such folder: it is incomplete".into()],
                ..Report::default()
            }),
        })
        .collect()
}

fn inspect_one(shown: &Path, path: &Path) -> Result<Report> {
    let file = read(path)?;
    let mut report = Report { file: shown.display().to_string(), ..Report::default() };
    report.count(&file);
    (report.hash, report.not_finite) = values::scan(&file.tensors);
    report.metadata = file.metadata.clone();
    report.check_hash(path);
    let mut facts = Facts { pickled: file.container == Container::Pickle, ..Facts::default() };
    match Identified::of(file, path) {
        Ok(file) => report.tell(file, path, &mut facts),
        Err(WeightsError::Foreign { what, reason, .. }) => {
            report.kind = what.into();
            report.notes.push(reason.into());
            facts.useless = true;
        }
        Err(error) => {
            report.kind = "not told by its keys".into();
            report.notes.push(error.to_string());
            facts.useless = true;
        }
    }
    report.finish(&facts);
    Ok(report)
}

/// What decides how a file can be mended.
#[derive(Default)]
struct Facts {
    pickled: bool,
    /// Of no use here, whatever is done to it.
    useless: bool,
    /// A motion module that other tools trip over: wrapped, beside the image UNet, or without its tables.
    untidy_module: bool,
}

impl Report {
    fn count(&mut self, file: &WeightFile) {
        self.container = if file.container == Container::Pickle { "pickle" } else { "safetensors" }.into();
        self.tensors = file.tensors.len();
        for name in file.tensors.names() {
            let shape = file.tensors.shape(name).expect("it is listed");
            let kind = file.tensors.kind(name).expect("it is listed");
            let dtype = dtype_of(kind).map_or_else(|| format!("{kind:?}"), |dtype| format!("{dtype:?}"));
            self.parameters += shape.iter().product::<i64>();
            *self.types.entry(dtype.clone()).or_default() += 1;
            self.keys.push(Key { name: name.to_owned(), dtype, shape });
        }
    }

    /// Holds the bytes of a file that is not too large against the hash that it was written with.
    fn check_hash(&mut self, path: &Path) {
        let Some(told) = self.metadata.get(HASH_KEY) else { return };
        match values::stored_hash(path) {
            Some(found) if !told.trim_start_matches("0x").eq_ignore_ascii_case(&found) => {
                self.notes.push("its bytes are not those it was written with: `modelspec.hash_sha256` differs".into());
            }
            _ => {}
        }
    }

    /// What the keys tell.
    fn tell(&mut self, file: Identified, path: &Path, facts: &mut Facts) {
        self.kind = file.name().into();
        self.dialect = Some(file.format.dialect.to_string());
        let unknown = file.unknown();
        let known = known_names(&file, &unknown);
        let table = file.format.table.clone();
        for part in &file.wrapped {
            self.notes.push(format!("its names are wrapped in `{part}`"));
        }
        let content = file.format.content;
        if content == Content::MotionModule {
            self.tell_motion(&file, path, facts);
        }
        self.usage = file.flag().map(|flag| format!("sample {flag} {}", self.file));
        let metadata = file.metadata.clone();
        if content == Content::LowRank && unknown.is_empty() {
            self.tell_low_rank(file, path, facts);
        } else if content == Content::Embedding {
            if let Err(error) = Embedding::read(path) {
                self.notes.push(error.to_string());
                facts.useless = true;
            }
        } else if let Some(tensors) = ours(file) {
            let found = expected::compare(content, &tensors, &metadata);
            facts.useless |= found.foreign;
            (self.missing, self.misshapen, self.fits) = (found.missing, found.misshapen, found.fits);
            self.notes.extend(found.notes);
        }
        // What is missing is likely what a name was meant to be.
        let missing: Vec<String> = self.missing.iter().filter_map(|name| table.export_name(name)).collect();
        self.unknown = with_nearest(unknown, missing, known);
    }

    fn tell_motion(&mut self, file: &Identified, path: &Path, facts: &mut Facts) {
        let aside = file.aside();
        if aside > 0 {
            self.notes.push(format!("{aside} tensors of the image UNet lie beside the module's; they are not used"));
        }
        let tables = file.tensors.names().any(|name| name.ends_with(".pe"));
        if !tables {
            let note = "it has no tables of positions: they are computed; AnimateLCM's files have none either";
            self.notes.push(note.into());
        }
        facts.untidy_module = aside > 0 || !tables || !file.wrapped.is_empty();
        self.notes.extend(called(path, &self.metadata).map(String::from));
        match Motion::architecture(file, path) {
            Ok(config) => self.version = Some(config.version().unwrap_or("custom").into()),
            Err(error) => {
                self.notes.push(error.to_string());
                facts.useless = true;
            }
        }
    }

    fn tell_low_rank(&mut self, file: Identified, path: &Path, facts: &mut Facts) {
        let lora = match LoraFile::of(file, path) {
            Ok(lora) => lora,
            Err(error) => {
                self.notes.push(error.to_string());
                facts.useless = true;
                return;
            }
        };
        let deltas = || lora.unet.deltas().chain(lora.text_encoder.deltas());
        let ranks: BTreeSet<i64> = deltas().filter_map(|(_, delta)| delta.rank()).collect();
        let alphas: Vec<f64> = deltas().filter_map(|(_, delta)| Some(delta.scale() * delta.rank()? as f64)).collect();
        self.rank = range(ranks.into_iter().map(|rank| rank as f64));
        self.alpha = range(alphas.into_iter());
        let forms: BTreeSet<&str> = deltas().map(|(_, delta)| delta.form().name()).collect();
        let forms = forms.into_iter().collect::<Vec<_>>().join(", ");
        self.notes.push(format!(
            "{forms} on {} layers of the UNet and {} of the text encoder",
            lora.unet.len(),
            lora.text_encoder.len()
        ));
        self.fits = expected::fits_low_rank(&lora, &mut self.misshapen);
    }

    /// What to do about what was found.
    fn finish(&mut self, facts: &Facts) {
        let convert = |rest: &str| Some(format!("animatediff convert {} OUT.safetensors {rest}", self.file));
        let incomplete = !self.missing.is_empty() || !self.misshapen.is_empty();
        let whole = !incomplete && self.not_finite.is_empty() && !facts.useless;
        self.mend = match () {
            () if !whole => None,
            () if !self.unknown.is_empty() => convert("--drop-unknown"),
            () if facts.untidy_module => convert("--to official"),
            () if facts.pickled => convert("--to safetensors"),
            () => None,
        };
        if !whole || !self.unknown.is_empty() {
            self.usage = None;
        }
        if !self.not_finite.is_empty() {
            let note =
                "values are lost: no command brings them back; get the file again, or train from an earlier checkpoint";
            self.notes.push(note.into());
        } else if incomplete {
            self.notes.push("it is not whole: copy, download or export it again".into());
        }
    }
}

/// The tensors by our names, as far as the format knows them.
fn ours(mut file: Identified) -> Option<NamedTensors> {
    file.drop_unknown();
    let content = file.format.content;
    file.import(content).ok()
}

/// Names above this length are of no model, and comparing them takes long.
const LONGEST: usize = 256;
/// Names that people read.
const SHOWN: usize = 20;

/// Names of the file that its format knows, as many as are worth comparing with.
fn known_names(file: &Identified, unknown: &[String]) -> Vec<String> {
    let unknown: HashSet<&str> = unknown.iter().map(String::as_str).collect();
    let known = file.tensors.names().filter(|name| name.len() <= LONGEST && !unknown.contains(name));
    known.take(2000).map(String::from).collect()
}

/// The unknown names, the first of them with the nearest of `missing`, or else of `known`.
fn with_nearest(unknown: Vec<String>, missing: Vec<String>, known: Vec<String>) -> Vec<Unknown> {
    let likest = |name: &str, among: &[String]| {
        let by_likeness = among.iter().map(|other| (strsim::normalized_levenshtein(name, other), other));
        let (likeness, other) = by_likeness.max_by(|a, b| a.0.total_cmp(&b.0))?;
        (likeness > 0.6).then(|| other.clone())
    };
    let shown = |(index, name): (usize, String)| {
        let compared = index < SHOWN && name.len() <= LONGEST;
        let nearest = compared.then(|| likest(&name, &missing).or_else(|| likest(&name, &known))).flatten();
        Unknown { name, nearest }
    };
    unknown.into_iter().enumerate().map(shown).collect()
}

/// Modules of this architecture that are sampled in another way, which their weights do not show.
fn called(path: &Path, metadata: &BTreeMap<String, String>) -> Option<&'static str> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let title = metadata.get("modelspec.title").map(|title| title.to_lowercase()).unwrap_or_default();
    let says = |word: &str| name.contains(word) || title.contains(word);
    if says("lightning") {
        Some(
            "by its name it is AnimateDiff-Lightning: v2's architecture, made for 1 to 8 steps without guidance (--guidance-scale 1)",
        )
    } else if says("lcm") {
        Some(
            "by its name it is AnimateLCM: made for 4 to 8 steps of an LCM sampler at low guidance (--guidance-scale 1 to 2)",
        )
    } else {
        None
    }
}

/// One number, or the least and the greatest.
fn range(values: impl Iterator<Item = f64>) -> Option<String> {
    let values: Vec<f64> = values.collect();
    let (least, greatest) = (values.iter().copied().reduce(f64::min)?, values.iter().copied().reduce(f64::max)?);
    Some(if least == greatest { least.to_string() } else { format!("{least} to {greatest}") })
}
