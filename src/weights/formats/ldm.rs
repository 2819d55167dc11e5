//! LDM's names: the single files of Stable Diffusion (`v1-5-pruned.safetensors`, `model.ckpt`), their VAE, their ControlNets.
//!
//! LDM numbers the UNet's blocks through all levels: `input_blocks.i` is block `(i - 1) / (layers + 1)`, layer
//! `(i - 1) % (layers + 1)`, and `output_blocks.i` block `i / (layers + 1)`, layer `i % (layers + 1)`.

use super::{
    image::{text_rows, vae_spellings},
    parts::{LEAVES, RESNET, RESNET_NORMS, TOP, TOP_NORM, TRANSFORMER, TRANSFORMER_NORMS},
    topology::Topology,
};
use crate::weights::map::{Row, Table};

/// Prefix of the UNet's tensors in a checkpoint, and in ours.
pub const UNET: (&str, &str) = ("model.diffusion_model.", "unet.");
/// Of the VAE's.
pub const VAE: (&str, &str) = ("first_stage_model.", "vae.");
/// Of the text encoder's.
pub const TEXT: (&str, &str) = ("cond_stage_model.transformer.", "text_encoder.");
/// Of the averaged copy that training keeps; its names have no dots.
pub const EMA: &str = "model_ema.";

/// A whole checkpoint: UNet, VAE and text encoder, any of which may be missing.
pub fn checkpoint(topology: &Topology) -> Table {
    let renamed = |(theirs, ours): (String, String), (their_prefix, our_prefix): (&str, &str)| {
        Row::copy(format!("{their_prefix}{theirs}"), format!("{our_prefix}{ours}"))
    };
    let mut rows: Vec<Row> = unet_names(topology).into_iter().map(|names| renamed(names, UNET)).collect();
    rows.extend(vae_rows(topology, VAE.0, VAE.1));
    rows.extend(text_rows(TEXT.0, TEXT.1));
    rows.push(Row::aside(format!("{EMA}{{*}}")));
    // The process, which the program computes, and what training left behind.
    let left = [
        "betas",
        "alphas_{*}",
        "sqrt_{*}",
        "log_{*}",
        "posterior_{*}",
        "logvar",
        "lvlb_weights",
        "model.cond_stage_key",
    ];
    rows.extend(left.map(Row::drop));
    rows.extend(
        ["global_step", "optimizer_states.{*}", "callbacks.{*}", "lr_schedulers.{*}", "loops.{*}"].map(Row::drop),
    );
    rows.extend(
        ["first_stage_model.loss.{*}", "cond_stage_model.logit_scale", "cond_stage_model.text_projection"]
            .map(Row::drop),
    );
    Table::new("Stable Diffusion checkpoint (LDM)", rows)
}

/// A VAE alone: with LDM's prefix, with `vae.`, or with none.
pub fn vae(topology: &Topology) -> Table {
    let mut rows = vae_rows(topology, "", "");
    rows.extend(vae_rows(topology, VAE.0, ""));
    rows.extend(vae_rows(topology, "vae.", ""));
    rows.extend(["{}loss.{*}", "loss.{*}", "model_ema.{*}"].map(Row::aside));
    Table::new("VAE (LDM)", rows)
}

/// A ControlNet: the UNet's way down under `control_model.` or no prefix, an encoder of the hint, and zero convolutions.
pub fn controlnet(topology: &Topology) -> Table {
    let mut rows = Vec::new();
    let down = unet_names(topology).into_iter().filter(|(theirs, _)| !theirs.starts_with("out")).collect::<Vec<_>>();
    for prefix in ["control_model.", ""] {
        rows.extend(down.iter().map(|(theirs, ours)| Row::copy(format!("{prefix}{theirs}"), ours.clone())));
        for (theirs, ours) in hints() {
            rows.extend(LEAVES.map(|leaf| Row::copy(format!("{prefix}{theirs}.{leaf}"), format!("{ours}.{leaf}"))));
        }
    }
    Table::new("ControlNet (LDM)", rows)
}

fn hints() -> Vec<(String, String)> {
    let mut layers = vec![
        ("input_hint_block.0".to_owned(), "controlnet_cond_embedding.conv_in".to_owned()),
        ("input_hint_block.14".into(), "controlnet_cond_embedding.conv_out".into()),
        ("middle_block_out.0".into(), "controlnet_mid_block".into()),
        ("zero_convs.{}.0".into(), "controlnet_down_blocks.{}".into()),
    ];
    let block =
        |index| (format!("input_hint_block.{}", 2 * index + 2), format!("controlnet_cond_embedding.blocks.{index}"));
    layers.extend((0..6).map(block));
    layers
}

/// Where blocks are: LDM's path and ours, and what is there.
struct Spot {
    theirs: String,
    ours: String,
    what: What,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    Resnet,
    Transformer,
    /// A convolution that is a layer itself.
    Sampler,
}

/// The linear layers and convolutions of the UNet, in LDM's names and in ours.
pub fn unet_layers(topology: &Topology) -> Vec<(String, String)> {
    let mut layers: Vec<(String, String)> = TOP.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
    for Spot { theirs, ours, what } in spots(topology) {
        match what {
            What::Resnet => layers.extend(RESNET.map(|(a, b)| (format!("{theirs}.{a}"), format!("{ours}.{b}")))),
            What::Transformer => {
                layers.extend(TRANSFORMER.map(|part| (format!("{theirs}.{part}"), format!("{ours}.{part}"))));
            }
            What::Sampler => layers.push((theirs, ours)),
        }
    }
    layers
}

/// All tensors of the UNet, without a prefix.
fn unet_names(topology: &Topology) -> Vec<(String, String)> {
    let mut layers = unet_layers(topology);
    layers.push((TOP_NORM.0.to_owned(), TOP_NORM.1.to_owned()));
    for Spot { theirs, ours, what } in spots(topology) {
        match what {
            What::Resnet => layers.extend(RESNET_NORMS.map(|(a, b)| (format!("{theirs}.{a}"), format!("{ours}.{b}")))),
            What::Transformer => {
                layers.extend(TRANSFORMER_NORMS.map(|part| (format!("{theirs}.{part}"), format!("{ours}.{part}"))));
            }
            What::Sampler => {}
        }
    }
    let leaf =
        |(theirs, ours): (String, String)| LEAVES.map(|leaf| (format!("{theirs}.{leaf}"), format!("{ours}.{leaf}")));
    layers.into_iter().flat_map(leaf).collect()
}

fn spots(topology: &Topology) -> Vec<Spot> {
    let spot = |theirs: String, ours: String, what| Spot { theirs, ours, what };
    let (layers, levels) = (topology.layers, topology.attention.len());
    let mut spots = Vec::new();
    for (level, &attention) in topology.attention.iter().enumerate() {
        for layer in 0..layers {
            let theirs = format!("input_blocks.{}", 1 + level * (layers + 1) + layer);
            let ours = format!("down_blocks.{level}");
            spots.push(spot(format!("{theirs}.0"), format!("{ours}.resnets.{layer}"), What::Resnet));
            if attention {
                spots.push(spot(format!("{theirs}.1"), format!("{ours}.attentions.{layer}"), What::Transformer));
            }
        }
        if level + 1 < levels {
            let theirs = format!("input_blocks.{}.0.op", (level + 1) * (layers + 1));
            spots.push(spot(theirs, format!("down_blocks.{level}.downsamplers.0.conv"), What::Sampler));
        }
    }
    spots.push(spot("middle_block.0".into(), "mid_block.resnets.0".into(), What::Resnet));
    spots.push(spot("middle_block.1".into(), "mid_block.attentions.0".into(), What::Transformer));
    spots.push(spot("middle_block.2".into(), "mid_block.resnets.1".into(), What::Resnet));
    for (block, &attention) in topology.attention.iter().rev().enumerate() {
        for layer in 0..=layers {
            let theirs = format!("output_blocks.{}", block * (layers + 1) + layer);
            let ours = format!("up_blocks.{block}");
            spots.push(spot(format!("{theirs}.0"), format!("{ours}.resnets.{layer}"), What::Resnet));
            if attention {
                spots.push(spot(format!("{theirs}.1"), format!("{ours}.attentions.{layer}"), What::Transformer));
            }
            if layer == layers && block + 1 < levels {
                // The upsampler comes last in its block: without a transformer there, one place earlier.
                let place = if attention { 2 } else { 1 };
                spots.push(spot(format!("{theirs}.{place}.conv"), format!("{ours}.upsamplers.0.conv"), What::Sampler));
            }
        }
    }
    spots
}

/// The VAE's tensors. The decoder's levels are numbered from the highest resolution, where diffusers' begin with the lowest.
fn vae_rows(topology: &Topology, their_prefix: &str, our_prefix: &str) -> Vec<Row> {
    const RESNET: [(&str, &str); 5] = [
        ("norm1", "norm1"),
        ("conv1", "conv1"),
        ("norm2", "norm2"),
        ("conv2", "conv2"),
        ("nin_shortcut", "conv_shortcut"),
    ];
    const ATTENTION: [(&str, &str); 4] = [("q", "to_q"), ("k", "to_k"), ("v", "to_v"), ("proj_out", "to_out.0")];
    let mut layers: Vec<(String, String)> =
        ["quant_conv", "post_quant_conv"].map(|name| (name.to_owned(), name.to_owned())).to_vec();
    let mut matrices = Vec::new();
    for side in ["encoder", "decoder"] {
        for (theirs, ours) in [("conv_in", "conv_in"), ("conv_out", "conv_out"), ("norm_out", "conv_norm_out")] {
            layers.push((format!("{side}.{theirs}"), format!("{side}.{ours}")));
        }
        for (index, block) in ["block_1", "block_2"].iter().enumerate() {
            let resnet = |(a, b)| (format!("{side}.mid.{block}.{a}"), format!("{side}.mid_block.resnets.{index}.{b}"));
            layers.extend(RESNET.map(resnet));
        }
        let attention = format!("{side}.mid_block.attentions.0");
        layers.push((format!("{side}.mid.attn_1.norm"), format!("{attention}.group_norm")));
        matrices.extend(ATTENTION.map(|(a, b)| (format!("{side}.mid.attn_1.{a}"), format!("{attention}.{b}"))));
    }
    for level in 0..topology.vae_levels {
        let up = topology.vae_levels - 1 - level;
        for (theirs, ours) in [
            (format!("encoder.down.{level}"), format!("encoder.down_blocks.{level}")),
            (format!("decoder.up.{up}"), format!("decoder.up_blocks.{level}")),
        ] {
            layers
                .extend(RESNET.map(|(a, b)| (format!("{theirs}.block.{{}}.{a}"), format!("{ours}.resnets.{{}}.{b}"))));
        }
        layers.push((
            format!("encoder.down.{level}.downsample.conv"),
            format!("encoder.down_blocks.{level}.downsamplers.0.conv"),
        ));
        layers.push((format!("decoder.up.{up}.upsample.conv"), format!("decoder.up_blocks.{level}.upsamplers.0.conv")));
    }
    let row = |make: fn(String, String) -> Row, (theirs, ours): &(String, String), leaf: &str| {
        make(format!("{their_prefix}{theirs}.{leaf}"), format!("{our_prefix}{ours}.{leaf}"))
    };
    let plain = layers.iter().flat_map(|names| LEAVES.map(|leaf| row(Row::copy, names, leaf)));
    // A matrix here, a 1×1 convolution there; biases are vectors in both.
    let matrices = matrices.iter().flat_map(|names| LEAVES.map(|leaf| row(Row::conv1x1, names, leaf)));
    // Files that were converted in halves have diffusers' spellings of the attention among LDM's names.
    let mixed = vae_spellings("{*}.mid.attn_1", "{*}.mid_block.attentions.0");
    let mixed = mixed
        .into_iter()
        .map(|(theirs, ours)| Row::conv1x1(format!("{their_prefix}{theirs}"), format!("{our_prefix}{ours}")));
    plain.chain(matrices).chain(mixed).collect()
}
