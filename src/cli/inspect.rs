//! `animatediff inspect`: what a weight file holds.

use std::{collections::BTreeMap, path::PathBuf};

use anyhow::Result;
use serde_json::{Value, json};

use crate::weights::{self, formats};

const EXAMPLES: &str = "\
Examples:
  animatediff init --preset tiny base/
  animatediff inspect base/unet/diffusion_pytorch_model.safetensors
  animatediff inspect base/unet/diffusion_pytorch_model.safetensors --json";

/// Say what a weight file holds
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// A safetensors file
    file: PathBuf,
    /// List every tensor with its type and shape
    #[arg(long)]
    keys: bool,
    /// One JSON document instead of text
    #[arg(long)]
    json: bool,
}

/// Prints kind, size, types and metadata; with `--keys`, every tensor.
pub fn run(args: &Args) -> Result<()> {
    let file = weights::read(&args.file)?;
    let tensors = &file.tensors;
    let mut parameters = 0;
    let mut types = BTreeMap::<&str, usize>::new();
    let mut keys = Vec::new();
    for name in tensors.names() {
        let (kind, shape) = (tensors.kind(name).expect("it is listed"), tensors.shape(name).expect("it is listed"));
        let kind = type_name(kind);
        parameters += shape.iter().product::<i64>();
        *types.entry(kind).or_default() += 1;
        keys.push(json!({"name": name, "type": kind, "shape": shape}));
    }
    let kind = formats::kind(tensors).unwrap_or("not told by its keys");
    if args.json {
        let mut document = json!({
            "file": args.file.display().to_string(),
            "kind": kind,
            "tensors": tensors.len(),
            "parameters": parameters,
            "types": types,
            "metadata": file.metadata,
        });
        if args.keys {
            document["keys"] = Value::Array(keys);
        }
        println!("{document:#}");
        return Ok(());
    }
    println!("{}", args.file.display());
    println!("kind        {kind}");
    println!("tensors     {}", tensors.len());
    println!("parameters  {parameters}");
    let types: Vec<String> = types.iter().map(|(name, count)| format!("{name} ({count})")).collect();
    println!("types       {}", types.join(", "));
    for (key, value) in &file.metadata {
        println!("{key}: {value}");
    }
    if args.keys {
        for key in keys {
            println!(
                "{} {} {}",
                key["name"].as_str().unwrap_or_default(),
                key["type"].as_str().unwrap_or_default(),
                key["shape"]
            );
        }
    }
    Ok(())
}

fn type_name(kind: tch::Kind) -> &'static str {
    match kind {
        tch::Kind::Float => "F32",
        tch::Kind::Half => "F16",
        tch::Kind::BFloat16 => "BF16",
        tch::Kind::Double => "F64",
        tch::Kind::Int64 => "I64",
        tch::Kind::Int => "I32",
        _ => "other",
    }
}
