//! From the start of a process to its first denoising step, and to its first clip: weights are read from real files.

use std::{
    convert::Infallible,
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context, Result};
use serde_json::json;

use super::{
    Case, Report,
    measure::{finish, median, now, round},
    world::request,
};
use crate::{
    assemble::{ARCHITECTURE_KEY, Base, Motion, Pool, folder::write_configs},
    device::Precision,
    diffusion, files,
    nn::Source,
    sample::{Cast, Studio},
    tokenizer::Vocabulary,
    weights::{NamedTensors, write::write_safetensors},
};

const MOTION_FILE: &str = "motion_module.safetensors";

/// Where the files of `case` are in `folder`; they are written when they are not there.
///
/// # Errors
/// Names the file that cannot be written.
pub fn weights(folder: &Path, case: &Case) -> Result<PathBuf> {
    let dtype = Precision::of(case.kind);
    let place = folder.join(format!("{}-{dtype}-{}-seed-{}", case.scale.name(), case.motion.name(), case.seed));
    if !place.exists() {
        files::write_dir(&place, |staging| write(staging, case))?;
    }
    Ok(place)
}

/// Bytes of all files below `folder`.
pub fn bytes(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(about) if about.is_dir() => bytes(&entry.path()),
        Ok(about) => about.len(),
        Err(_) => 0,
    };
    entries.map(size).sum()
}

fn write(folder: &Path, case: &Case) -> Result<()> {
    let sizes = case.scale.sizes();
    for name in ["unet", "vae", "text_encoder", "tokenizer", "scheduler"] {
        fs::create_dir_all(folder.join(name)).with_context(|| format!("{}: cannot be made", folder.display()))?;
    }
    write_configs(folder, &sizes.unet, &sizes.vae, &sizes.text, diffusion::Config::scaled_linear().process())?;
    Vocabulary::bundled().write(&folder.join("tokenizer"), &sizes.text)?;
    let pool = Pool::new(case.seed, tch::Device::Cpu, case.kind);
    let base = Base::random(sizes, pool.clone(), &folder.join("tokenizer"));
    let motion = Motion::random(case.architecture(), &base.unet, &pool);
    let architecture = serde_json::to_string(&motion.config)?;
    save(&folder.join("unet/diffusion_pytorch_model.safetensors"), base.unet_tensors()?, &[])?;
    save(&folder.join("vae/diffusion_pytorch_model.safetensors"), base.vae_tensors()?, &[])?;
    save(&folder.join("text_encoder/model.safetensors"), base.text_tensors()?, &[])?;
    save(&folder.join(MOTION_FILE), motion.tensors, &[(ARCHITECTURE_KEY, architecture)])
}

fn save(path: &Path, mut tensors: NamedTensors, metadata: &[(&str, String)]) -> Result<()> {
    let names = tensors.left();
    let ready: Vec<_> = names.iter().filter_map(|name| Some((name, tensors.take(name)?))).collect();
    let metadata = metadata.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
    write_safetensors(path, ready.iter().map(|(name, tensor)| (name, tensor)), &metadata)
}

/// The part of a fresh process, which was started at `since`, in seconds since the epoch: reads the files in `place`, samples
/// a clip.
///
/// # Errors
/// When the files cannot be read.
pub fn run(case: &Case, place: &Path, since: f64) -> Result<Report> {
    let start = Instant::now();
    let base = Base::open(place)?;
    let motion = Motion::read(&place.join(MOTION_FILE), None)?;
    let cast = Cast { motion: Some(motion), ..Cast::default() };
    let studio = Studio::open(&base, cast, case.device, case.kind)?;
    finish(case.device);
    let load = start.elapsed().as_secs_f64();
    let pipeline = studio.pipeline();
    let request = request(case, 0);
    let (sampling, mut ends) = (Instant::now(), Vec::new());
    let Ok(latents) = pipeline.denoise(&request, &pipeline.noise(&request), |_| {
        finish(case.device);
        ends.push((now(), Instant::now()));
        Ok::<_, Infallible>(())
    });
    let decoding = Instant::now();
    pipeline.decode(&latents);
    finish(case.device);
    let steps: Vec<f64> = ends.windows(2).map(|pair| (pair[1].1 - pair[0].1).as_secs_f64()).collect();
    let first_step = (ends[0].1 - sampling).as_secs_f64();
    let measured = json!({
        "steps": case.steps,
        "load_s": round(load, 3),
        "time_to_first_step_s": round(ends[0].0 - since, 3),
        "time_to_clip_s": round(now() - since, 3),
        "step_s_median": round(if steps.is_empty() { first_step } else { median(&steps) }, 5),
        "total_s": round(sampling.elapsed().as_secs_f64(), 4),
        "decode_s": round(decoding.elapsed().as_secs_f64(), 4),
        "weights_bytes": bytes(place),
    });
    Ok(Report::new("startup", case, measured))
}
