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
    assemble::{ARCHITECTURE_KEY, Base, SCHEDULE_KEY, SCHEDULER},
    diffusion, files,
    model::unet::motion::{self, feed_forward_norm, position_encoding},
    weights::{Table, formats, write::write_safetensors},
};

/// Writes the run's weights into `dir`, replacing an earlier export; gives the path to use them by.
pub fn export(dir: &Path, stage: Stage, config: &Config, base: &Base, trainer: &Trainer) -> Result<PathBuf> {
    let metadata = metadata(stage, config, trainer);
    let kind = config.save_precision.kind(Device::Cpu);
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
            write_motion(&path, (trainer, kind), &metadata)?;
            Ok(path)
        }
        Stage::Image | Stage::Vae => {
            let process = (stage == Stage::Image).then(|| config.noise_scheduler_kwargs.process());
            write_base(dir, base, (trainer, kind), process, &metadata)?;
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
    if let Some(architecture) = trainer.architecture() {
        let json = |value: Result<String, _>| value.expect("a configuration is plain data");
        metadata.insert(ARCHITECTURE_KEY.into(), json(serde_json::to_string(architecture)));
        metadata.insert(SCHEDULE_KEY.into(), json(serde_json::to_string(&config.noise_scheduler_kwargs)));
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
    write(path, pairs.collect(), config.save_precision.kind(Device::Cpu), metadata)
}

/// The motion module, with the tables of sines that older readers expect.
fn write_motion(path: &Path, (trainer, kind): (&Trainer, Kind), metadata: &BTreeMap<String, String>) -> Result<()> {
    let attentions = attentions(trainer);
    let table = formats::motion_module(attentions, feed_forward_norm(attentions));
    let weights = &trainer.weights;
    let mut tensors: BTreeMap<String, Tensor> = unet(&weights.trained)
        .chain(unet(&weights.frozen))
        .filter(|(name, _)| name.contains("motion_modules."))
        .map(|(name, tensor)| (exported(&table, name), tensor.detach()))
        .collect();
    if let Some(module) = trainer.architecture().map(|config| &config.motion_module_kwargs)
        && module.temporal_position_encoding
    {
        tensors.extend(position_tables(&tensors, module));
    }
    write(path, tensors, kind, metadata)
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
fn write_base(
    dir: &Path,
    base: &Base,
    trained: (&Trainer, Kind),
    process: Option<diffusion::Process>,
    metadata: &BTreeMap<String, String>,
) -> Result<()> {
    let staging = files::staging_path(dir)?;
    let written = stage_base(&staging, base, trained, metadata)
        .and_then(|()| process.map_or(Ok(()), |process| write_process(&staging.join(SCHEDULER), process)))
        .and_then(|()| files::commit_dir(&staging, dir));
    if written.is_err() {
        let _ = fs::remove_dir_all(&staging);
    }
    written
}

/// The parts of a base that can be trained: prefix of their names, folder, file of the weights.
const COMPONENTS: [(&str, &str, &str); 3] = [
    ("unet.", "unet", "diffusion_pytorch_model.safetensors"),
    ("text_encoder.", "text_encoder", "model.safetensors"),
    ("vae.", "vae", "diffusion_pytorch_model.safetensors"),
];

fn stage_base(
    staging: &Path,
    base: &Base,
    (trainer, kind): (&Trainer, Kind),
    metadata: &BTreeMap<String, String>,
) -> Result<()> {
    for part in ["model_index.json", "scheduler", "tokenizer"] {
        let from = base.dir.join(part);
        if from.exists() {
            copy(&from, &staging.join(part))?;
        }
    }
    let (trained, frozen) = (&trainer.weights.trained, &trainer.weights.frozen);
    for (prefix, folder, file) in COMPONENTS {
        if !trained.keys().any(|name| name.starts_with(prefix)) {
            copy(&base.dir.join(folder), &staging.join(folder))?;
            continue;
        }
        copy(&base.dir.join(folder).join("config.json"), &staging.join(folder).join("config.json"))?;
        let own = trained.iter().chain(frozen);
        let own = own.filter_map(|(name, tensor)| Some((name.strip_prefix(prefix)?.to_owned(), tensor.detach())));
        write(&staging.join(folder).join(file), own.collect(), kind, metadata)?;
    }
    write_scaling_factor(&staging.join("vae/config.json"), base.vae.scaling_factor)
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

fn write(
    path: &Path,
    tensors: BTreeMap<String, Tensor>,
    kind: Kind,
    metadata: &BTreeMap<String, String>,
) -> Result<()> {
    let tensors: BTreeMap<String, Tensor> =
        tensors.into_iter().map(|(name, tensor)| (name, tensor.to_kind(kind))).collect();
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
    let architecture = trainer.architecture();
    architecture.map_or(2, |config| config.motion_module_kwargs.attention_block_types.len())
}
