//! Base models: diffusers folders and single files of all parts, and single parts.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, Result};
use tch::{Kind, Tensor};

use super::{Order, Outcome, To, WEIGHTS, carried, given_config, refused, write_config};
use crate::{
    assemble::{
        Base, BaseFiles, configs_metadata, expected,
        folder::{self, write_configs},
        infer,
    },
    files,
    model::unet,
    weights::{
        Content, Dialect, Identified, NamedTensors,
        formats::{self, EMA, Topology, UNET},
        publish::{Card, write_named},
        read,
    },
};

/// What a base is read from.
pub enum Source {
    /// A diffusers folder.
    Base,
    /// A single file.
    Checkpoint(Identified),
}

/// The parts of a base by our names, each maybe empty.
struct Parts {
    unet: NamedTensors,
    vae: NamedTensors,
    text: NamedTensors,
}

impl Parts {
    /// Refuses parts that are not whole; those that are absent are the caller's.
    fn check(&self, order: &Order) -> Result<()> {
        let parts = [(Content::UNet, &self.unet), (Content::Vae, &self.vae), (Content::TextEncoder, &self.text)];
        for (content, tensors) in parts.into_iter().filter(|(_, tensors)| !tensors.is_empty()) {
            order.check_whole(&expected::compare(content, tensors, &BTreeMap::new()))?;
        }
        Ok(())
    }
}

/// Rewrites a whole base, with low-rank files merged into it.
pub fn convert(order: &Order, source: Source) -> Result<Outcome> {
    let own = if matches!(source, Source::Base) { Dialect::Diffusers } else { Dialect::Ldm };
    if order.to == Some(To::Safetensors) && matches!(source, Source::Base) {
        let folder = order.input.display();
        return Err(refused(format!("{folder}: a folder of several files: choose --to ldm or --to diffusers")));
    }
    let dialect = order.dialect("a base model", own, &[Dialect::Diffusers, Dialect::Ldm])?;
    if order.ema && matches!(source, Source::Base) {
        let folder = order.input.display();
        let what =
            "--ema is about checkpoints in one file, which keep averaged weights beside the others; leave it out";
        return Err(refused(format!("{folder}: {what}")));
    }
    let mut notes = Vec::new();
    let metadata = match &source {
        Source::Base => read(&order.input.join("unet"))?.metadata,
        Source::Checkpoint(file) => {
            let averaged = file.tensors.names().filter(|name| name.starts_with(EMA)).count();
            if averaged > 0 && !order.ema {
                notes.push(format!("{averaged} averaged tensors (EMA) were left out; --ema takes them instead"));
            }
            file.metadata.clone()
        }
    };
    match dialect {
        Dialect::Ldm => {
            order.must_be_file("a checkpoint")?;
            let (mut parts, topology, configs) = parts(order, source, &mut notes)?;
            parts.check(order)?;
            merge(order, &mut parts)?;
            write_checkpoint(order, parts, &topology, carried(&metadata, configs))?;
        }
        _ => {
            order.must_be_folder("a base model for diffusers")?;
            let base = open(order)?;
            notes.extend(base.notes.iter().cloned());
            let mut parts = Parts { unet: base.unet_tensors()?, vae: base.vae_tensors()?, text: base.text_tensors()? };
            if let (true, Source::Checkpoint(mut file)) = (order.ema, source) {
                parts.unet = averaged(&mut file)?;
            }
            parts.check(order)?;
            order.check_whole(&expected::compare_unet(&base.unet, &parts.unet))?;
            merge(order, &mut parts)?;
            order.write_folder(|dir| write_folder(order, dir, &base, parts, &metadata))?;
        }
    }
    Ok(Outcome { what: format!("base model, {dialect} names"), notes })
}

/// The base that IN is, with what it lacks from `--base`.
fn open(order: &Order) -> Result<Base> {
    let files = match &order.base {
        None => BaseFiles { base: order.input.clone(), ..BaseFiles::default() },
        Some(base) => BaseFiles { base: base.clone(), dreambooth: Some(order.input.clone()), ..BaseFiles::default() },
    };
    Ok(Base::open_files(&files)?)
}

/// The parts that a single file is written from. A checkpoint that lacks some is one still.
fn parts(
    order: &Order,
    source: Source,
    notes: &mut Vec<String>,
) -> Result<(Parts, Topology, BTreeMap<String, String>)> {
    match source {
        Source::Checkpoint(file) if order.base.is_none() => {
            let topology = file.topology.clone();
            let mut file = file;
            let unet = order.ema.then(|| averaged(&mut file)).transpose()?;
            let mut all = file.import(Content::Checkpoint)?;
            let [whole, vae, text] = ["unet.", "vae.", "text_encoder."].map(|prefix| all.split_off(prefix));
            Ok((Parts { unet: unet.unwrap_or(whole), vae, text }, topology, BTreeMap::new()))
        }
        source => {
            let base = open(order)?;
            notes.extend(base.notes.iter().cloned());
            let unet = match (order.ema, source) {
                (true, Source::Checkpoint(mut file)) => averaged(&mut file)?,
                _ => base.unet_tensors()?,
            };
            let parts = Parts { unet, vae: base.vae_tensors()?, text: base.text_tensors()? };
            Ok((parts, topology(&base), configs_metadata(&base)))
        }
    }
}

fn topology(base: &Base) -> Topology {
    Topology {
        layers: base.unet.layers_per_block as usize,
        attention: base.unet.down_block_types.iter().map(|name| name.starts_with("CrossAttn")).collect(),
        vae_levels: base.vae.block_out_channels.len(),
        ..Topology::default()
    }
}

/// The UNet of averaged weights: their names are those of the others without dots.
fn averaged(file: &mut Identified) -> Result<NamedTensors> {
    let plain: Vec<String> = file.tensors.names().filter(|name| name.starts_with(UNET.0)).map(String::from).collect();
    let mut unet = NamedTensors::new();
    for name in plain {
        let averaged = format!("{EMA}{}", name.trim_start_matches("model.").replace('.', ""));
        let ours = file.format.table.import_name(&name).flatten();
        let Some(ours) = ours.as_deref().and_then(|name| name.strip_prefix(UNET.1)) else { continue };
        if !file.tensors.contains(&averaged) {
            let path = file.tensors.origin().unwrap_or(Path::new("IN")).display();
            let message = format!("{path}: --ema: the file has no averaged weights of `{name}`; leave --ema out");
            return Err(refused(message));
        }
        file.tensors.hand_over(&averaged, ours, &mut unet);
    }
    Ok(unet)
}

fn merge(order: &Order, parts: &mut Parts) -> Result<()> {
    for (lora, scale) in order.merges()? {
        lora.unet.merge_into(&mut parts.unet, scale)?;
        lora.text_encoder.merge_into(&mut parts.text, scale)?;
    }
    Ok(())
}

fn write_checkpoint(
    order: &Order,
    parts: Parts,
    topology: &Topology,
    metadata: BTreeMap<String, String>,
) -> Result<()> {
    let places = parts.text.shape("text_model.embeddings.position_embedding.weight");
    let places = places.and_then(|shape| shape.first().copied());
    let mut all = parts.unet.prefixed("unet.");
    all.extend(parts.vae.prefixed("vae."));
    all.extend(parts.text.prefixed("text_encoder."));
    let format = formats::format(Content::Checkpoint, Dialect::Ldm, topology).expect("checkpoints have a table");
    let mut named = format.table.export(all)?;
    if let Some(places) = places {
        // A counter that older readers insist on.
        let ids = Tensor::arange(places, (Kind::Int64, tch::Device::Cpu)).view([1, places]);
        named.insert("cond_stage_model.transformer.text_model.embeddings.position_ids", ids);
    }
    let title = order.title();
    let card = card(Content::Checkpoint, Dialect::Ldm, &title);
    order.write(named, &carried(&metadata, card.metadata()))
}

fn card(content: Content, dialect: Dialect, title: &str) -> Card<'_> {
    Card { content, dialect, purpose: None, title, rank: None, alpha: None }
}

fn write_folder(
    order: &Order,
    dir: &Path,
    base: &Base,
    parts: Parts,
    metadata: &BTreeMap<String, String>,
) -> Result<()> {
    write_configs(dir, &base.unet, &base.vae, &base.text, base.noise_scheduler_kwargs.process())?;
    if let Some(folder) = base.folder() {
        // What the folder itself says is more than what is read of it.
        for name in [
            "model_index.json",
            "scheduler/scheduler_config.json",
            "unet/config.json",
            "vae/config.json",
            "text_encoder/config.json",
        ] {
            if folder.join(name).is_file() {
                let failed = || format!("{}: cannot be copied", folder.join(name).display());
                fs::copy(folder.join(name), dir.join(name)).with_context(failed)?;
            }
        }
    }
    files::copy(&base.tokenizer_folder()?, &dir.join("tokenizer"))?;
    let title = order.title();
    for (content, tensors, file) in [
        (Content::UNet, parts.unet, format!("unet/{WEIGHTS}")),
        (Content::Vae, parts.vae, format!("vae/{WEIGHTS}")),
        (Content::TextEncoder, parts.text, "text_encoder/model.safetensors".to_owned()),
    ] {
        let metadata = carried(metadata, card(content, Dialect::Diffusers, &title).metadata());
        write_named(&dir.join(file), tensors, order.kind, &metadata)?;
    }
    Ok(())
}

/// Rewrites a UNet, a VAE or a text encoder by itself, with low-rank files merged into it.
pub fn convert_part(order: &Order, file: Identified, path: &Path) -> Result<Outcome> {
    let (content, own, before, topology) =
        (file.format.content, file.format.dialect, file.metadata.clone(), file.topology.clone());
    let dialect = order.dialect(content.name(), own, &[Dialect::Diffusers, Dialect::Ldm])?;
    let mut tensors = file.import(content)?;
    order.check_whole(&expected::compare(content, &tensors, &before))?;
    let mut notes = Vec::new();
    if content == Content::Vae {
        order.must_not_merge("a VAE")?;
    }
    for (lora, scale) in order.merges()? {
        let (own, other, rest) = match content {
            Content::TextEncoder => (&lora.text_encoder, &lora.unet, "UNet"),
            _ => (&lora.unet, &lora.text_encoder, "text encoder"),
        };
        own.merge_into(&mut tensors, scale)?;
        if !other.is_empty() {
            notes.push(format!("{}: its {} layers of the {rest} were left out", other.origin(), other.len()));
        }
    }
    let given = given_config(path);
    if given.is_none() && !order.to_file() {
        notes.push("heads and groups of norms are no part of weights: config.json has Stable Diffusion 1.x's".into());
    }
    let config = given.unwrap_or_else(|| config(content, &tensors));
    let title = order.title();
    let metadata = carried(&before, card(content, dialect, &title).metadata());
    let what = format!("{}, {dialect} names", content.noun());
    let outcome = Outcome { what, notes };
    if dialect == Dialect::Ldm {
        order.must_be_file("a part in LDM's names")?;
        let named = match content {
            Content::Vae => {
                formats::format(content, dialect, &topology).expect("it has a table").table.export(tensors)?
            }
            // By themselves they are checkpoints that lack the rest.
            _ => {
                let prefix = if content == Content::UNet { "unet." } else { "text_encoder." };
                let topology = if content == Content::UNet { unet_topology(&config) } else { topology };
                let format = formats::format(Content::Checkpoint, dialect, &topology).expect("it has a table");
                format.table.export(tensors.prefixed(prefix))?
            }
        };
        order.write(named, &metadata)?;
    } else if order.to_file() {
        order.write(tensors, &metadata)?;
    } else {
        let name = if content == Content::TextEncoder { "model.safetensors" } else { WEIGHTS };
        order.write_folder(|dir| {
            write_config(dir, &config)?;
            write_named(&dir.join(name), tensors, order.kind, &metadata)
        })?;
    }
    Ok(outcome)
}

/// `config.json` of a part, as far as its shapes tell.
fn config(content: Content, tensors: &NamedTensors) -> serde_json::Value {
    match content {
        Content::UNet => {
            let mut config = folder::unet_config(&unet::Config::default());
            let own = infer::unet(tensors);
            own.as_object().into_iter().flatten().for_each(|(key, value)| config[key] = value.clone());
            config
        }
        Content::Vae => {
            let vae = infer::vae(tensors);
            folder::vae_config(&vae, unet::Config::default().sample_size * vae.downscale())
        }
        _ => folder::text_config(&infer::text(tensors)),
    }
}

fn unet_topology(config: &serde_json::Value) -> Topology {
    let names = config["down_block_types"].as_array().cloned().unwrap_or_default();
    let attention = names.iter().map(|name| name.as_str().is_some_and(|name| name.starts_with("CrossAttn")));
    Topology {
        layers: config["layers_per_block"].as_u64().unwrap_or(2) as usize,
        attention: attention.collect(),
        ..Topology::default()
    }
}
