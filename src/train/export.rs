//! What a run gives to other tools: official key names, plain safetensors, metadata.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use tch::{Device, Kind, Tensor};

use super::{Config, recipe::Stage, trainer::Trainer};
use crate::{
    assemble::{
        ARCHITECTURE_KEY, Base, GROUPS_KEY, Motion, SCHEDULE_KEY, SCHEDULER, folder::write_configs, position_tables,
        read_unet,
    },
    diffusion, files,
    weights::{
        Content, Dialect, LowRankUse, NamedTensors,
        formats::{self, Topology},
        publish::{Card, write_named},
    },
};

/// Writes the run's weights into `dir`, replacing an earlier export; gives the path to use them by.
pub fn export(dir: &Path, stage: Stage, config: &Config, base: &Base, trainer: &Trainer) -> Result<PathBuf> {
    let metadata = metadata(stage, config, base, trainer);
    let kind = config.save_precision.kind(Device::Cpu);
    match stage {
        Stage::Adapter | Stage::MotionLora => {
            let path =
                dir.join(if stage == Stage::Adapter { "adapter.safetensors" } else { "motion_lora.safetensors" });
            write_named(
                &path,
                official(Content::LowRank, pairs(config, trainer).prefixed("unet."), trainer)?,
                Some(kind),
                &metadata,
            )?;
            Ok(path)
        }
        Stage::Motion => {
            let path = dir.join("motion_module.safetensors");
            write_named(&path, motion_module(config, trainer)?, Some(kind), &metadata)?;
            Ok(path)
        }
        Stage::Image | Stage::Vae => {
            let process = (stage == Stage::Image).then(|| config.noise_scheduler_kwargs.process());
            write_base(dir, config, base, (trainer, kind), process, &metadata)?;
            Ok(dir.to_owned())
        }
    }
}

fn metadata(stage: Stage, config: &Config, base: &Base, trainer: &Trainer) -> BTreeMap<String, String> {
    let low_rank = matches!(stage, Stage::Adapter | Stage::MotionLora);
    let (content, purpose) = match stage {
        Stage::Adapter => (Content::LowRank, Some(LowRankUse::Adapter)),
        Stage::MotionLora => (Content::LowRank, Some(LowRankUse::MotionLora)),
        Stage::Motion => (Content::MotionModule, None),
        Stage::Image => (Content::UNet, None),
        Stage::Vae => (Content::Vae, None),
    };
    let dialect = if matches!(stage, Stage::Image | Stage::Vae) { Dialect::Diffusers } else { Dialect::Official };
    let title = format!("AnimateDiff {stage}");
    // The scale is folded into the factors: what is in the file has an alpha of its rank.
    let rank = low_rank.then_some(config.lora.rank);
    let alpha = rank.map(|rank| rank as f64);
    let mut metadata = Card { content, dialect, purpose, title: &title, rank, alpha }.metadata();
    let base_path = config.pretrained_model_path.display().to_string();
    let data = config.train_data.source();
    let steps = trainer.step().to_string();
    let rate = config.learning_rate.to_string();
    let own = [
        ("animatediff.stage", stage.to_string()),
        ("animatediff.base", base_path.clone()),
        ("animatediff.data", data),
        ("animatediff.steps", steps.clone()),
        ("animatediff.learning_rate", rate.clone()),
        ("animatediff.version", env!("CARGO_PKG_VERSION").into()),
        ("ss_sd_model_name", base_path),
        ("ss_steps", steps),
        ("ss_learning_rate", rate),
    ];
    metadata.extend(own.map(|(key, value)| (key.to_owned(), value)));
    if let Some(rank) = rank {
        metadata.insert("animatediff.rank".into(), rank.to_string());
        metadata.insert("animatediff.alpha".into(), rank.to_string());
    }
    if let Some(architecture) = trainer.architecture() {
        let json = |value: Result<String, _>| value.expect("a configuration is plain data");
        metadata.insert(ARCHITECTURE_KEY.into(), json(serde_json::to_string(architecture)));
        metadata.insert(SCHEDULE_KEY.into(), json(serde_json::to_string(&config.noise_scheduler_kwargs)));
        metadata.insert(GROUPS_KEY.into(), base.unet.norm_num_groups.to_string());
        metadata.insert("animatediff.motion_module".into(), architecture.version().unwrap_or("custom").into());
    }
    metadata
}

/// Low-rank pairs, the scale folded into `up`: readers of the official format know no alpha.
fn pairs(config: &Config, trainer: &Trainer) -> NamedTensors {
    let scale = config.lora.scale();
    let pair = |(name, tensor): (&str, &Tensor)| {
        let folded =
            if name.ends_with("lora_B.weight") && scale != 1.0 { tensor.detach() * scale } else { tensor.detach() };
        (name.to_owned(), folded)
    };
    unet(&trainer.weights.trained).map(pair).collect()
}

/// The motion module, with the tables of sines that older readers expect.
fn motion_module(config: &Config, trainer: &Trainer) -> Result<NamedTensors> {
    let weights = &trainer.weights;
    let read = config.motion.as_ref().map(|path| Motion::read(path, config.unet_additional_kwargs.clone()));
    let frozen =
        as_read(&weights.frozen, "unet.", &read.transpose()?.map_or_else(NamedTensors::new, |read| read.tensors));
    let module: NamedTensors = unet(&weights.trained)
        .chain(unet(&frozen))
        .filter(|(name, _)| name.contains("motion_modules."))
        .map(|(name, tensor)| (name.to_owned(), tensor.detach()))
        .collect();
    let mut tensors = official(Content::MotionModule, module, trainer)?;
    if let Some(module) = trainer.architecture().map(|config| &config.motion_module_kwargs)
        && module.temporal_position_encoding
    {
        tensors.extend(position_tables(&tensors, module.temporal_position_encoding_max_len));
    }
    Ok(tensors)
}

/// `tensors` in the official names.
fn official(content: Content, tensors: NamedTensors, trainer: &Trainer) -> Result<NamedTensors> {
    let architecture = trainer.architecture();
    let attentions = architecture.map_or(2, |config| config.motion_module_kwargs.attention_block_types.len());
    let topology = Topology { attentions, ..Topology::default() };
    let format = formats::format(content, Dialect::Official, &topology).expect("the official formats have tables");
    Ok(format.table.export(tensors)?)
}

/// A whole base in the diffusers layout: the trained parts written anew, the rest copied.
fn write_base(
    dir: &Path,
    config: &Config,
    base: &Base,
    trained: (&Trainer, Kind),
    process: Option<diffusion::Process>,
    metadata: &BTreeMap<String, String>,
) -> Result<()> {
    files::write_dir(dir, |staging| {
        stage_base(staging, config, base, trained, metadata)?;
        process.map_or(Ok(()), |process| write_process(&staging.join(SCHEDULER), process))
    })
}

/// The parts of a base that can be trained: prefix of their names, folder, file of the weights.
const COMPONENTS: [(&str, &str, &str); 3] = [
    ("unet.", "unet", "diffusion_pytorch_model.safetensors"),
    ("text_encoder.", "text_encoder", "model.safetensors"),
    ("vae.", "vae", "diffusion_pytorch_model.safetensors"),
];

fn stage_base(
    staging: &Path,
    config: &Config,
    base: &Base,
    (trainer, kind): (&Trainer, Kind),
    metadata: &BTreeMap<String, String>,
) -> Result<()> {
    // Parts that were put in the place of the folder's are not in it.
    let folder = base.folder().filter(|_| !base.is_mixed());
    match &folder {
        Some(folder) => {
            for part in ["model_index.json", "scheduler", "tokenizer"] {
                let from = folder.join(part);
                if from.exists() {
                    files::copy(&from, &staging.join(part))?;
                }
            }
        }
        None => {
            write_configs(staging, &base.unet, &base.vae, &base.text, base.noise_scheduler_kwargs.process())?;
            files::copy(&base.tokenizer_folder()?, &staging.join("tokenizer"))?;
        }
    }
    let (trained, frozen) = (&trainer.weights.trained, &trainer.weights.frozen);
    for (prefix, part, file) in COMPONENTS {
        let (target, of_folder) = (staging.join(part), folder.as_ref().map(|folder| folder.join(part)));
        match (trained.keys().any(|name| name.starts_with(prefix)), of_folder) {
            (false, Some(from)) => files::copy(&from, &target)?,
            (false, None) => write_named(&target.join(file), untrained(base, part)?, None, &BTreeMap::new())?,
            (true, from) => {
                if let Some(from) = from {
                    files::copy(&from.join("config.json"), &target.join("config.json"))?;
                }
                let mut read = untrained(base, part)?;
                if let (Some(path), "unet") = (&config.unet_checkpoint_path, part) {
                    read.extend(read_unet(path)?);
                }
                let frozen = as_read(frozen, prefix, &read);
                let own = trained.iter().chain(&frozen);
                let own =
                    own.filter_map(|(name, tensor)| Some((name.strip_prefix(prefix)?.to_owned(), tensor.detach())));
                write_named(&target.join(file), own.collect(), Some(kind), metadata)?;
            }
        }
    }
    write_scaling_factor(&staging.join("vae/config.json"), base.vae.scaling_factor)
}

/// Those of `frozen` whose names begin with `prefix`, with their values in `read`, where they are: the networks have them rounded to
/// what they compute in.
fn as_read(frozen: &BTreeMap<String, Tensor>, prefix: &str, read: &NamedTensors) -> BTreeMap<String, Tensor> {
    let own = frozen.iter().filter_map(|(name, tensor)| Some((name, name.strip_prefix(prefix)?, tensor)));
    own.map(|(name, short, tensor)| (name.clone(), read.get(short).unwrap_or_else(|| tensor.shallow_clone()))).collect()
}

fn untrained(base: &Base, part: &str) -> Result<NamedTensors> {
    Ok(match part {
        "unet" => base.unet_tensors()?,
        "vae" => base.vae_tensors()?,
        _ => base.text_tensors()?,
    })
}

/// Says what noise the base is trained on now.
fn write_process(path: &Path, process: diffusion::Process) -> Result<()> {
    if !path.exists() {
        let failed = || format!("{}: cannot be written", path.display());
        path.parent().map_or(Ok(()), fs::create_dir_all).with_context(failed)?;
        fs::write(path, r#"{"_class_name": "DDIMScheduler"}"#).with_context(failed)?;
    }
    let serde_json::Value::Object(process) = serde_json::to_value(process)? else { unreachable!("a struct") };
    rewrite(path, |config| process.into_iter().for_each(|(key, value)| config[key] = value))
}

/// Sets the one number of the VAE's configuration that training may change.
fn write_scaling_factor(path: &Path, factor: f64) -> Result<()> {
    rewrite(path, |config| {
        if config.get("scaling_factor").and_then(serde_json::Value::as_f64).unwrap_or(0.18215) != factor {
            config["scaling_factor"] = factor.into();
        }
    })
}

/// Edits a JSON file; one that stays what it says is left as it is.
fn rewrite(path: &Path, edit: impl FnOnce(&mut serde_json::Value)) -> Result<()> {
    let failed = || format!("{}: cannot be rewritten", path.display());
    let before: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(path).with_context(failed)?).with_context(failed)?;
    let mut config = before.clone();
    edit(&mut config);
    if config == before {
        return Ok(());
    }
    fs::write(path, format!("{config:#}\n")).with_context(failed)
}

/// The UNet's tensors, by the UNet's own names.
fn unet(tensors: &BTreeMap<String, Tensor>) -> impl Iterator<Item = (&str, &Tensor)> {
    tensors.iter().filter_map(|(name, tensor)| Some((name.strip_prefix("unet.")?, tensor)))
}
