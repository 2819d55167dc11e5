//! Motion modules in the official names (`mm_sd_v15.ckpt`, `v3_sd15_mm.ckpt`, …) against those of diffusers' MotionAdapter.

use crate::weights::{
    map::{Row, Table},
    named::NamedTensors,
};

const THEIRS: &str = "{*}.motion_modules.{}.temporal_transformer";
const OURS: &str = "{*}.motion_modules.{}";

/// The table for modules whose transformer blocks have `attentions` attentions; `feed_forward_norm` is the number of the
/// feed-forward's norm in our names.
pub fn motion_module(attentions: usize, feed_forward_norm: usize) -> Table {
    let block = ".transformer_blocks.{}";
    let mut rows = Vec::new();
    for index in 0..attentions {
        let theirs = format!("{THEIRS}{block}.attention_blocks.{index}");
        rows.push(Row::drop(format!("{theirs}.pos_encoder.pe")));
        rows.push(Row::copy(format!("{theirs}.{{*}}"), format!("{OURS}{block}.attn{}.{{*}}", index + 1)));
        rows.push(Row::copy(
            format!("{THEIRS}{block}.norms.{index}.{{*}}"),
            format!("{OURS}{block}.norm{}.{{*}}", index + 1),
        ));
    }
    rows.push(Row::copy(
        format!("{THEIRS}{block}.ff_norm.{{*}}"),
        format!("{OURS}{block}.norm{feed_forward_norm}.{{*}}"),
    ));
    rows.push(Row::copy(format!("{THEIRS}{block}.ff.{{*}}"), format!("{OURS}{block}.ff.{{*}}")));
    for part in ["norm", "proj_in", "proj_out"] {
        rows.push(Row::copy(format!("{THEIRS}.{part}.{{*}}"), format!("{OURS}.{part}.{{*}}")));
    }
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
