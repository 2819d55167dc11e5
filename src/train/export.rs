//! What a run gives to other tools: official key names, plain safetensors, metadata.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use tch::Tensor;

use super::{Config, recipe::Stage, trainer::Trainer};
use crate::{
    assemble::{ARCHITECTURE_KEY, Base},
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
    copy_missing(&base.dir, dir)?;
    let weights = &trainer.weights;
    let component = |prefix: &str| -> BTreeMap<String, Tensor> {
        let all = weights.trained.iter().chain(&weights.frozen);
        all.filter_map(|(name, tensor)| Some((name.strip_prefix(prefix)?.to_owned(), tensor.detach()))).collect()
    };
    let file = "diffusion_pytorch_model.safetensors";
    replace_weights(&dir.join("unet"), file, component("unet."), metadata)?;
    if weights.trained.keys().any(|name| name.starts_with("text_encoder.")) {
        replace_weights(&dir.join("text_encoder"), "model.safetensors", component("text_encoder."), metadata)?;
    }
    Ok(())
}

/// Writes a component's weights, and removes what else of weights lies beside them.
fn replace_weights(
    dir: &Path,
    file: &str,
    tensors: BTreeMap<String, Tensor>,
    metadata: &BTreeMap<String, String>,
) -> Result<()> {
    write(&dir.join(file), tensors, metadata)?;
    for entry in fs::read_dir(dir).with_context(|| format!("{}: cannot be listed", dir.display()))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let weights = [".safetensors", ".bin", ".index.json"].iter().any(|suffix| name.ends_with(suffix));
        if weights && name != file {
            fs::remove_file(&path).with_context(|| format!("{}: cannot be removed", path.display()))?;
        }
    }
    Ok(())
}

/// Copies the base's files that are not there yet.
fn copy_missing(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("{}: cannot be made", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| format!("{}: cannot be listed", from.display()))? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if source.is_dir() {
            copy_missing(&source, &target)?;
        } else if !target.exists() {
            fs::copy(&source, &target)
                .with_context(|| format!("{}: cannot be copied to {}", source.display(), target.display()))?;
        }
    }
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
