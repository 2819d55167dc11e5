//! The base model: a diffusers folder, or a single file, with parts of other files in the place of its own.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde::de::DeserializeOwned;
use serde_json::Value;
use tch::{Device, Kind, Tensor};

use super::{AssembleError, Pool, build, infer, outline};
use crate::{
    diffusion, hub,
    model::{
        clip::{self, TextEncoder},
        sizes::Sizes,
        unet::{self, UNet},
        vae::{self, Vae},
    },
    nn::{Params, Plan, Store},
    tokenizer::Tokenizer,
    weights::{Content, Embedding, Identified, Lora, NamedTensors},
};

/// Which files a base is made of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BaseFiles {
    /// A diffusers folder, or a checkpoint in one file.
    pub base: PathBuf,
    /// A checkpoint, folder or UNet whose parts replace the base's: a personalised model.
    pub dreambooth: Option<PathBuf>,
    /// A VAE that replaces that of either.
    pub vae: Option<PathBuf>,
}

/// A Stable Diffusion 1.x model; its configurations are read, its weights are not yet.
#[derive(Debug)]
pub struct Base {
    /// As it was given.
    pub origin: PathBuf,
    /// Sizes of the UNet.
    pub unet: unet::Config,
    /// Of the VAE.
    pub vae: vae::Config,
    /// Of the text encoder.
    pub text: clip::Config,
    /// The noise it was trained on; Stable Diffusion's own where nothing says.
    pub noise_scheduler_kwargs: diffusion::Config,
    /// What a user should know about where its parts come from.
    pub notes: Vec<String>,
    parts: Parts,
    mixed: bool,
    /// Where weights come from that are in no file.
    pool: Option<Pool>,
}

/// Where each part's weights are: a file, or a folder.
#[derive(Clone, Debug)]
struct Parts {
    unet: PathBuf,
    vae: PathBuf,
    text: PathBuf,
    tokenizer: PathBuf,
}

/// A part of a base.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    UNet,
    Vae,
    Text,
}

impl Part {
    const ALL: [Part; 3] = [Part::UNet, Part::Vae, Part::Text];

    /// The folder in diffusers' layout.
    fn folder(self) -> &'static str {
        match self {
            Part::UNet => "unet",
            Part::Vae => "vae",
            Part::Text => "text_encoder",
        }
    }

    fn content(self) -> Content {
        match self {
            Part::UNet => Content::UNet,
            Part::Vae => Content::Vae,
            Part::Text => Content::TextEncoder,
        }
    }

    /// The tensors of this part in a file of it, or in a whole checkpoint.
    fn of(self, file: Identified) -> Result<NamedTensors, AssembleError> {
        Ok(match file.format.content {
            Content::Checkpoint => file.import(Content::Checkpoint)?.split_off(&format!("{}.", self.folder())),
            _ => file.import(self.content())?,
        })
    }

    fn read(self, path: &Path) -> Result<NamedTensors, AssembleError> {
        self.of(Identified::read(path)?)
    }
}

/// What is added to a text encoder.
#[derive(Debug, Default)]
pub struct TextExtras {
    /// Deltas and their scales, in order.
    pub loras: Vec<(Lora, f64)>,
    /// Words of their own.
    pub embeddings: Vec<Embedding>,
}

impl Base {
    /// Opens a folder or a file by itself.
    pub fn open(path: &Path) -> Result<Base, AssembleError> {
        Base::open_files(&BaseFiles { base: path.to_owned(), ..BaseFiles::default() })
    }

    /// Reads the configurations and refuses models of another family.
    pub fn open_files(files: &BaseFiles) -> Result<Base, AssembleError> {
        let local = hub::local(&files.base).map_err(AssembleError::Hub)?;
        let mut base = match local.is_file() {
            true => Base::of_file(&files.base, &local, files.vae.is_some())?,
            false => Base::of_folder(&files.base, &local)?,
        };
        if let Some(path) = &files.dreambooth {
            base.replace(path)?;
        }
        if let Some(path) = &files.vae {
            base.parts.vae = path.clone();
        }
        base.mixed = files.dreambooth.is_some() || files.vae.is_some();
        base.check()?;
        Ok(base)
    }

    /// A base of random weights, which are made when they are asked for; only its tokenizer is in files.
    pub fn random(sizes: Sizes, pool: Pool, tokenizer: &Path) -> Base {
        let nowhere = || PathBuf::from("random weights");
        Base {
            origin: nowhere(),
            unet: sizes.unet,
            vae: sizes.vae,
            text: sizes.text,
            noise_scheduler_kwargs: diffusion::Config::scaled_linear(),
            notes: Vec::new(),
            parts: Parts { unet: nowhere(), vae: nowhere(), text: nowhere(), tokenizer: tokenizer.to_owned() },
            mixed: false,
            pool: Some(pool),
        }
    }

    fn of_folder(origin: &Path, dir: &Path) -> Result<Base, AssembleError> {
        let not = |reason: &str| AssembleError::NotABase { path: origin.to_owned(), reason: reason.into() };
        if !dir.is_dir() {
            return Err(not(
                "there is no such folder or file; `animatediff init --preset tiny DIR` makes a random one to try",
            ));
        }
        if !dir.join("unet/config.json").exists() {
            return Err(not("it has no unet/config.json; expected the folders unet, vae, text_encoder, tokenizer"));
        }
        if dir.join("text_encoder_2").exists() {
            return Err(not(
                "it is a Stable Diffusion XL model; AnimateDiff's modules here are for Stable Diffusion 1.x",
            ));
        }
        let unet_path = dir.join("unet/config.json");
        let part = |part: Part| dir.join(part.folder());
        Ok(Base {
            origin: origin.to_owned(),
            unet: unet_config(&read_json(&unet_path)?, &unet_path)?,
            vae: read_config(dir, "vae")?,
            text: read_config(dir, "text_encoder")?,
            noise_scheduler_kwargs: read_schedule(&dir.join(SCHEDULER))?,
            notes: Vec::new(),
            parts: Parts {
                unet: part(Part::UNet),
                vae: part(Part::Vae),
                text: part(Part::Text),
                tokenizer: dir.join("tokenizer"),
            },
            mixed: false,
            pool: None,
        })
    }

    /// A checkpoint by itself. Its sizes are in its metadata, or in its shapes.
    fn of_file(origin: &Path, path: &Path, other_vae: bool) -> Result<Base, AssembleError> {
        let file = Identified::read(path)?;
        if file.format.content != Content::Checkpoint {
            return Err(file
                .other_than("a base model (a folder in the diffusers layout, or a whole checkpoint)")
                .into());
        }
        let metadata = file.metadata.clone();
        let mut tensors = file.import(Content::Checkpoint)?;
        let [unet, vae, text] = Part::ALL.map(|part| tensors.split_off(&format!("{}.", part.folder())));
        let missing =
            [(Part::UNet, unet.is_empty()), (Part::Vae, vae.is_empty() && !other_vae), (Part::Text, text.is_empty())];
        if let Some((part, _)) = missing.iter().find(|(_, missing)| *missing) {
            return Err(AssembleError::NotABase {
                path: origin.to_owned(),
                reason: format!(
                    "it has no {}; give a complete base with --base, and this file with --dreambooth{}",
                    part.content().noun(),
                    if *part == Part::Vae { ", or a VAE with --vae" } else { "" }
                ),
            });
        }
        let told = |part: &str| infer::told(&metadata, part);
        let schedule = told("scheduler").map(|json| schedule_of(json, path)).transpose()?;
        Ok(Base {
            origin: origin.to_owned(),
            unet: unet_config(&told("unet").unwrap_or_else(|| infer::unet(&unet)), path)?,
            vae: told("vae").map_or_else(|| Ok(infer::vae(&vae)), |json| parse_config(json, path))?,
            text: told("text_encoder").map_or_else(|| Ok(infer::text(&text)), |json| parse_config(json, path))?,
            noise_scheduler_kwargs: schedule.unwrap_or_else(diffusion::Config::scaled_linear),
            notes: Vec::new(),
            parts: Parts {
                unet: path.to_owned(),
                vae: path.to_owned(),
                text: path.to_owned(),
                tokenizer: tokenizer_beside(path),
            },
            mixed: false,
            pool: None,
        })
    }

    /// Takes what a personalised model has; its sizes are the base's.
    fn replace(&mut self, path: &Path) -> Result<(), AssembleError> {
        let local = hub::local(path).map_err(AssembleError::Hub)?;
        if local.join("unet/config.json").is_file() {
            let other = Base::of_folder(path, &local)?;
            (self.parts.unet, self.parts.vae, self.parts.text) = (other.parts.unet, other.parts.vae, other.parts.text);
            return Ok(());
        }
        let file = Identified::read(&local)?;
        match file.format.content {
            Content::UNet => {
                let tensors = file.import(Content::UNet)?;
                refuse_family(&tensors, path)?;
                self.parts.unet = local.into_owned();
            }
            Content::Checkpoint => {
                let tensors = file.import(Content::Checkpoint)?;
                refuse_family(&tensors.shapes_below("unet."), path)?;
                let has = |part: Part| tensors.names().any(|name| name.starts_with(&format!("{}.", part.folder())));
                if !has(Part::UNet) {
                    let reason = "it has no UNet, so it is no personalised model".into();
                    return Err(AssembleError::NotABase { path: path.to_owned(), reason });
                }
                let places = [&mut self.parts.unet, &mut self.parts.vae, &mut self.parts.text];
                for (part, place) in Part::ALL.into_iter().zip(places) {
                    if has(part) {
                        *place = local.to_path_buf();
                    } else {
                        let name = part.content().noun();
                        let base = self.origin.display();
                        self.notes.push(format!("{} has no {name}: that of {base} is used", path.display()));
                    }
                }
            }
            _ => {
                return Err(file
                    .other_than("a personalised model (a checkpoint, a UNet, or a folder of either)")
                    .into());
            }
        }
        Ok(())
    }

    fn check(&self) -> Result<(), AssembleError> {
        for (part, path, found) in
            [("vae", &self.parts.vae, self.vae.check()), ("text_encoder", &self.parts.text, self.text.check())]
        {
            let path = if path.is_file() { path.clone() } else { path.with_file_name(part).join("config.json") };
            found.map_err(|reason| AssembleError::Config { path, reason })?;
        }
        let not = |reason: String| AssembleError::NotABase { path: self.origin.clone(), reason };
        if self.text.hidden_size != self.unet.cross_attention_dim {
            return Err(not(format!(
                "its text encoder is {} wide and its UNet expects {}: the folders are from different models",
                self.text.hidden_size, self.unet.cross_attention_dim
            )));
        }
        if self.vae.latent_channels != self.unet.in_channels {
            return Err(not(format!(
                "its VAE has {} latent channels and its UNet takes {}: the folders are from different models",
                self.vae.latent_channels, self.unet.in_channels
            )));
        }
        Ok(())
    }

    /// Where the configuration files of its folder are, if it is one.
    pub fn folder(&self) -> Option<PathBuf> {
        let local = hub::local(&self.origin).ok()?;
        local.is_dir().then(|| local.into_owned())
    }

    /// Whether parts of other files are in the place of its own.
    pub fn is_mixed(&self) -> bool {
        self.mixed
    }

    /// The folder that the tokenizer is read from.
    pub fn tokenizer_folder(&self) -> Result<PathBuf, AssembleError> {
        Ok(hub::local(&self.parts.tokenizer).map_err(AssembleError::Hub)?.into_owned())
    }

    /// The tokenizer, whose prompts are no longer than what the text encoder has places for.
    pub fn tokenizer(&self) -> Result<Tokenizer, AssembleError> {
        let tokenizer = Tokenizer::open(&self.tokenizer_folder()?)?;
        let places = self.text.max_position_embeddings;
        if tokenizer.length() as i64 > places {
            let reason = format!(
                "`max_position_embeddings: {places}`: the tokenizer makes prompts of {} tokens (`model_max_length` of \
                 tokenizer/tokenizer_config.json, 77 where it says nothing)",
                tokenizer.length()
            );
            return Err(AssembleError::Config { path: self.parts.text.join("config.json"), reason });
        }
        Ok(tokenizer)
    }

    /// The tokenizer with the words of `embeddings`, whose vectors follow the vocabulary's in the text encoder.
    pub fn tokenizer_with(&self, embeddings: &[Embedding]) -> Result<Tokenizer, AssembleError> {
        let mut tokenizer = self.tokenizer()?;
        let mut next = self.text.vocab_size;
        for Embedding { token, vectors } in embeddings {
            let places = vectors.size()[0];
            tokenizer.add_word(token, next..next + places).map_err(AssembleError::Word)?;
            next += places;
        }
        Ok(tokenizer)
    }

    /// The text encoder, trained as `plan` says.
    pub fn text_encoder(&self, plan: Plan, device: Device, kind: Kind) -> Result<(TextEncoder, Store), AssembleError> {
        self.text_encoder_with(&TextExtras::default(), plan, device, kind)
    }

    /// The same with deltas merged and words added.
    pub fn text_encoder_with(
        &self,
        extras: &TextExtras,
        plan: Plan,
        device: Device,
        kind: Kind,
    ) -> Result<(TextEncoder, Store), AssembleError> {
        let mut tensors = self.text_tensors()?;
        for (lora, scale) in &extras.loras {
            lora.merge_into(&mut tensors, *scale)?;
        }
        let config = self.with_words(&extras.embeddings, &mut tensors)?;
        let home = |_: &str| Some(self.parts.text.display().to_string());
        build("the text encoder", tensors, home, plan, device, kind, |params| TextEncoder::new(params, &config))
    }

    /// Puts the vectors of `embeddings` below those of the vocabulary.
    fn with_words(&self, embeddings: &[Embedding], tensors: &mut NamedTensors) -> Result<clip::Config, AssembleError> {
        const TABLE: &str = "text_model.embeddings.token_embedding.weight";
        let mut config = self.text.clone();
        let Some(table) = tensors.get(TABLE).filter(|_| !embeddings.is_empty()) else { return Ok(config) };
        let mut rows = vec![table.to_kind(Kind::Float)];
        for Embedding { token, vectors } in embeddings {
            let (found, wanted) = (vectors.size()[1], self.text.hidden_size);
            if found != wanted {
                return Err(AssembleError::Word(format!(
                    "the embedding `{token}` is {found} wide and the text encoder {wanted}: it was made for another model"
                )));
            }
            config.vocab_size += vectors.size()[0];
            rows.push(vectors.shallow_clone());
        }
        tensors.insert(TABLE, Tensor::cat(&rows, 0));
        Ok(config)
    }

    /// The VAE, frozen.
    pub fn vae(&self, device: Device, kind: Kind) -> Result<Vae, AssembleError> {
        Ok(self.trained_vae(Plan::only_used(), device, kind)?.0)
    }

    /// The VAE, trained as `plan` says, and its tensors.
    pub fn trained_vae(&self, plan: Plan, device: Device, kind: Kind) -> Result<(Vae, Store), AssembleError> {
        let home = |_: &str| Some(self.parts.vae.display().to_string());
        let new = |params: &Params| Vae::new(params, &self.vae);
        build("the VAE", self.vae_tensors()?, home, plan, device, kind, new)
    }

    /// The UNet's tensors.
    pub fn unet_tensors(&self) -> Result<NamedTensors, AssembleError> {
        match &self.pool {
            Some(pool) => Ok(pool.fill(outline(|params| UNet::new(params, &self.unet, None)))),
            None => Part::UNet.read(&self.parts.unet),
        }
    }

    /// The VAE's.
    pub fn vae_tensors(&self) -> Result<NamedTensors, AssembleError> {
        match &self.pool {
            Some(pool) => Ok(pool.fill(outline(|params| Vae::new(params, &self.vae)))),
            None => Part::Vae.read(&self.parts.vae),
        }
    }

    /// The text encoder's.
    pub fn text_tensors(&self) -> Result<NamedTensors, AssembleError> {
        match &self.pool {
            Some(pool) => Ok(pool.fill(outline(|params| TextEncoder::new(params, &self.text)))),
            None => Part::Text.read(&self.parts.text),
        }
    }

    /// Where the UNet's weights are, for messages.
    pub(super) fn unet_home(&self) -> String {
        self.parts.unet.display().to_string()
    }
}

/// Refuses UNets of other families by name.
fn refuse_family(unet: &NamedTensors, path: &Path) -> Result<(), AssembleError> {
    unet::config::refuse_other_families(&infer::unet(unet))
        .map_err(|reason| AssembleError::Unsupported { path: path.to_owned(), reason })
}

/// The UNet of a file of it, or of a whole checkpoint: an earlier fine-tuning.
pub fn read_unet(path: &Path) -> Result<NamedTensors, AssembleError> {
    Part::UNet.read(path)
}

/// Where a base says what noise it was trained on.
pub const SCHEDULER: &str = "scheduler/scheduler_config.json";

/// Where CLIP's tokenizer is had from when a single file has none beside it.
const CLIP: &str = "hf:openai/clip-vit-large-patch14";

/// A `tokenizer` folder beside a single file, or CLIP's from the Hub.
fn tokenizer_beside(path: &Path) -> PathBuf {
    let beside = path.with_file_name("tokenizer");
    if beside.is_dir() { beside } else { CLIP.into() }
}

fn unet_config(json: &Value, path: &Path) -> Result<unet::Config, AssembleError> {
    unet::Config::from_json(json).map_err(|error| match error.downcast::<unet::Unsupported>() {
        Ok(reason) => AssembleError::Unsupported { path: path.to_owned(), reason: *reason },
        Err(error) => AssembleError::Config { path: path.to_owned(), reason: error.to_string() },
    })
}

/// The process that a base was trained on. How it is sampled is the sampler's choice: other keys are left alone.
fn read_schedule(path: &Path) -> Result<diffusion::Config, AssembleError> {
    if !path.exists() {
        return Ok(diffusion::Config::scaled_linear());
    }
    schedule_of(read_json(path)?, path)
}

fn schedule_of(json: Value, path: &Path) -> Result<diffusion::Config, AssembleError> {
    let not = |reason: String| AssembleError::Config { path: path.to_owned(), reason };
    for key in ["trained_betas", "rescale_betas_zero_snr"] {
        if !matches!(json.get(key), None | Some(Value::Null | Value::Bool(false))) {
            return Err(not(format!("`{key}` is not supported yet; a schedule of `beta_start` and `beta_end` is")));
        }
    }
    let told = serde_path_to_error::deserialize(json).map_err(|error| not(format!("not a noise schedule: {error}")))?;
    let process = diffusion::Config::scaled_linear().with_process(told);
    process.check(1).map_err(|(key, message)| not(format!("`{key}`: {message}")))?;
    Ok(process)
}

fn read_json(path: &Path) -> Result<Value, AssembleError> {
    let fail = |reason: String| AssembleError::Config { path: path.to_owned(), reason };
    let text = std::fs::read_to_string(path).map_err(|error| fail(format!("cannot be read: {error}")))?;
    serde_json::from_str(&text).map_err(|error| fail(format!("not JSON: {error}")))
}

fn read_config<T: DeserializeOwned>(dir: &Path, component: &str) -> Result<T, AssembleError> {
    let path = dir.join(component).join("config.json");
    parse_config(read_json(&path)?, &path)
}

fn parse_config<T: DeserializeOwned>(json: Value, path: &Path) -> Result<T, AssembleError> {
    serde_path_to_error::deserialize(json).map_err(|error| AssembleError::Config {
        path: path.to_owned(),
        reason: format!("not a configuration of this model: {error}"),
    })
}

/// The configurations of a base, for the metadata of a file that holds all of it.
pub fn configs_metadata(base: &Base) -> BTreeMap<String, String> {
    let json = serde_json::json!({
        "unet": base.unet,
        "vae": base.vae,
        "text_encoder": base.text,
        "scheduler": base.noise_scheduler_kwargs.process(),
    });
    BTreeMap::from([(infer::CONFIGS_KEY.to_owned(), json.to_string())])
}
