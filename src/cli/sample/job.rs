//! The official job YAML: what one entry of the list says.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{assemble::BaseFiles, cli::usage, device::Precision, nn::NormScope};

/// One job. Official keys, and below them ours.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Job {
    /// Personalised model: a checkpoint, a UNet, or a folder of either.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "path")]
    pub dreambooth_path: Option<PathBuf>,
    /// LoRA on the UNet, the text encoder or both.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "path")]
    pub lora_model_path: Option<PathBuf>,
    /// Its scale; the official 0.8 if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lora_alpha: Option<f64>,
    /// More LoRAs with their scales. Ours, not an official key.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "list")]
    pub loras: Vec<LoraEntry>,
    /// Whether LoRAs are read as the official loader does, which leaves their alpha out. Ours.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lora_ignore_alpha: Option<bool>,
    /// Textual-inversion embeddings. Ours.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "list")]
    pub embeddings: Vec<PathBuf>,
    /// VAE in the place of the base's. Ours.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "path")]
    pub vae_path: Option<PathBuf>,
    /// Official inference YAML.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "path")]
    pub inference_config: Option<PathBuf>,
    /// Motion module.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "path")]
    pub motion_module: Option<PathBuf>,
    /// MotionLoRAs with their scales.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "list")]
    pub motion_module_lora_configs: Vec<LoraEntry>,
    /// Domain adapter.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "path")]
    pub adapter_lora_path: Option<PathBuf>,
    /// Its scale.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adapter_lora_scale: Option<f64>,
    /// ControlNets are not run yet: only "".
    #[serde(skip_serializing_if = "String::is_empty")]
    pub controlnet_path: String,
    /// Goes with `controlnet_path`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub controlnet_config: String,
    /// Goes with `controlnet_path`.
    #[serde(skip_serializing_if = "no_values")]
    pub controlnet_images: Many<String>,
    /// Goes with `controlnet_path`; spelled as in the official files.
    #[serde(skip_serializing_if = "no_values")]
    pub controlnet_image_indexs: Many<i64>,
    /// Goes with `controlnet_path`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub normalize_condition_images: Option<bool>,
    /// Seeds, one for all prompts or one for each.
    pub seed: Many<Seed>,
    /// Denoising steps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<i64>,
    /// Classifier-free guidance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guidance_scale: Option<f64>,
    /// Prompts.
    pub prompt: Many<String>,
    /// Negative prompts, one for all prompts or one for each.
    pub n_prompt: Many<String>,
    /// Width in pixels.
    #[serde(rename = "W", skip_serializing_if = "Option::is_none")]
    pub width: Option<i64>,
    /// Height in pixels.
    #[serde(rename = "H", skip_serializing_if = "Option::is_none")]
    pub height: Option<i64>,
    /// Frames.
    #[serde(rename = "L", skip_serializing_if = "Option::is_none")]
    pub frames: Option<i64>,
    /// Base model.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "path")]
    pub pretrained_model_path: Option<PathBuf>,
    /// Frames per second of the result.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fps: Option<f64>,
    /// Sampler; only `ddim`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheduler: Option<String>,
    /// Statistics of the motion module's own norm.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub motion_norm: Option<NormScope>,
    /// Precision of the UNet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dtype: Option<Precision>,
    /// Noise to start from.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "path")]
    pub latents: Option<PathBuf>,
    /// Its row for the first prompt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latents_row: Option<i64>,
}

/// A MotionLoRA or another LoRA, and its scale.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LoraEntry {
    /// File.
    pub path: PathBuf,
    /// Scale.
    #[serde(default = "one")]
    pub alpha: f64,
}

/// One clip of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shot {
    /// Prompt.
    pub prompt: String,
    /// Negative prompt.
    pub negative_prompt: String,
    /// Seed, drawn if it was -1.
    pub seed: i64,
}

/// A list that may be written as its only element.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Many<T>(pub Vec<T>);

impl<T> Default for Many<T> {
    fn default() -> Many<T> {
        Many(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Many<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Many<T>, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "one value, or a list of values")]
        enum OneOrMany<T> {
            Many(Vec<T>),
            One(T),
        }
        Ok(match OneOrMany::deserialize(deserializer)? {
            OneOrMany::Many(values) => Many(values),
            OneOrMany::One(value) => Many(vec![value]),
        })
    }
}

impl<T: Serialize> Serialize for Many<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

/// A seed as it is written: official files have unsigned 64-bit ones, whose bits are taken as they are; -1 draws one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "a whole number of 64 bits")]
pub enum Seed {
    /// Below 2^63.
    Signed(i64),
    /// From there.
    Unsigned(u64),
}

impl Seed {
    /// From a command line.
    pub fn parse(text: &str) -> Result<Seed, String> {
        let signed = text.parse().map(Seed::Signed);
        signed
            .or_else(|_| text.parse().map(Seed::Unsigned))
            .map_err(|_| format!("--seed {text}: a whole number of 64 bits is expected"))
    }

    fn resolve(self) -> i64 {
        match self {
            Seed::Signed(-1) => i64::from(rand::random::<u32>()),
            Seed::Signed(seed) => seed,
            Seed::Unsigned(seed) => seed as i64,
        }
    }
}

impl From<i64> for Seed {
    fn from(seed: i64) -> Seed {
        if seed == -1 { Seed::Unsigned(u64::MAX) } else { Seed::Signed(seed) }
    }
}

impl LoraEntry {
    /// `FILE` or `FILE:SCALE`, given as `flag`.
    pub fn parse(flag: &str, text: &str) -> Result<LoraEntry> {
        let scaled = text.rsplit_once(':').and_then(|(path, scale)| Some((path, scale.parse::<f64>().ok()?)));
        let (path, alpha) = scaled.unwrap_or((text, 1.0));
        if path.is_empty() || !alpha.is_finite() {
            return Err(usage(format!("{flag} {text}: FILE or FILE:SCALE is expected")));
        }
        Ok(LoraEntry { path: path.into(), alpha })
    }
}

impl Job {
    /// What cannot be done, or contradicts itself.
    pub fn check(&self) -> Result<()> {
        let not_yet = [
            ("controlnet_path", &self.controlnet_path, "ControlNets are not run yet"),
            ("controlnet_config", &self.controlnet_config, "ControlNets are not run yet"),
        ];
        if let Some((key, value, reason)) = not_yet.into_iter().find(|(_, value, _)| !value.is_empty()) {
            return Err(usage(format!("`{key}: {value}`: {reason}; remove the key")));
        }
        let controlled = !no_values(&self.controlnet_images) || !no_values(&self.controlnet_image_indexs);
        if controlled || self.normalize_condition_images.is_some() {
            return Err(usage("`controlnet_images`: ControlNets are not run yet; remove the keys that begin with it"));
        }
        if self.lora_alpha.is_some() && self.lora_model_path.is_none() {
            return Err(usage("`lora_alpha` goes with `lora_model_path`, which is not given; remove the key"));
        }
        if self.prompt.0.is_empty() {
            return Err(usage("no prompt is given; add --prompt, or `prompt` to the job"));
        }
        let fits = |count: usize| count <= 1 || count == self.prompt.0.len();
        for (key, count) in [("n_prompt", self.n_prompt.0.len()), ("seed", self.seed.0.len())] {
            if !fits(count) {
                return Err(usage(format!(
                    "{count} values of `{key}` for {} prompts; give one, or one for each",
                    self.prompt.0.len()
                )));
            }
        }
        if let Some(name) = self.scheduler.as_ref().filter(|name| *name != "ddim") {
            return Err(usage(format!("`scheduler: {name}`: only ddim can be used")));
        }
        if self.motion_module.is_none() && !self.motion_module_lora_configs.is_empty() {
            return Err(usage("a MotionLoRA needs a motion module: give one with --motion"));
        }
        if self.adapter_lora_path.is_none() && self.adapter_lora_scale.is_some() {
            return Err(usage("an adapter's scale is given without an adapter: give one with --adapter"));
        }
        if self.motion_module.is_none() && self.motion_norm.is_some() {
            return Err(usage("--motion-norm is about a motion module: give one with --motion"));
        }
        if self.lora_ignore_alpha.is_some() && self.all_loras().is_empty() {
            return Err(usage("--lora-ignore-alpha is about LoRAs: give one with --lora"));
        }
        let loras = self.motion_module_lora_configs.iter().chain(&self.loras);
        let scales = loras.map(|entry| entry.alpha).chain(self.adapter_lora_scale).chain(self.lora_alpha);
        for scale in scales {
            ensure!(scale.is_finite(), usage("a scale is not a finite number"));
        }
        if let Some(fps) = self.fps.filter(|fps| !(0.1..=1000.0).contains(fps)) {
            return Err(usage(format!("--fps {fps}: between 0.1 and 1000 is expected")));
        }
        Ok(())
    }

    /// The files of the base model.
    pub fn base_files(&self) -> Result<BaseFiles> {
        let none = "no base model is given; add --base DIR (`animatediff init` makes a random one)";
        Ok(BaseFiles {
            base: self.pretrained_model_path.clone().ok_or_else(|| usage(none))?,
            dreambooth: self.dreambooth_path.clone(),
            vae: self.vae_path.clone(),
        })
    }

    /// All LoRAs with their scales, the official key's first.
    pub fn all_loras(&self) -> Vec<(PathBuf, f64)> {
        let official = self.lora_model_path.clone().map(|path| (path, self.lora_alpha.unwrap_or(0.8)));
        official.into_iter().chain(self.loras.iter().map(|entry| (entry.path.clone(), entry.alpha))).collect()
    }

    /// The job's clips. Seeds of -1 are drawn here.
    pub fn shots(&self) -> Result<Vec<Shot>> {
        let negative =
            |index: usize| self.n_prompt.0.get(index).or(self.n_prompt.0.first()).cloned().unwrap_or_default();
        let seed = |index: usize| {
            let seed = self.seed.0.get(index).or(self.seed.0.first()).copied().unwrap_or(Seed::Signed(-1));
            seed.resolve()
        };
        let shot = |(index, prompt): (usize, &String)| Shot {
            prompt: prompt.clone(),
            negative_prompt: negative(index),
            seed: seed(index),
        };
        Ok(self.prompt.0.iter().enumerate().map(shot).collect())
    }
}

fn no_values<T>(values: &Many<T>) -> bool {
    values.0.is_empty()
}

fn one() -> f64 {
    1.0
}

/// The official files write "" for a path that is not given.
fn path<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<PathBuf>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    Ok(text.filter(|text| !text.is_empty()).map(PathBuf::from))
}

/// A list that may be null.
fn list<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
