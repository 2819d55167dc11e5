//! What a file is, by what it holds: unwrapped, matched against every table, and named when it is of another family.

use std::{
    collections::{BTreeMap, HashSet},
    path::Path,
};

use super::{
    error::WeightsError,
    formats::{Content, Dialect, Format, Topology, closest},
    named::NamedTensors,
    read::{WeightFile, read},
};

/// Dictionaries that weights are wrapped in: what lies beside them in the file is not theirs.
const WRAPPERS: [&str; 2] = ["state_dict.", "controlnet."];
/// What some trainers call the weights, beside their optimizer's.
const MODEL: &str = "model.";
/// Prefixes that PyTorch's data-parallel training and compilation put before every name.
const PREFIXES: [&str; 2] = ["module.", "_orig_mod."];

/// More than ten times what the largest of the models here have.
const MOST_TENSORS: usize = 50_000;
/// How deep weights are wrapped, at most.
const MOST_WRAPPERS: usize = 8;

/// A file whose format is known; its tensors still have the file's names.
#[derive(Debug)]
pub struct Identified {
    /// What it is.
    pub format: Format,
    /// Its tensors, unwrapped, by their names there.
    pub tensors: NamedTensors,
    /// What the file says of itself.
    pub metadata: BTreeMap<String, String>,
    /// Wrappers and prefixes that were taken off.
    pub wrapped: Vec<&'static str>,
    /// Counts that its names show.
    pub topology: Topology,
}

impl Identified {
    /// Reads the header of `path`, a file or a folder of weights, and tells what it is.
    pub fn read(path: &Path) -> Result<Identified, WeightsError> {
        Identified::of(read(path)?, path)
    }

    /// Tells what `file`, read from `path`, is.
    pub fn of(file: WeightFile, path: &Path) -> Result<Identified, WeightsError> {
        if file.tensors.len() > MOST_TENSORS {
            return Err(WeightsError::TooMany { path: path.to_owned(), count: file.tensors.len() });
        }
        let (tensors, wrapped) = unwrap(file.tensors);
        if let Some((what, reason)) = foreign(&tensors) {
            return Err(WeightsError::Foreign { path: path.to_owned(), what, reason });
        }
        let topology = Topology::of(tensors.names().collect::<Vec<_>>().into_iter());
        let names: Vec<&str> = tensors.names().collect();
        let format = closest(names.iter().copied()).or_else(|| embedding(&tensors)).ok_or_else(|| {
            let first = names.first().map_or("", |name| name).to_owned();
            WeightsError::Unidentified { path: path.to_owned(), count: names.len(), first }
        })?;
        Ok(Identified { format, tensors, metadata: file.metadata, wrapped, topology })
    }

    /// Names that its format does not have.
    pub fn unknown(&self) -> Vec<String> {
        self.format.table.unknown(self.tensors.names())
    }

    /// How many of its tensors belong to another model in the same file.
    pub fn aside(&self) -> usize {
        self.tensors.names().filter(|name| self.format.table.is_aside(name)).count()
    }

    /// Leaves out what its format does not have; gives the names.
    pub fn drop_unknown(&mut self) -> Vec<String> {
        let unknown = self.unknown();
        let names: HashSet<&str> = unknown.iter().map(String::as_str).collect();
        self.tensors.retain(|name| !names.contains(name));
        unknown
    }

    /// Its tensors by our names, if it holds `wanted`.
    ///
    /// # Errors
    /// When it is something else, with the flag that takes it, or has names that its format does not know.
    pub fn import(self, wanted: Content) -> Result<NamedTensors, WeightsError> {
        if self.format.content != wanted {
            return Err(self.other_than(wanted.name()));
        }
        let hint = |tensors: &NamedTensors| {
            let file = tensors.names().find_map(|name| tensors.origin_of(name)).unwrap_or_default();
            format!("; `animatediff inspect {file} --keys` lists them")
        };
        self.format.table.import(self.tensors, hint)
    }

    /// The error of having expected `wanted` here.
    pub fn other_than(&self, wanted: &'static str) -> WeightsError {
        let path = self.tensors.origin().map(Path::to_owned).unwrap_or_default();
        WeightsError::OtherContent { path, found: self.name(), wanted, step: self.step() }
    }

    /// What it is, with its article.
    pub fn name(&self) -> &'static str {
        self.low_rank_use().map_or(self.format.content.name(), LowRankUse::name)
    }

    /// Which flag of `sample` takes it, if one does.
    pub fn flag(&self) -> Option<&'static str> {
        Some(match self.format.content {
            Content::Checkpoint | Content::UNet => "--dreambooth",
            Content::Vae => "--vae",
            Content::MotionModule => "--motion",
            Content::LowRank => match self.low_rank_use() {
                Some(LowRankUse::MotionLora) => "--motion-lora",
                Some(LowRankUse::Adapter) => "--adapter",
                _ => "--lora",
            },
            Content::Embedding => "--embedding",
            Content::TextEncoder | Content::ControlNet | Content::SparseCtrl => return None,
        })
    }

    /// Where it belongs, for the end of a message.
    fn step(&self) -> String {
        match (self.flag(), self.format.content) {
            (Some(flag), _) => format!("; give it with {flag}"),
            (None, Content::TextEncoder) => "; it is read as a part of its base".into(),
            (None, _) => "; it can be inspected and converted, and not be run yet".into(),
        }
    }

    /// What the pairs of a low-rank file are for.
    pub fn low_rank_use(&self) -> Option<LowRankUse> {
        (self.format.content == Content::LowRank).then(|| {
            let theirs = self.tensors.names().map(|name| self.format.table.import_name(name).flatten());
            LowRankUse::of(theirs.flatten(), self.format.dialect)
        })
    }
}

/// What low-rank pairs are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LowRankUse {
    /// The motion module's layers only.
    MotionLora,
    /// The image attentions, in the official names or alone.
    Adapter,
    /// Layers of the image model in general.
    Image,
    /// Both the image model's and the motion module's.
    Mixed,
}

impl LowRankUse {
    fn of(ours: impl Iterator<Item = String>, dialect: Dialect) -> LowRankUse {
        let (mut motion, mut attention, mut other) = (0, 0, 0);
        for name in ours {
            if name.contains(".motion_modules.") {
                motion += 1;
            } else if name.starts_with("unet.") && [".attn1.to_", ".attn2.to_"].iter().any(|part| name.contains(part)) {
                attention += 1;
            } else {
                other += 1;
            }
        }
        match (motion > 0, attention + other > 0) {
            (true, true) => LowRankUse::Mixed,
            (true, false) => LowRankUse::MotionLora,
            _ if other == 0 && dialect == Dialect::Official => LowRankUse::Adapter,
            _ => LowRankUse::Image,
        }
    }

    /// What it is called, with its article.
    pub fn name(self) -> &'static str {
        match self {
            LowRankUse::MotionLora => "a MotionLoRA",
            LowRankUse::Adapter => "a domain adapter",
            LowRankUse::Image => "a LoRA",
            LowRankUse::Mixed => "a LoRA of the image model and the motion module together",
        }
    }
}

/// Takes off what training and saving put around the names, from the outside in. What lies beside a wrapper is left out.
pub fn unwrap(mut tensors: NamedTensors) -> (NamedTensors, Vec<&'static str>) {
    let mut wrapped = Vec::new();
    while let Some(outer) = wrapper(&tensors).filter(|_| wrapped.len() < MOST_WRAPPERS) {
        tensors = tensors.split_off(outer);
        wrapped.push(outer);
    }
    (tensors, wrapped)
}

fn wrapper(tensors: &NamedTensors) -> Option<&'static str> {
    let some = |prefix: &str| tensors.names().any(|name| name.starts_with(prefix));
    let all = |prefix: &str| !tensors.is_empty() && tensors.names().all(|name| name.starts_with(prefix));
    let dictionary = WRAPPERS.into_iter().find(|wrapper| some(wrapper));
    // A checkpoint's own names begin with `model.` too.
    let model = Some(MODEL).filter(|_| some(MODEL) && !some("model.diffusion_model."));
    dictionary.or(model).or_else(|| PREFIXES.into_iter().find(|prefix| all(prefix)))
}

/// Files of other families: what they are, and why they do not fit.
fn foreign(tensors: &NamedTensors) -> Option<(&'static str, &'static str)> {
    const SD15: &str = "this program is for Stable Diffusion 1.x and its motion modules";
    const SIGNS: [(&str, &str, &str); 12] = [
        ("conditioner.embedders.", "a Stable Diffusion XL checkpoint", SD15),
        ("cond_stage_model.model.", "a Stable Diffusion 2 checkpoint", SD15),
        ("lora_te2_", "a LoRA for Stable Diffusion XL", SD15),
        ("text_encoder_2.", "a LoRA for Stable Diffusion XL", SD15),
        ("add_embedding.", "a Stable Diffusion XL UNet", SD15),
        ("pos_encoder.positional_encoding", "a HotshotXL motion module", "HotshotXL is made for Stable Diffusion XL"),
        ("double_blocks.", "a FLUX model", SD15),
        ("joint_blocks.", "a Stable Diffusion 3 model", SD15),
        ("ip_adapter.", "an IP-Adapter", "IP-Adapters are not supported"),
        ("image_proj.", "an IP-Adapter", "IP-Adapters are not supported"),
        ("vision_model.", "a CLIP image encoder", "only CLIP's text encoder is used here"),
        ("adapter.body.", "a T2I-Adapter", "T2I-Adapters are not supported"),
    ];
    let sign = SIGNS.iter().find(|(part, ..)| tensors.names().any(|name| name.contains(part)));
    if let Some((_, what, reason)) = sign {
        return Some((*what, *reason));
    }
    if tensors.contains("clip_g") {
        return Some(("a textual-inversion embedding for Stable Diffusion XL", SD15));
    }
    // Stable Diffusion XL has several blocks in a spatial transformer, where 1.x has one.
    let second = ["transformer_blocks_1_", "transformer_blocks.1."];
    let spatial =
        |name: &str| name.contains("attentions") || name.contains("_blocks_4_1_") || name.contains("_blocks_7_1_");
    let of_xl = |name: &str| spatial(name) && second.iter().any(|part| name.contains(part));
    if tensors.names().any(|name| name.contains("lora") && of_xl(name)) {
        return Some(("a LoRA for Stable Diffusion XL", SD15));
    }
    foreign_motion(tensors)
}

/// Motion modules whose names are those of ours and whose architecture is not.
fn foreign_motion(tensors: &NamedTensors) -> Option<(&'static str, &'static str)> {
    let has = |part: &str| tensors.names().any(|name| name.contains(part));
    if !has("motion_modules.") || has("_lora") || has(".lora_") {
        return None;
    }
    let last = tensors.names().find(|name| name.starts_with("up_blocks.2.") && name.ends_with(".norm.weight"));
    let narrow = last.and_then(|name| tensors.shape(name)).is_some_and(|shape| shape == [320]);
    if narrow && !has("blocks.3.motion_modules.") {
        return Some((
            "a motion module for Stable Diffusion XL",
            "it has modules on three levels, where this base has four",
        ));
    }
    let conv_in = tensors.shape("conv_in.weight");
    if conv_in.is_some_and(|shape| shape.get(1) == Some(&9)) {
        return Some((
            "a PIA motion module",
            "it comes with an input convolution of 9 channels, which is not supported",
        ));
    }
    None
}

/// A few vectors by the names of tokens, or A1111's dictionary of them: what no table of layers knows.
fn embedding(tensors: &NamedTensors) -> Option<Format> {
    super::embedding::dialect(tensors).map(super::embedding::format)
}
