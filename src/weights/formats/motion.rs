//! Motion modules in the official names (`mm_sd_v15.ckpt`, `v3_sd15_mm.ckpt`, …) against those of diffusers' MotionAdapter.

use crate::weights::{
    map::{Row, Table},
    named::NamedTensors,
};

const THEIRS: &str = "{*}.motion_modules.{}.temporal_transformer";
const OURS: &str = "{*}.motion_modules.{}";
const LEAVES: [&str; 2] = ["weight", "bias"];

/// The table for modules whose transformer blocks have `attentions` attentions; `feed_forward_norm` is the number of the
/// feed-forward's norm in our names.
pub fn motion_module(attentions: usize, feed_forward_norm: usize) -> Table {
    let block = ".transformer_blocks.{}";
    let mut rows = Vec::new();
    let mut layer = |theirs: String, ours: String| {
        rows.extend(LEAVES.map(|leaf| Row::copy(format!("{THEIRS}{theirs}.{leaf}"), format!("{OURS}{ours}.{leaf}"))));
    };
    for index in 0..attentions {
        // `conv` stands in for queries, keys and values where convolutions take the attentions' place.
        for projection in ["to_q", "to_k", "to_v", "to_out.0", "conv"] {
            layer(
                format!("{block}.attention_blocks.{index}.{projection}"),
                format!("{block}.attn{}.{projection}", index + 1),
            );
        }
        layer(format!("{block}.norms.{index}"), format!("{block}.norm{}", index + 1));
    }
    layer(format!("{block}.ff_norm"), format!("{block}.norm{feed_forward_norm}"));
    for part in ["ff.net.0.proj", "ff.net.2"].map(|part| format!("{block}.{part}")) {
        layer(part.clone(), part);
    }
    for part in [".norm", ".proj_in", ".proj_out"] {
        layer(part.into(), part.into());
    }
    let tables = (0..attentions).map(|index| format!("{THEIRS}{block}.attention_blocks.{index}.pos_encoder.pe"));
    rows.extend(tables.map(Row::drop));
    Table::new("AnimateDiff motion module", rows)
}

/// How many attentions a transformer block of this official file has: one more than the highest index.
pub fn attention_blocks(tensors: &NamedTensors) -> usize {
    let index = |name: &str| {
        let (_, rest) = name.split_once(".attention_blocks.")?;
        rest.split('.').next()?.parse::<usize>().ok()
    };
    tensors.names().filter_map(index).max().map_or(0, |highest| highest + 1)
}
