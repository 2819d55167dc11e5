//! The networks of Stable Diffusion 1.x in diffusers' and transformers' names, older and newer.

use super::parts::{LEAVES, TEXT, TEXT_NORMS, image_parameters};
use crate::weights::map::{Row, Table};

/// The UNet: our names, or the same below `unet.`.
pub fn unet() -> Table {
    let mut rows = Vec::new();
    for prefix in ["", "unet."] {
        for path in image_parameters() {
            rows.extend(LEAVES.map(|leaf| Row::copy(format!("{prefix}{path}.{leaf}"), format!("{path}.{leaf}"))));
        }
    }
    Table::new("UNet (diffusers)", rows)
}

/// AutoencoderKL: attention was once `query, key, value, proj_attn`, and its weights may be 1×1 convolutions.
pub fn vae() -> Table {
    let mut rows = Vec::new();
    let mut layer = |path: &str| {
        rows.extend(LEAVES.map(|leaf| Row::copy(format!("{path}.{leaf}"), format!("{path}.{leaf}"))));
    };
    for name in ["quant_conv", "post_quant_conv"] {
        layer(name);
    }
    for (side, blocks, sampler) in [("encoder", "down_blocks", "downsamplers"), ("decoder", "up_blocks", "upsamplers")]
    {
        for name in ["conv_in", "conv_out", "conv_norm_out", "mid_block.attentions.{}.group_norm"] {
            layer(&format!("{side}.{name}"));
        }
        for place in [format!("{side}.mid_block"), format!("{side}.{blocks}.{{}}")] {
            for part in ["norm1", "conv1", "norm2", "conv2", "conv_shortcut"] {
                layer(&format!("{place}.resnets.{{}}.{part}"));
            }
        }
        layer(&format!("{side}.{blocks}.{{}}.{sampler}.{{}}.conv"));
    }
    for side in ["encoder", "decoder"] {
        let path = format!("{side}.mid_block.attentions.{{}}");
        rows.extend(vae_spellings(&path, &path).into_iter().map(|(theirs, ours)| Row::conv1x1(theirs, ours)));
    }
    Table::new("VAE (diffusers)", rows)
}

/// The attention's projections as they have been called, newest first, and as we call them.
pub(super) fn vae_spellings(theirs: &str, ours: &str) -> Vec<(String, String)> {
    const SPELLINGS: [(&str, &str); 8] = [
        ("to_q", "to_q"),
        ("to_k", "to_k"),
        ("to_v", "to_v"),
        ("to_out.0", "to_out.0"),
        ("query", "to_q"),
        ("key", "to_k"),
        ("value", "to_v"),
        ("proj_attn", "to_out.0"),
    ];
    let names = |(their, our): (&str, &str), leaf| (format!("{theirs}.{their}.{leaf}"), format!("{ours}.{our}.{leaf}"));
    SPELLINGS.iter().flat_map(|&spelling| LEAVES.map(|leaf| names(spelling, leaf))).collect()
}

/// CLIP's text model.
pub fn clip_text() -> Table {
    let mut rows = text_rows("", "");
    rows.extend(text_rows("text_encoder.", ""));
    Table::new("text encoder (transformers)", rows)
}

/// `position_ids` is a counter that old versions saved, and the newest drop the `text_model` level.
pub(super) fn text_rows(their_prefix: &str, our_prefix: &str) -> Vec<Row> {
    let embeddings =
        ["token_embedding", "position_embedding"].map(|name| format!("text_model.embeddings.{name}.weight"));
    let layers = TEXT.iter().chain(&TEXT_NORMS).flat_map(|path| LEAVES.map(|leaf| format!("{path}.{leaf}")));
    let mut rows = Vec::new();
    for name in embeddings.into_iter().chain(layers) {
        let short = name.strip_prefix("text_model.").expect("all are below it").to_owned();
        rows.extend(
            [name.clone(), short]
                .map(|theirs| Row::copy(format!("{their_prefix}{theirs}"), format!("{our_prefix}{name}"))),
        );
    }
    rows.extend(
        ["text_model.embeddings.position_ids", "embeddings.position_ids"]
            .map(|name| Row::drop(format!("{their_prefix}{name}"))),
    );
    rows
}
