//! Motion modules: the official names (`mm_sd_v15.ckpt`, `v3_sd15_mm.ckpt`, …) and those of diffusers' MotionAdapter.

use super::parts::{LEAVES, MotionLayer, PLACES, image_parameters, motion_layers, motion_norms};
use crate::weights::map::{Row, Table};

/// The official table, for modules whose transformer blocks have `attentions` attentions. Checkpoints of the official trainer
/// hold the image UNet as well, which is left aside.
pub fn official(attentions: usize) -> Table {
    let mut rows = rows(attentions, |layer| &layer.official);
    for place in PLACES {
        let path = format!("{place}.motion_modules.{{}}.temporal_transformer.transformer_blocks.{{}}");
        rows.extend((0..attentions).map(|i| Row::drop(format!("{path}.attention_blocks.{i}.pos_encoder.pe"))));
    }
    rows.extend(image_aside());
    Table::new("motion module (official)", rows)
}

/// The table of diffusers' MotionAdapter and of the motion part of its UNetMotionModel.
pub fn diffusers(attentions: usize) -> Table {
    let mut rows = rows(attentions, |layer| &layer.ours);
    for place in PLACES {
        rows.push(Row::drop(format!("{place}.motion_modules.{{}}.transformer_blocks.{{}}.pos_embed.pe")));
    }
    rows.extend(image_aside());
    Table::new("motion module (diffusers)", rows)
}

/// The number of the feed-forward's norm in diffusers' names, by the attentions of a block.
pub fn feed_forward_norm(attentions: usize) -> usize {
    attentions.max(2) + 1
}

pub(super) fn rows(attentions: usize, theirs: fn(&MotionLayer) -> &String) -> Vec<Row> {
    let layers = motion_layers(attentions).into_iter().chain(motion_norms(attentions, feed_forward_norm(attentions)));
    let row = |layer: &MotionLayer, leaf: &str| {
        Row::copy(format!("{}.{leaf}", theirs(layer)), format!("{}.{leaf}", layer.ours))
    };
    layers.flat_map(|layer| LEAVES.map(|leaf| row(&layer, leaf))).collect()
}

fn image_aside() -> impl Iterator<Item = Row> {
    image_parameters().into_iter().flat_map(|path| LEAVES.map(|leaf| Row::aside(format!("{path}.{leaf}"))))
}
