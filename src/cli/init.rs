//! `animatediff init`: a base model with random weights, in the diffusers layout.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use clap::ValueEnum;
use tch::{Kind, Tensor};

use super::{as_usage, usage};
use crate::{
    assemble::{folder::write_configs, random},
    data::shapes,
    device::Precision,
    diffusion, files,
    model::{
        clip::{self, TextEncoder},
        sizes::Sizes,
        unet::{self, Heads, UNet},
        vae::{self, Vae},
    },
    nn::Store,
    tokenizer::Vocabulary,
    weights::write::write_safetensors,
};

const UNET_FILE: &str = "unet/diffusion_pytorch_model.safetensors";
/// Metadata that marks random weights.
const RANDOM_KEY: &str = "animatediff.random";
const EXAMPLES: &str = "\
Examples:
  animatediff init --preset tiny base/
  animatediff sample --base base/ --prompt 'random noise' -o noise.png";

/// Write a randomly initialised base model
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Folder to make
    out: PathBuf,
    /// How large
    #[arg(long, value_enum, default_value_t = Preset::Tiny)]
    preset: Preset,
    /// The same seed makes the same weights
    #[arg(long, default_value_t = 0)]
    seed: i64,
    /// Type of the weights in the files: fp32, fp16 or bf16
    #[arg(long, default_value = "fp32")]
    dtype: Precision,
    /// Replace what is there
    #[arg(long)]
    overwrite: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Preset {
    /// A few megabytes: for tests and demonstrations
    Tiny,
    /// What `data/shapes-base` is trained from: pictures of 64x64 pixels
    Shapes,
    /// A fifth of Stable Diffusion 1.5's UNet
    Small,
    /// The sizes of Stable Diffusion 1.5: 4.3 GB in fp32
    Sd15,
}

/// Writes the folder; an interrupted run leaves nothing under its name.
pub fn run(args: &Args) -> Result<()> {
    check_room(&args.out, args.overwrite)?;
    let kind = args.dtype.kind(tch::Device::Cpu);
    if let Some(parent) = args.out.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        files::check_writable(parent).map_err(as_usage)?;
    }
    tch::manual_seed(args.seed);
    let parameters = files::write_dir(&args.out, |staging| write(staging, args.preset, kind))?;
    println!(
        "{}: a base model with {:.1} million RANDOM parameters. It has learned nothing and makes noise: it is for tests, \
         benchmarks and trying the commands.",
        args.out.display(),
        parameters as f64 / 1e6
    );
    Ok(())
}

/// Only a folder that this command made, and that holds nothing else, is ever replaced.
fn check_room(out: &Path, overwrite: bool) -> Result<()> {
    const PARTS: [&str; 7] = ["README.md", "model_index.json", "scheduler", "text_encoder", "tokenizer", "unet", "vae"];
    if !out.exists() {
        return Ok(());
    }
    if !overwrite {
        return Err(usage(format!("{}: exists already; choose another folder, or add --overwrite", out.display())));
    }
    let random = crate::weights::read(&out.join(UNET_FILE)).is_ok_and(|file| file.metadata.contains_key(RANDOM_KEY));
    let foreign = fs::read_dir(out).map(|entries| {
        entries.flatten().find(|entry| !PARTS.iter().any(|part| entry.file_name() == *part)).map(|entry| entry.path())
    });
    match foreign {
        Ok(None) if random => Ok(()),
        Ok(Some(path)) => {
            Err(usage(format!("{}: is not replaced, as {} is not of a random base", out.display(), path.display())))
        }
        _ => Err(usage(format!("{}: is not replaced, as it is no random base; choose another folder", out.display()))),
    }
}

fn write(dir: &Path, preset: Preset, kind: Kind) -> Result<i64> {
    let Sizes { unet: unet_config, vae: vae_config, text: text_config } = preset.sizes();
    let make =
        |name: &str| fs::create_dir_all(dir.join(name)).with_context(|| format!("{}: cannot be made", dir.display()));
    for name in ["unet", "vae", "text_encoder", "tokenizer", "scheduler"] {
        make(name)?;
    }
    let (_, unet) = random(|params| UNet::new(params, &unet_config, None));
    let mut parameters = weights(&dir.join(UNET_FILE), unet, kind)?;
    let (_, vae) = random(|params| Vae::new(params, &vae_config));
    parameters += weights(&dir.join("vae/diffusion_pytorch_model.safetensors"), even(vae), kind)?;
    let (_, encoder) = random(|params| TextEncoder::new(params, &text_config));
    parameters += weights(&dir.join("text_encoder/model.safetensors"), wordy(encoder), kind)?;
    write_configs(dir, &unet_config, &vae_config, &text_config, diffusion::Config::scaled_linear().process())?;
    preset.vocabulary().write(&dir.join("tokenizer"), &text_config)?;
    text(
        &dir.join("README.md"),
        "# A random base model\n\nWritten by `animatediff init`. Its weights are random: it has learned nothing.\n",
    )?;
    Ok(parameters)
}

/// A start for a VAE that is trained from here: convolutions keep the variance of what passes them (PyTorch's own start,
/// which all layers here have, leaves a third of it, and no norm follows most of a VAE's), residual branches add nothing yet,
/// and there are no biases. It takes a fifth of the steps to the first pictures.
fn even(mut store: Store) -> Store {
    for (name, tensor) in &mut store.frozen {
        let branch = [".conv2.weight", ".to_out.0.weight"].iter().any(|end| name.ends_with(end));
        if branch || name.ends_with(".bias") {
            *tensor = tensor.zeros_like();
        } else if tensor.dim() == 4 {
            *tensor = &*tensor * 3f64.sqrt();
        }
    }
    store
}

/// A start for a text encoder whose states tell words apart: embeddings of tokens outweigh those of places, and both outweigh
/// what random layers add to every text alike. With CLIP's own (0.02 for both) and PyTorch's biases, a word changes 4 % of its
/// state; a UNet hears little of it.
fn wordy(mut store: Store) -> Store {
    for (name, tensor) in &mut store.frozen {
        if name.ends_with("token_embedding.weight") {
            *tensor = &*tensor * 50.0;
        } else if name.ends_with("position_embedding.weight") {
            *tensor = &*tensor * 15.0;
        } else if name.ends_with(".bias") {
            *tensor = tensor.zeros_like();
        }
    }
    store
}

fn weights(path: &Path, store: Store, kind: Kind) -> Result<i64> {
    let tensors: BTreeMap<String, Tensor> =
        store.frozen.into_iter().map(|(name, tensor)| (name, tensor.to_kind(kind))).collect();
    let metadata = BTreeMap::from([("format".into(), "pt".into()), (RANDOM_KEY.into(), "true".into())]);
    write_safetensors(path, tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)), &metadata)?;
    Ok(tensors.values().map(|tensor| tensor.numel() as i64).sum())
}

fn text(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("{}: cannot be written", path.display()))
}

impl Preset {
    fn vocabulary(self) -> Vocabulary {
        match self {
            Preset::Shapes => Vocabulary::of_words(&shapes::words()),
            Preset::Tiny | Preset::Small | Preset::Sd15 => Vocabulary::bundled(),
        }
    }

    fn sizes(self) -> Sizes {
        let vocabulary = self.vocabulary().size();
        match self {
            Preset::Tiny => Sizes::tiny(vocabulary),
            Preset::Shapes => Sizes {
                unet: shapes_unet(),
                vae: shapes_vae(),
                text: clip::Config {
                    max_position_embeddings: SHAPES_TOKENS,
                    ..clip::Config::two_layers(vocabulary, 96)
                },
            },
            Preset::Small => Sizes::small(),
            Preset::Sd15 => Sizes::default(),
        }
    }
}

/// Channels of the latents. With Stable Diffusion's four, a VAE of these widths makes squares of circles and drops the
/// watermark.
const SHAPES_LATENTS: i64 = 8;

/// Tokens of a prompt; the longest caption of this world has 15. Of CLIP's 77, four of five would be padding, and attention
/// that has learned nothing yet would hear little of the words.
const SHAPES_TOKENS: i64 = 16;

/// Three levels, so that pictures of 64 pixels, 8x8 in latents, do not shrink to a point.
fn shapes_unet() -> unet::Config {
    let names = |names: [&str; 3]| names.map(String::from).to_vec();
    unet::Config {
        block_out_channels: vec![48, 96, 96],
        down_block_types: names(["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"]),
        up_block_types: names(["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"]),
        layers_per_block: 1,
        attention_head_dim: Heads::All(4),
        norm_num_groups: 8,
        cross_attention_dim: 96,
        sample_size: 8,
        in_channels: SHAPES_LATENTS,
        out_channels: SHAPES_LATENTS,
        ..unet::Config::default()
    }
}

fn shapes_vae() -> vae::Config {
    vae::Config {
        block_out_channels: vec![16, 32, 64, 64],
        layers_per_block: 1,
        latent_channels: SHAPES_LATENTS,
        norm_num_groups: 2, // of two channels each, they would take most of the tone from what is painted
        ..vae::Config::default()
    }
}
