//! Latents to pictures: the VAE alone.

use anyhow::Result;
use serde_json::json;
use tch::{Kind, Tensor, no_grad};

use super::{
    Case, Report, flops,
    measure::{finish, median, round, since_start, spread, timed},
    world::World,
};
use crate::sample::frames_together;

/// Decodes all frames of all clips, `chunk` frames at a time or as many as sampling does, `case.repeat` times.
pub fn run(case: &Case, chunk: Option<i64>) -> Result<Report> {
    let (vae, build, _) = timed(|| {
        let vae = World::new(case)?.base.vae(case.device, case.kind);
        finish(case.device);
        vae.map_err(anyhow::Error::from)
    });
    let vae = vae?;
    let (frames, side) = (case.frames * case.batch, case.size / vae.config().downscale());
    tch::manual_seed(case.seed);
    let latents = Tensor::randn([frames, vae.config().latent_channels, side, side], (Kind::Float, tch::Device::Cpu));
    let latents = latents.to_device(case.device).to_kind(case.kind);
    let chunk = chunk.unwrap_or_else(|| frames_together(&latents, vae.config().downscale()));
    let decode = || {
        no_grad(|| latents.split(chunk, 0).iter().for_each(|latents| drop(vae.decode(latents))));
        finish(case.device);
    };
    let mut first = None;
    for _ in 0..case.warmup {
        decode();
        first = first.or_else(since_start);
    }
    case.settled();
    let rounds: Vec<(f64, f64)> = (0..case.repeat).map(|_| timed(decode)).map(|(_, wall, busy)| (wall, busy)).collect();
    let (seconds, busy): (Vec<f64>, Vec<f64>) = rounds.into_iter().unzip();
    let (total, (min, max), tflop) = (median(&seconds), spread(&seconds), flops::decode(case));
    let measured = json!({
        "total_s": round(total, 4),
        "total_s_min": round(min, 4),
        "total_s_max": round(max, 4),
        "frame_s": round(total / frames as f64, 5),
        "decode_chunk": chunk,
        "tflop": round(tflop, 4),
        "tflop_per_s": round(tflop / total, 3),
        "build_s": round(build, 3),
        "time_to_first_step_s": first.or_else(since_start).map(|seconds| round(seconds, 3)),
        "cpu_per_wall": round(median(&busy), 2),
    });
    Ok(Report::new("vae-decode", case, measured))
}
