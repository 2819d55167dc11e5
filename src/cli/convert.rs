//! `animatediff convert`: weights from one tool's format to another's.

use std::path::PathBuf;

use anyhow::Result;
use clap::ValueEnum;

use super::{progress::say, sample::LoraEntry};
use crate::{
    convert::{Order, To, convert},
    device::Precision,
    weights::Dialect,
};

const EXAMPLES: &str = "\
Examples:
  animatediff init --preset tiny base/
  animatediff convert base/ base.safetensors --to ldm --dtype fp16
  animatediff convert base.safetensors again/ --to diffusers --base base/
  animatediff data shapes shapes/
  animatediff train adapter --base base/ --videos shapes/videos \\
      --caption 'a shape' --set train_data.sample_size=64 \\
      --set is_debug=true --set lora.rank=8 --max-steps 2
  animatediff convert outputs/debug/export/adapter.safetensors \\
      kohya.safetensors --to kohya
  animatediff convert base/ merged.safetensors --to ldm \\
      --merge kohya.safetensors:0.8
  animatediff convert kohya.safetensors small.safetensors --to official \\
      --merge kohya.safetensors:0.5 --rank 4";

/// Write weights in another tool's format, or merged into one another
///
/// Motion modules: official, diffusers (a folder). MotionLoRAs, adapters, LoRAs: official, diffusers, kohya, peft (a folder).
/// Base models: ldm (one file), diffusers (a folder). ControlNets: ldm, diffusers. SparseCtrl: official, diffusers. Embeddings:
/// a1111, diffusers. Any file, pickles too: safetensors. What it is, and in whose names, is told by what it holds.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// File, folder, or name on the Hub (hf:owner/repo/file)
    input: PathBuf,
    /// File that ends in .safetensors, or folder to make
    output: PathBuf,
    /// Whose names to write; those of IN if not given
    #[arg(long, value_enum, value_name = "FORMAT")]
    to: Option<Format>,
    /// Type of the floating-point weights: fp32, fp16 or bf16; that of IN if not given
    #[arg(long)]
    dtype: Option<Precision>,
    /// Merge a LoRA, adapter or MotionLoRA at a scale (1 if not given): into IN's weights or, when IN is one, side by side
    /// with it; may be repeated
    #[arg(long, value_name = "FILE[:SCALE]")]
    merge: Vec<String>,
    /// Bring merged LoRAs to this rank by singular values, and say how far off that is
    #[arg(long, value_name = "N")]
    rank: Option<i64>,
    /// Base model that a checkpoint takes what it lacks from: VAE, text encoder, tokenizer
    #[arg(long, value_name = "DIR|FILE")]
    base: Option<PathBuf>,
    /// Take the averaged weights (EMA) of a checkpoint
    #[arg(long)]
    ema: bool,
    /// Leave out tensors whose names nobody knows, and list them
    #[arg(long)]
    drop_unknown: bool,
    /// Replace what is there
    #[arg(long)]
    overwrite: bool,
}

/// `--to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// IN's own names, as safetensors
    Safetensors,
    /// AnimateDiff's names, which ComfyUI and A1111 read too
    Official,
    /// diffusers' names
    Diffusers,
    /// An adapter of PEFT's
    Peft,
    /// Stable Diffusion's single files
    Ldm,
    /// kohya's names for LoRAs
    Kohya,
    /// A1111's embeddings
    A1111,
}

impl Format {
    fn to(self) -> To {
        match self {
            Format::Safetensors => To::Safetensors,
            Format::Official => To::Names(Dialect::Official),
            Format::Diffusers => To::Names(Dialect::Diffusers),
            Format::Peft => To::Names(Dialect::Peft),
            Format::Ldm => To::Names(Dialect::Ldm),
            Format::Kohya => To::Names(Dialect::Kohya),
            Format::A1111 => To::Names(Dialect::A1111),
        }
    }
}

/// Converts, and says what was written.
pub fn run(args: Args) -> Result<()> {
    let merge = args.merge.iter().map(|text| LoraEntry::parse("--merge", text)).collect::<Result<Vec<_>>>()?;
    let order = Order {
        input: args.input,
        output: args.output,
        to: args.to.map(Format::to),
        kind: args.dtype.filter(|dtype| *dtype != Precision::Auto).map(|dtype| dtype.kind(tch::Device::Cpu)),
        merge: merge.into_iter().map(|entry| (entry.path, entry.alpha)).collect(),
        rank: args.rank,
        base: args.base,
        ema: args.ema,
        drop_unknown: args.drop_unknown,
        overwrite: args.overwrite,
    };
    let outcome = convert(&order)?;
    outcome.notes.iter().for_each(|note| say(&format!("note: {note}")));
    println!("{}: {}", order.output.display(), outcome.what);
    Ok(())
}
