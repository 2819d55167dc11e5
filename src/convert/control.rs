//! ControlNets between LDM's names and diffusers', and SparseCtrl encoders between the official names and diffusers'.

use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};

use super::{Order, Outcome, WEIGHTS, carried, given_config, write_config};
use crate::{
    assemble::{adapter_tables, expected, infer, position_tables},
    weights::{
        Content, Dialect, Identified, NamedTensors, formats,
        publish::{Card, write_named},
    },
};

/// Frames of the position tables that SparseCtrl is trained with.
const LENGTH: i64 = 32;

/// Rewrites the names; into a folder, with diffusers' configuration.
pub fn convert(order: &Order, file: Identified, path: &Path) -> Result<Outcome> {
    let content = file.format.content;
    order.must_not_merge(content.name())?;
    let theirs = if content == Content::ControlNet { Dialect::Ldm } else { Dialect::Official };
    let dialect = order.dialect(content.name(), file.format.dialect, &[Dialect::Diffusers, theirs])?;
    let (before, topology) = (file.metadata.clone(), file.topology.clone());
    let tensors = file.import(content)?;
    order.check_whole(&expected::compare(content, &tensors, &before))?;
    let config = given_config(path).unwrap_or_else(|| config(content, &tensors));
    let format = formats::format(content, dialect, &topology).expect("both choices have tables");
    let mut named = format.table.export(tensors)?;
    if content == Content::SparseCtrl {
        let tables = match dialect {
            Dialect::Official => position_tables(&named, LENGTH),
            _ => adapter_tables(&named, LENGTH),
        };
        named.extend(tables);
    }
    let title = order.title();
    let card = Card { content, dialect, purpose: None, title: &title, rank: None, alpha: None };
    let metadata = carried(&before, card.metadata());
    if order.to_file() {
        order.write(named, &metadata)?;
    } else {
        if dialect != Dialect::Diffusers {
            order.must_be_file("a file in these names")?;
        }
        order.write_folder(|dir| {
            write_config(dir, &config)?;
            write_named(&dir.join(WEIGHTS), named, order.kind, &metadata)
        })?;
    }
    let what = format!("{}, {dialect} names", content.noun());
    Ok(Outcome { what, notes: Vec::new() })
}

/// `config.json` as far as the shapes tell; the rest are diffusers' defaults, which are Stable Diffusion 1.x's.
fn config(content: Content, tensors: &NamedTensors) -> Value {
    let down = infer::unet(tensors);
    let mut config = json!({"_class_name": "ControlNetModel"});
    for key in ["in_channels", "block_out_channels", "layers_per_block", "down_block_types", "cross_attention_dim"] {
        config[key] = down[key].clone();
    }
    if content == Content::SparseCtrl {
        let simple = tensors.contains("controlnet_cond_embedding.weight");
        let first =
            if simple { "controlnet_cond_embedding.weight" } else { "controlnet_cond_embedding.conv_in.weight" };
        // One channel of the input is the mask.
        let channels = tensors.shape(first).and_then(|shape| shape.get(1).copied()).unwrap_or(4) - 1;
        config["_class_name"] = "SparseControlNetModel".into();
        config["conditioning_channels"] = channels.into();
        config["use_simplified_condition_embedding"] = simple.into();
        config["motion_max_seq_length"] = LENGTH.into();
        config["motion_num_attention_heads"] = 8.into();
        config["concat_conditioning_mask"] = true.into();
    }
    config
}
