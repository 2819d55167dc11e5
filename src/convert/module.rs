//! Motion modules: official files with their tables of sines, and diffusers' MotionAdapter with its configuration.

use std::{collections::BTreeMap, path::Path};

use anyhow::Result;
use serde_json::json;

use super::{Order, Outcome, WEIGHTS, carried, write_config};
use crate::{
    assemble::{ARCHITECTURE_KEY, Base, GROUPS_KEY, Motion, adapter_tables, expected, infer, position_tables},
    model::unet::motion,
    weights::{
        Content, Dialect, Identified, LowRankUse, NamedTensors, formats,
        publish::{Card, write_named},
    },
};

/// Rewrites a module, with MotionLoRAs merged into it.
pub fn convert(order: &Order, file: Identified, path: &Path) -> Result<Outcome> {
    let dialect = order.dialect("a motion module", file.format.dialect, &[Dialect::Official, Dialect::Diffusers])?;
    let (topology, before) = (file.topology.clone(), file.metadata.clone());
    let left_aside = file.aside();
    let Motion { config, mut tensors, .. } = Motion::of(file, path)?;
    order.check_whole(&expected::compare(Content::MotionModule, &tensors, &before))?;
    let mut notes = Vec::new();
    if left_aside > 0 {
        notes.push(format!("{left_aside} tensors of the image UNet in the same file were left out"));
    }
    for (lora, scale) in order.merges()? {
        if lora.purpose != LowRankUse::MotionLora {
            let what = lora.purpose.name();
            return Err(super::refused(format!(
                "{}: this is {what}, and a MotionLoRA is expected",
                lora.unet.origin()
            )));
        }
        lora.unet.merge_into(&mut tensors, scale)?;
    }
    let title = order.title();
    let card = Card { content: Content::MotionModule, dialect, purpose: None, title: &title, rank: None, alpha: None };
    let mut metadata = carried(&before, card.metadata());
    metadata.insert(ARCHITECTURE_KEY.into(), serde_json::to_string(&config)?);
    let version = config.version().unwrap_or("custom");
    metadata.insert("animatediff.motion_module".into(), version.into());
    let groups = groups(order, &metadata, &tensors)?;
    metadata.insert(GROUPS_KEY.into(), groups.to_string());
    let adapter = adapter_config(&config, groups, &tensors);
    let format = formats::format(Content::MotionModule, dialect, &topology).expect("both choices have tables");
    let mut named = format.table.export(tensors)?;
    let module = &config.motion_module_kwargs;
    if module.temporal_position_encoding {
        let length = module.temporal_position_encoding_max_len;
        let tables = match dialect {
            Dialect::Official => position_tables(&named, length),
            _ => adapter_tables(&named, length),
        };
        named.extend(tables);
    }
    let what = format!("motion module {version}, {dialect} names");
    if dialect == Dialect::Official {
        order.must_be_file("an official motion module")?;
    }
    if order.to_file() {
        order.write(named, &metadata)?;
    } else {
        order.write_folder(|dir| {
            write_config(dir, &adapter)?;
            write_named(&dir.join(WEIGHTS), named, order.kind, &metadata)
        })?;
    }
    Ok(Outcome { what, notes })
}

/// Groups of the modules' norms. They are no part of the weights, but the base's: its own, where it is given or the file says;
/// else Stable Diffusion's 32, or for narrower models the 8 that `init` gives them.
fn groups(order: &Order, metadata: &BTreeMap<String, String>, tensors: &NamedTensors) -> Result<i64> {
    if let Some(base) = &order.base {
        return Ok(Base::open(base)?.unet.norm_num_groups);
    }
    let told = metadata.get(GROUPS_KEY).and_then(|groups| groups.parse().ok());
    let fits = |groups: &i64| infer::motion_widths(tensors).iter().all(|width| width % groups == 0);
    Ok(told.or_else(|| [32, 8].into_iter().find(fits)).unwrap_or(1))
}

/// `config.json` of the MotionAdapter that `tensors`, in our names, make.
fn adapter_config(config: &motion::Config, groups: i64, tensors: &NamedTensors) -> serde_json::Value {
    let module = &config.motion_module_kwargs;
    json!({
        "_class_name": "MotionAdapter",
        "_diffusers_version": "0.42.1",
        "block_out_channels": infer::motion_widths(tensors),
        "conv_in_channels": null,
        "motion_layers_per_block": infer::motion_layers(tensors),
        "motion_transformer_layers_per_block": module.num_transformer_block,
        "motion_mid_block_layers_per_block": 1,
        "motion_transformer_layers_per_mid_block": 1,
        "motion_num_attention_heads": module.num_attention_heads,
        "motion_norm_num_groups": groups,
        "motion_max_seq_length": module.temporal_position_encoding_max_len,
        "use_motion_mid_block": config.motion_module_mid_block,
    })
}
