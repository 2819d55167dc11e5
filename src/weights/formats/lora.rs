//! Domain adapters and MotionLoRAs in the official names (`v3_sd15_adapter.ckpt`, `v2_lora_ZoomIn.ckpt`) against PEFT's.

use crate::weights::map::{Row, Table};

const FACTORS: [(&str, &str); 2] = [("down", "lora_A"), ("up", "lora_B")];
/// Their projection and ours.
const PROJECTIONS: [(&str, &str); 4] = [("to_q", "to_q"), ("to_k", "to_k"), ("to_v", "to_v"), ("to_out", "to_out.0")];

/// Low-rank pairs on the spatial attentions: 256 tensors for Stable Diffusion 1.5.
pub fn adapter() -> Table {
    let mut rows = Vec::new();
    for attention in ["attn1", "attn2"] {
        let path = format!("{{*}}.attentions.{{}}.transformer_blocks.{{}}.{attention}");
        rows.extend(pair_rows(&path, &path));
    }
    Table::new("AnimateDiff domain adapter", rows)
}

/// Low-rank pairs on the temporal attentions, up to `attentions` per block: 336 tensors for a v2 module.
pub fn motion_lora(attentions: usize) -> Table {
    let mut rows = Vec::new();
    for index in 0..attentions {
        let block = "transformer_blocks.{}";
        rows.extend(pair_rows(
            &format!("{{*}}.motion_modules.{{}}.temporal_transformer.{block}.attention_blocks.{index}"),
            &format!("{{*}}.motion_modules.{{}}.{block}.attn{}", index + 1),
        ));
    }
    Table::new("AnimateDiff MotionLoRA", rows)
}

fn pair_rows(theirs: &str, ours: &str) -> Vec<Row> {
    let row = |(their_projection, our_projection), (their_factor, our_factor)| {
        Row::copy(
            format!("{theirs}.processor.{their_projection}_lora.{their_factor}.weight"),
            format!("{ours}.{our_projection}.{our_factor}.weight"),
        )
    };
    PROJECTIONS.iter().flat_map(|&projection| FACTORS.map(|factor| row(projection, factor))).collect()
}
