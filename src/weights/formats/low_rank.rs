//! Low-rank files: MotionLoRAs, domain adapters and LoRAs, in the names of every tool that writes them.
//!
//! In ours a layer's path follows `unet.` or `text_encoder.`, and a factor follows the path: `lora_A.weight` (down),
//! `lora_B.weight` (up), `alpha`, and what LyCORIS' other forms have.

use super::{
    ldm::unet_layers,
    parts::{MotionLayer, TEXT, image_layers, motion_layers},
    topology::Topology,
};
use crate::weights::map::{Row, Table};

/// kohya's and LyCORIS' factors, and ours.
const KOHYA_FACTORS: [(&str, &str); 23] = [
    ("lora_down.weight", "lora_A.weight"),
    ("lora_up.weight", "lora_B.weight"),
    ("alpha", "alpha"),
    ("lora_mid.weight", "lora_mid.weight"),
    ("dora_scale", "dora_scale"),
    ("hada_w1_a", "hada_w1_a"),
    ("hada_w1_b", "hada_w1_b"),
    ("hada_w2_a", "hada_w2_a"),
    ("hada_w2_b", "hada_w2_b"),
    ("hada_t1", "hada_t1"),
    ("hada_t2", "hada_t2"),
    ("lokr_w1", "lokr_w1"),
    ("lokr_w1_a", "lokr_w1_a"),
    ("lokr_w1_b", "lokr_w1_b"),
    ("lokr_w2", "lokr_w2"),
    ("lokr_w2_a", "lokr_w2_a"),
    ("lokr_w2_b", "lokr_w2_b"),
    ("lokr_t2", "lokr_t2"),
    ("diff", "diff"),
    ("diff_b", "diff_b"),
    ("on_input", "on_input"),
    ("oft_blocks", "oft_blocks"),
    ("oft_diag", "oft_diag"),
];
/// PEFT's, and diffusers' since 0.22.
const PEFT_FACTORS: [(&str, &str); 7] = [
    ("lora_A.weight", "lora_A.weight"),
    ("lora_B.weight", "lora_B.weight"),
    ("lora_A.default.weight", "lora_A.weight"),
    ("lora_B.default.weight", "lora_B.weight"),
    ("alpha", "alpha"),
    ("lora_magnitude_vector", "dora_scale"),
    ("lora_magnitude_vector.weight", "dora_scale"),
];
/// Of diffusers before, and of the official files.
const PLAIN_FACTORS: [(&str, &str); 2] = [("down.weight", "lora_A.weight"), ("up.weight", "lora_B.weight")];
/// Prefix of ours.
const UNET: &str = "unet.";
const TEXT_ENCODER: &str = "text_encoder.";

/// Official MotionLoRAs (`v2_lora_ZoomIn.ckpt`, 336 tensors) and domain adapters (`v3_sd15_adapter.ckpt`, 256), with the names
/// that MotionDirector's exporter makes: `processor` before the last part of a path, whatever that is.
pub fn official(topology: &Topology) -> Table {
    let mut rows = Vec::new();
    let image = image_layers().into_iter().map(|path| MotionLayer { official: path.clone(), ours: path });
    for layer in motion_layers(topology.attentions).into_iter().chain(image) {
        for theirs in processor_names(&layer.official) {
            rows.extend(factors(&theirs, UNET, &layer.ours, &PLAIN_FACTORS));
            rows.push(Row::copy(format!("{theirs}.alpha"), format!("{UNET}{}.alpha", layer.ours)));
        }
    }
    Table::new("low-rank pairs (official)", rows)
}

/// `…attn1.to_q` → `…attn1.processor.to_q_lora`; `…to_out.0` → `…processor.to_out_lora`, and MotionDirector's
/// `…to_out.processor.0_lora`.
fn processor_names(path: &str) -> Vec<String> {
    let before_last = |path: &str| match path.rsplit_once('.') {
        Some((start, last)) => format!("{start}.processor.{last}_lora"),
        None => format!("processor.{path}_lora"),
    };
    let short = path.strip_suffix(".0").filter(|path| path.ends_with("to_out"));
    short.into_iter().chain([path]).map(before_last).collect()
}

/// diffusers' names since 0.22, and PEFT's own (`base_model.model.`), with or without the model's prefix.
pub fn diffusers(topology: &Topology) -> Table {
    let mut rows = Vec::new();
    for path in unet_paths(topology) {
        for prefix in ["unet.", "", "base_model.model.", "base_model.model.unet."] {
            rows.extend(factors(&format!("{prefix}{path}"), UNET, &path, &PEFT_FACTORS));
        }
        // Before: `lora` in the place of the factor's name, or the processors' names.
        rows.extend(factors(&format!("unet.{path}.lora"), UNET, &path, &PLAIN_FACTORS));
        for theirs in processor_names(&path) {
            rows.extend(factors(&format!("unet.{theirs}"), UNET, &path, &PLAIN_FACTORS));
        }
    }
    for path in TEXT {
        // transformers 5 has no `text_model` level.
        for theirs in [path, path.trim_start_matches("text_model.")] {
            for prefix in ["text_encoder.", "base_model.model."] {
                rows.extend(factors(&format!("{prefix}{theirs}"), TEXT_ENCODER, path, &PEFT_FACTORS));
            }
            let older = format!("text_encoder.{theirs}.lora_linear_layer");
            rows.extend(factors(&older, TEXT_ENCODER, path, &PLAIN_FACTORS));
        }
    }
    Table::new("low-rank pairs (diffusers)", rows)
}

/// PEFT's own names, to be written.
pub fn peft(topology: &Topology) -> Table {
    let rows = unet_paths(topology)
        .into_iter()
        .flat_map(|path| factors(&format!("base_model.model.{path}"), UNET, &path, &PEFT_FACTORS).collect::<Vec<_>>());
    Table::new("low-rank pairs (PEFT)", rows.collect())
}

/// kohya's names: paths with underscores for dots, whose indices the patterns keep apart from them; some files for
/// Stable Diffusion 1.x have LDM's paths.
pub fn kohya(topology: &Topology) -> Table {
    let flat = |path: &str| path.replace('.', "_");
    let mut rows = Vec::new();
    for path in unet_paths(topology) {
        rows.extend(factors(&format!("lora_unet_{}", flat(&path)), UNET, &path, &KOHYA_FACTORS));
    }
    for layer in motion_layers(topology.attentions) {
        rows.extend(factors(&format!("lora_unet_{}", flat(&layer.official)), UNET, &layer.ours, &KOHYA_FACTORS));
    }
    for path in TEXT {
        for prefix in ["lora_te_", "lora_te1_"] {
            rows.extend(factors(&format!("{prefix}{}", flat(path)), TEXT_ENCODER, path, &KOHYA_FACTORS));
        }
    }
    for (theirs, ours) in unet_layers(topology) {
        rows.extend(factors(&format!("lora_unet_{}", flat(&theirs)), UNET, &ours, &KOHYA_FACTORS));
    }
    // What LyCORIS notes of a network as a whole.
    rows.push(Row::drop("bypass_mode"));
    Table::new("low-rank pairs (kohya)", rows)
}

fn unet_paths(topology: &Topology) -> Vec<String> {
    let mut paths = image_layers();
    paths.extend(motion_layers(topology.attentions).into_iter().map(|layer| layer.ours));
    paths
}

fn factors<'a>(
    theirs: &'a str,
    prefix: &'a str,
    ours: &'a str,
    factors: &'a [(&'a str, &'a str)],
) -> impl Iterator<Item = Row> + use<'a> {
    factors.iter().map(move |(their, our)| Row::copy(format!("{theirs}.{their}"), format!("{prefix}{ours}.{our}")))
}
