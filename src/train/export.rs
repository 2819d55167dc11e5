//! What a run gives to other tools: official key names, plain safetensors, metadata.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use tch::{Kind, Tensor};

use super::{Config, recipe::Stage, trainer::Trainer};
use crate::{
    assemble::{ARCHITECTURE_KEY, Base},
    files,
    model::unet::motion::{self, feed_forward_norm, position_encoding},
    weights::{Table, formats, write::write_safetensors},
};

/// Writes the run's weights into `dir`, replacing an earlier export; gives the path to use them by.
pub fn export(dir: &Path, stage: Stage, config: &Config, base: &Base, trainer: &Trainer) -> Result<PathBuf> {
    let metadata = metadata(stage, config, trainer);
    match stage {
        Stage::Adapter => {
            let path = dir.join("adapter.safetensors");
            write_pairs(&path, &formats::adapter(), config, trainer, &metadata)?;
            Ok(path)
        }
        Stage::MotionLora => {
            let path = dir.join("motion_lora.safetensors");
            write_pairs(&path, &formats::motion_lora(attentions(trainer)), config, trainer, &metadata)?;
            Ok(path)
        }
        Stage::Motion => {
            let path = dir.join("motion_module.safetensors");
            write_motion(&path, trainer, &metadata)?;
            Ok(path)
        }
        Stage::Image => {
            write_base(dir, base, trainer, &metadata)?;
            Ok(dir.to_owned())
        }
    }
}

fn metadata(stage: Stage, config: &Config, trainer: &Trainer) -> BTreeMap<String, String> {
    let mut metadata = BTreeMap::from([
        ("format".into(), "pt".into()),
        ("animatediff.stage".into(), stage.to_string()),
        ("animatediff.base".into(), config.pretrained_model_path.display().to_string()),
        ("animatediff.steps".into(), trainer.step().to_string()),
        ("animatediff.learning_rate".into(), config.learning_rate.to_string()),
        ("animatediff.version".into(), env!("CARGO_PKG_VERSION").into()),
    ]);
    if matches!(stage, Stage::Adapter | Stage::MotionLora) {
        metadata.insert("animatediff.rank".into(), config.lora.rank.to_string());
        metadata.insert("animatediff.alpha".into(), config.lora.rank.to_string());
    }
    if let Some(architecture) = &trainer.architecture {
        let json = serde_json::to_string(architecture).expect("a configuration is plain data");
        metadata.insert(ARCHITECTURE_KEY.into(), json);
        metadata.insert("animatediff.motion_module".into(), architecture.version().unwrap_or("custom").into());
    }
    metadata
}

/// Low-rank pairs, the scale folded into `up`: readers of the official format know no alpha.
fn write_pairs(
    path: &Path,
    table: &Table,
    config: &Config,
    trainer: &Trainer,
    metadata: &BTreeMap<String, String>,
) -> Result<()> {
    let scale = config.lora.scale();
    let pairs = unet(&trainer.weights.trained).map(|(name, tensor)| {
        let folded =
            if name.ends_with("lora_B.weight") && scale != 1.0 { tensor.detach() * scale } else { tensor.detach() };
        (exported(table, name), folded)
    });
    write(path, pairs.collect(), metadata)
}

/// The motion module, with the tables of sines that older readers expect.
fn write_motion(path: &Path, trainer: &Trainer, metadata: &BTreeMap<String, String>) -> Result<()> {
    let attentions = attentions(trainer);
    let table = formats::motion_module(attentions, feed_forward_norm(attentions));
    let weights = &trainer.weights;
    let mut tensors: BTreeMap<String, Tensor> = unet(&weights.trained)
        .chain(unet(&weights.frozen))
        .filter(|(name, _)| name.contains("motion_modules."))
        .map(|(name, tensor)| (exported(&table, name), tensor.detach()))
        .collect();
    if let Some(module) = trainer.architecture.as_ref().map(|config| &config.motion_module_kwargs)
        && module.temporal_position_encoding
    {
        tensors.extend(position_tables(&tensors, module));
    }
    write(path, tensors, metadata)
}

fn position_tables(tensors: &BTreeMap<String, Tensor>, module: &motion::ModuleConfig) -> BTreeMap<String, Tensor> {
    let table = |(name, tensor): (&String, &Tensor)| {
        let path = name.strip_suffix(".to_q.weight")?;
        let width = tensor.size()[1];
        let positions = position_encoding(module.temporal_position_encoding_max_len, width);
        Some((format!("{path}.pos_encoder.pe"), positions))
    };
    tensors.iter().filter_map(table).collect()
}

/// A whole base in the diffusers layout: the trained parts written anew, the rest copied.
fn write_base(dir: &Path, base: &Base, trainer: &Trainer, metadata: &BTreeMap<String, String>) -> Result<()> {
    let staging = files::staging_path(dir)?;
    let written = stage_base(&staging, base, trainer, metadata).and_then(|()| files::commit_dir(&staging, dir));
    if written.is_err() {
        let _ = fs::remove_dir_all(&staging);
    }
    written
}

fn stage_base(staging: &Path, base: &Base, trainer: &Trainer, metadata: &BTreeMap<String, String>) -> Result<()> {
    let trained = &trainer.weights.trained;
    let component = |prefix: &str| -> BTreeMap<String, Tensor> {
        let own = trained.iter().chain(&trainer.weights.frozen);
        own.filter_map(|(name, tensor)| {
            Some((name.strip_prefix(prefix)?.to_owned(), tensor.to_kind(Kind::Float).detach()))
        })
        .collect()
    };
    let trains_text = trained.keys().any(|name| name.starts_with("text_encoder."));
    for part in ["model_index.json", "scheduler", "tokenizer", "vae", "text_encoder", "unet/config.json"] {
        let from = base.dir.join(part);
        if from.exists() && !(part == "text_encoder" && trains_text) {
            copy(&from, &staging.join(part))?;
        }
    }
    write(&staging.join("unet/diffusion_pytorch_model.safetensors"), component("unet."), metadata)?;
    if trains_text {
        copy(&base.dir.join("text_encoder/config.json"), &staging.join("text_encoder/config.json"))?;
        write(&staging.join("text_encoder/model.safetensors"), component("text_encoder."), metadata)?;
    }
    Ok(())
}

/// Copies a file, or a folder with all that is in it.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let failed = || format!("{}: cannot be copied to {}", from.display(), to.display());
    if from.is_dir() {
        for entry in fs::read_dir(from).with_context(failed)? {
            let entry = entry.with_context(failed)?;
            copy(&entry.path(), &to.join(entry.file_name()))?;
        }
        return Ok(());
    }
    fs::create_dir_all(to.parent().unwrap_or(Path::new("."))).with_context(failed)?;
    fs::copy(from, to).with_context(failed)?;
    Ok(())
}

fn write(path: &Path, tensors: BTreeMap<String, Tensor>, metadata: &BTreeMap<String, String>) -> Result<()> {
    write_safetensors(path, tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)), metadata)
}

/// The UNet's tensors, by the UNet's own names.
fn unet(tensors: &BTreeMap<String, Tensor>) -> impl Iterator<Item = (&str, &Tensor)> {
    tensors.iter().filter_map(|(name, tensor)| Some((name.strip_prefix("unet.")?, tensor)))
}

fn exported(table: &Table, name: &str) -> String {
    table.export_name(name).unwrap_or_else(|| panic!("the format has no name for our own `{name}`"))
}

fn attentions(trainer: &Trainer) -> usize {
    let architecture = trainer.architecture.as_ref();
    architecture.map_or(2, |config| config.motion_module_kwargs.attention_block_types.len())
}
