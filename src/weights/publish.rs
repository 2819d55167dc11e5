//! Weights for other tools: safetensors with the metadata that they look for, written one tensor at a time.
//!
//! What `modelspec` and kohya's `ss_` keys hold follows their public descriptions; ours begin with `animatediff.`.

use std::{
    collections::BTreeMap,
    io::{BufWriter, Seek, SeekFrom, Write},
    path::Path,
};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};
use tch::{Kind, Tensor};

use super::{
    error::WeightsError,
    formats::{Content, Dialect},
    identify::LowRankUse,
    named::NamedTensors,
    write::{Shaped, encode, header},
};
use crate::{files, hub::hexadecimal, nn::Source};

/// The metadata key of the SHA-256 of all tensors' bytes.
pub const HASH_KEY: &str = "modelspec.hash_sha256";

/// Writes `tensors` to `path`, staged, synced and renamed; floating-point ones as `kind`, where one is given. The metadata
/// gets the hash of the bytes.
///
/// At most one tensor is in memory, in both kinds.
///
/// # Errors
/// Names the path; the tensor, when its values do not fit the kind.
pub fn write_named(
    path: &Path,
    mut tensors: NamedTensors,
    kind: Option<Kind>,
    metadata: &BTreeMap<String, String>,
) -> Result<()> {
    let names: Vec<String> = tensors.names().map(String::from).collect();
    let shaped = |name: &String| {
        let stored = tensors.stored_kind(name).expect("it is listed");
        let kind = kind.filter(|_| is_float(stored)).unwrap_or(stored);
        Shaped::new(name, kind, &tensors.shape(name).expect("it is listed"))
    };
    let entries = super::write::in_file_order(names.iter().map(shaped).collect::<Result<Vec<_>>>()?)?;
    let blank = "0x".to_owned() + &"0".repeat(64);
    let mut metadata = metadata.clone();
    metadata.insert(HASH_KEY.into(), blank.clone());
    let head = header(&entries, &metadata)?;
    files::write_atomic(path, |out| {
        out.write_all(&(head.len() as u64).to_le_bytes())?;
        out.write_all(&head)?;
        let mut hash = Sha256::new();
        let mut buffer = Vec::new();
        for entry in &entries {
            let origin = tensors.origin_of(&entry.name);
            let tensor = tensors.take(&entry.name).expect("it is listed");
            let cast = tensor.to_kind(entry.kind);
            check_range(&entry.name, origin, &tensor, &cast)?;
            encode(&cast, entry, &mut buffer)?;
            hash.update(&buffer);
            out.write_all(&buffer)?;
        }
        fill_in(out, &head, &blank, &format!("0x{}", hexadecimal(&hash.finalize())))
    })
}

/// Puts the hash where the header has a blank of the same length.
fn fill_in(out: &mut BufWriter<files::disk::Output>, head: &[u8], blank: &str, hash: &str) -> Result<()> {
    let at =
        head.windows(blank.len()).position(|window| window == blank.as_bytes()).context("the header lost its hash")?;
    out.seek(SeekFrom::Start(8 + at as u64))?;
    out.write_all(hash.as_bytes())?;
    out.seek(SeekFrom::End(0))?;
    Ok(())
}

fn is_float(kind: Kind) -> bool {
    use Kind::{BFloat16, Double, Float, Float8e4m3fn, Float8e4m3fnuz, Float8e5m2, Float8e5m2fnuz, Half};
    matches!(kind, Float | Double | Half | BFloat16 | Float8e4m3fn | Float8e4m3fnuz | Float8e5m2 | Float8e5m2fnuz)
}

/// Values that a narrower kind has no room for become infinite: better no file than that one.
fn check_range(name: &str, origin: Option<String>, tensor: &Tensor, cast: &Tensor) -> Result<(), WeightsError> {
    let infinite = |tensor: &Tensor| tensor.isfinite().all().int64_value(&[]) == 0;
    if tensor.kind() == cast.kind() || !is_float(cast.kind()) || !infinite(cast) || infinite(tensor) {
        return Ok(());
    }
    let (kind, step) = match cast.kind() {
        Kind::Half => ("float16", "choose --dtype bf16 or fp32"),
        Kind::BFloat16 => ("bfloat16", "choose --dtype fp32"),
        _ => ("float32", "leave --dtype out"),
    };
    Err(WeightsError::Overflow {
        origin: origin.unwrap_or_else(|| "tensors".into()),
        name: name.to_owned(),
        kind,
        step,
    })
}

/// What a file is, for its metadata.
pub struct Card<'a> {
    /// What it holds.
    pub content: Content,
    /// Whose names it has.
    pub dialect: Dialect,
    /// Of a low-rank file, what for.
    pub purpose: Option<LowRankUse>,
    /// Its name for people.
    pub title: &'a str,
    /// Rank of all pairs, where they have the same.
    pub rank: Option<i64>,
    /// Its alpha, likewise.
    pub alpha: Option<f64>,
}

impl Card<'_> {
    /// The keys that other tools show: Stability's `modelspec`, and kohya's of a network.
    pub fn metadata(&self) -> BTreeMap<String, String> {
        let suffix = match (self.content, self.purpose) {
            (Content::LowRank, Some(LowRankUse::MotionLora)) => "/motion-lora",
            (Content::LowRank, _) => "/lora",
            (Content::MotionModule, _) => "/motion-module",
            (Content::Embedding, _) => "/textual-inversion",
            (Content::ControlNet | Content::SparseCtrl, _) => "/controlnet",
            (Content::Vae, _) => "/vae",
            _ => "",
        };
        let implementation = match self.dialect {
            Dialect::Official => "https://github.com/guoyww/AnimateDiff",
            Dialect::Diffusers | Dialect::Peft => "diffusers",
            Dialect::Ldm => "https://github.com/CompVis/stable-diffusion",
            Dialect::Kohya => "https://github.com/kohya-ss/sd-scripts",
            Dialect::A1111 => "https://github.com/AUTOMATIC1111/stable-diffusion-webui",
        };
        let mut metadata = BTreeMap::from(
            [
                ("format", "pt".to_owned()),
                ("modelspec.sai_model_spec", "1.0.0".into()),
                ("modelspec.architecture", format!("stable-diffusion-v1{suffix}")),
                ("modelspec.implementation", implementation.into()),
                ("modelspec.title", self.title.into()),
            ]
            .map(|(key, value)| (key.to_owned(), value)),
        );
        if self.content == Content::LowRank {
            let module = [("ss_network_module", "networks.lora".to_owned()), ("ss_base_model_version", "sd_v1".into())];
            let rank = self.rank.map(|rank| ("ss_network_dim", rank.to_string()));
            let alpha = self.alpha.map(|alpha| ("ss_network_alpha", alpha.to_string()));
            let keys = module.into_iter().chain(rank).chain(alpha);
            metadata.extend(keys.map(|(key, value)| (key.to_owned(), value)));
        }
        metadata
    }
}
