//! MotionLoRAs, domain adapters and LoRAs: other names, and several in one.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context, Result};
use serde_json::json;
use tch::{Kind, Tensor};

use super::{Order, Outcome, carried, refused};
use crate::weights::{
    Content, Dialect, Identified, Lora, LoraFile, LowRankUse, NamedTensors,
    formats::{self, Topology, noun},
    publish::{Card, write_named},
};

const CHOICES: [Dialect; 4] = [Dialect::Official, Dialect::Diffusers, Dialect::Kohya, Dialect::Peft];

/// Rewrites the pairs; with `--merge`, the sum of all files, at a lower rank if one is given.
pub fn convert(order: &Order, file: Identified, path: &Path) -> Result<Outcome> {
    let topology = file.topology.clone();
    let dialect = order.dialect("a low-rank file", file.format.dialect, &CHOICES)?;
    let kind = order.kind.or_else(|| widest(&file.tensors));
    let first = LoraFile::of(file, path)?;
    let others = order.merges()?;
    let mut notes = Vec::new();
    let [unet, text_encoder] = joined(order, &first, &others, &mut notes)?;
    let purpose = purpose(&first, &others);
    let rank = unet.rank().or(text_encoder.rank().filter(|_| unet.is_empty()));
    let alpha = alpha(&unet, dialect);
    let layers = unet.len() + text_encoder.len();
    let shown = rank.map_or(String::new(), |rank| format!(" of rank {rank}"));
    let what = format!("{} for {layers} layers{shown}, {dialect} names", noun(purpose.name()));
    let title = order.title();
    let card = Card { content: Content::LowRank, dialect, purpose: Some(purpose), title: &title, rank, alpha };
    let metadata = metadata(&first.metadata, &card);
    let mut all = tensors(unet, dialect)?.prefixed("unet.");
    all.extend(tensors(text_encoder, dialect)?.prefixed("text_encoder."));
    let order = Order { kind, ..order.clone() };
    write(&order, all, dialect, &topology, (rank, &metadata))?;
    Ok(Outcome { what, notes })
}

/// The type that holds all of a file's floating-point tensors.
fn widest(tensors: &NamedTensors) -> Option<Kind> {
    let kinds = tensors.names().filter_map(|name| tensors.stored_kind(name));
    let order =
        |kind: &Kind| [Kind::Half, Kind::BFloat16, Kind::Float, Kind::Double].iter().position(|own| own == kind);
    let widest = kinds.filter(|kind| order(kind).is_some()).max_by_key(order)?;
    // Neither half of 16 bits holds the other.
    let both = [Kind::Half, Kind::BFloat16]
        .iter()
        .all(|own| tensors.names().any(|name| tensors.stored_kind(name) == Some(*own)));
    Some(if both && widest == Kind::BFloat16 { Kind::Float } else { widest })
}

/// The deltas of the UNet and the text encoder: those of the one file, or the sum of all.
fn joined(order: &Order, first: &LoraFile, others: &[(LoraFile, f64)], notes: &mut Vec<String>) -> Result<[Lora; 2]> {
    if let Some(rank) = order.rank.filter(|&rank| rank < 1) {
        return Err(refused(format!("--rank {rank}: at least 1 is expected")));
    }
    if others.is_empty() && order.rank.is_none() {
        return Ok([first.unet.clone(), first.text_encoder.clone()]);
    }
    let sum = |part: fn(&LoraFile) -> &Lora| {
        let parts = std::iter::once((part(first), 1.0)).chain(others.iter().map(|(file, scale)| (part(file), *scale)));
        Lora::sum(&parts.collect::<Vec<_>>())
    };
    let sums = [sum(|file| &file.unet)?, sum(|file| &file.text_encoder)?];
    match order.rank {
        None => Ok(sums),
        Some(rank) => compressed(&sums, rank, notes),
    }
}

/// What the sum is for.
fn purpose(first: &LoraFile, others: &[(LoraFile, f64)]) -> LowRankUse {
    let all = || std::iter::once(first.purpose).chain(others.iter().map(|(file, _)| file.purpose));
    let moves = |purpose: &LowRankUse| matches!(purpose, LowRankUse::MotionLora | LowRankUse::Mixed);
    let stills = |purpose: &LowRankUse| *purpose != LowRankUse::MotionLora;
    match (all().any(|purpose| moves(&purpose)), all().any(|purpose| stills(&purpose))) {
        (true, true) => LowRankUse::Mixed,
        _ if all().all(|purpose| purpose == first.purpose) => first.purpose,
        _ => LowRankUse::Image,
    }
}

/// What the file said of itself, without what no longer holds of its form.
fn metadata(before: &BTreeMap<String, String>, card: &Card<'_>) -> BTreeMap<String, String> {
    let mut before = before.clone();
    for key in ["ss_network_dim", "ss_network_alpha", "ss_network_args", "sshs_model_hash", "sshs_legacy_hash"] {
        before.remove(key);
    }
    let mut metadata = carried(&before, card.metadata());
    let rank = card.rank.map(|rank| rank as f64);
    for (key, value) in [("animatediff.rank", rank), ("animatediff.alpha", card.alpha)] {
        if let (true, Some(value)) = (metadata.contains_key(key), value) {
            metadata.insert(key.into(), value.to_string());
        }
    }
    metadata
}

/// Both parts at a lower rank, with a note of what that cost.
fn compressed(sums: &[Lora; 2], rank: i64, notes: &mut Vec<String>) -> Result<[Lora; 2]> {
    let mut parts = Vec::new();
    for (part, name) in sums.iter().zip(["UNet", "text encoder"]) {
        let (nearest, error) = part.compressed(rank)?;
        if !part.is_empty() {
            notes.push(format!("{name}: rank {rank} is {:.3} % off the exact sum", 100.0 * error));
        }
        parts.push(nearest);
    }
    Ok(parts.try_into().expect("there are two"))
}

/// The alpha that is written: kohya's files keep their own; elsewhere it is folded into the factors, and so is the rank.
fn alpha(lora: &Lora, dialect: Dialect) -> Option<f64> {
    let rank = lora.rank()?;
    let mut scales = lora.deltas().map(|(_, delta)| delta.scale());
    let first = scales.next()?;
    match dialect {
        Dialect::Kohya => scales.all(|scale| scale == first).then_some(first * rank as f64),
        _ => Some(rank as f64),
    }
}

/// The factors under our names. kohya's names have an alpha; the others' readers know none.
fn tensors(lora: Lora, dialect: Dialect) -> Result<NamedTensors> {
    if dialect != Dialect::Kohya {
        return Ok(lora.into_tensors()?);
    }
    let alphas: Vec<(String, Tensor)> = lora
        .deltas()
        .filter_map(|(path, delta)| {
            let alpha = delta.scale() * delta.rank()? as f64;
            Some((format!("{path}.alpha"), Tensor::from(alpha as f32)))
        })
        .collect();
    let mut tensors = lora.without_scale().into_tensors()?;
    tensors.extend(alphas.into_iter().collect());
    Ok(tensors)
}

fn write(
    order: &Order,
    tensors: NamedTensors,
    dialect: Dialect,
    topology: &Topology,
    (rank, metadata): (Option<i64>, &BTreeMap<String, String>),
) -> Result<()> {
    let format = formats::format(Content::LowRank, dialect, topology).expect("every choice has a table");
    let tensors = format.table.export(tensors)?;
    if dialect != Dialect::Peft {
        order.must_be_file("a low-rank file")?;
        return order.write(tensors, metadata);
    }
    order.must_be_folder("an adapter of PEFT")?;
    let rank = rank.ok_or_else(|| refused("PEFT's configuration has one rank, and these pairs have several"))?;
    let layer = |name: &str| Some(name.strip_prefix("base_model.model.")?.split_once(".lora_")?.0.to_owned());
    let mut layers: Vec<String> = tensors.names().filter_map(layer).collect();
    layers.dedup();
    let config = json!({
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": false,
        "inference_mode": true,
        "base_model_name_or_path": null,
        "task_type": null,
        "target_modules": layers,
    });
    order.write_folder(|dir| {
        let path = dir.join("adapter_config.json");
        std::fs::write(&path, format!("{config:#}\n"))
            .with_context(|| format!("{}: cannot be written", path.display()))?;
        write_named(&dir.join("adapter_model.safetensors"), tensors, order.kind, metadata)
    })
}
