//! Older and newer spellings within diffusers folders themselves, and what wraps names of any format.

use crate::weights::map::{Row, Table};

/// AutoencoderKL: attention was once `query, key, value, proj_attn`, and its weights may be 1×1 convolutions.
pub fn vae() -> Table {
    let path = "{*}.attentions.{}";
    let spellings = [
        ("query", "to_q"),
        ("key", "to_k"),
        ("value", "to_v"),
        ("proj_attn", "to_out.0"),
        ("to_q", "to_q"),
        ("to_k", "to_k"),
        ("to_v", "to_v"),
        ("to_out.0", "to_out.0"),
    ];
    let mut rows: Vec<Row> = spellings
        .iter()
        .map(|(theirs, ours)| Row::squeeze(format!("{path}.{theirs}.{{*}}"), format!("{path}.{ours}.{{*}}")))
        .collect();
    rows.push(Row::copy("{*}", "{*}"));
    Table::new("AutoencoderKL", rows)
}

/// CLIP's text model: `position_ids` is a counter that old versions saved, and the newest drop the `text_model` level.
pub fn clip_text() -> Table {
    Table::new(
        "CLIPTextModel",
        vec![
            Row::drop("text_model.embeddings.position_ids"),
            Row::drop("embeddings.position_ids"),
            Row::copy("text_model.{*}", "text_model.{*}"),
            Row::copy("embeddings.{*}", "text_model.embeddings.{*}"),
            Row::copy("encoder.{*}", "text_model.encoder.{*}"),
            Row::copy("final_layer_norm.{*}", "text_model.final_layer_norm.{*}"),
        ],
    )
}

/// The prefix that PyTorch's distributed training puts before every name, as in the official trainer's checkpoints.
pub fn unwrapped() -> Table {
    Table::new("DistributedDataParallel", vec![Row::copy("module.{*}", "{*}"), Row::copy("{*}", "{*}")])
}
