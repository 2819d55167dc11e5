//! Whole samplings from given noise: prompts to latents to pictures.

use animatediff::{
    assemble::{Base, UNetParts},
    diffusion::{Config, Ddim, NoiseSchedule, TimestepSpacing, guided},
    nn::{NormScope, Plan},
};
use tch::{Device, Kind, Tensor};

use crate::support::{Golden, OUTPUT, assert_close, base, motion};

#[test]
fn prompts_are_encoded() {
    let golden = Golden::load("sampling");
    let base = base();
    let tokenizer = base.tokenizer().unwrap();
    let prompts = ["negative_prompts", "prompts"].map(|key| {
        let prompts: Vec<String> = serde_json::from_value(golden.json(key)).unwrap();
        prompts
    });
    let ids: Vec<i64> = prompts.iter().flatten().flat_map(|prompt| tokenizer.encode(prompt)).collect();
    let ids = Tensor::from_slice(&ids).view([-1, tokenizer.length() as i64]);
    let (encoder, _) = base.text_encoder(Plan::frozen(), Device::Cpu, Kind::Float).unwrap();
    assert_close("text", &encoder.forward(&ids), &golden.get("in.text"), OUTPUT);
}

#[test]
fn official_recipe() {
    let golden = Golden::load("sampling");
    let base = base();
    let latents = sample(&golden, &base, NormScope::Frame, &Config::default());
    assert_close("latents", &latents, &golden.get("out.official_latents"), OUTPUT);

    let (clips, channels, frames, height, width) = latents.size5().unwrap();
    let folded = latents.transpose(1, 2).reshape([clips * frames, channels, height, width]);
    let vae = base.vae(Device::Cpu, Kind::Float).unwrap();
    let pictures = (vae.decode(&(folded / base.vae.scaling_factor)) / 2.0 + 0.5).clamp(0.0, 1.0);
    let video = pictures.view([clips, frames, 3, 8 * height, 8 * width]).transpose(1, 2);
    assert_close("video", &video, &golden.get("out.official_video"), OUTPUT);
}

#[test]
fn diffusers_pipeline() {
    let golden = Golden::load("sampling");
    let schedule = Config { timestep_spacing: TimestepSpacing::Linspace, set_alpha_to_one: false, ..Config::default() };
    let latents = sample(&golden, &base(), NormScope::Clip, &schedule);
    assert_close("latents", &latents, &golden.get("out.diffusers_latents"), OUTPUT);
}

/// DDIM with guidance from the golden noise and text, under a v3 module.
fn sample(golden: &Golden, base: &Base, motion_norm: NormScope, schedule: &Config) -> Tensor {
    let parts = UNetParts { motion: Some(motion("v3", motion_norm)), ..UNetParts::new(base) };
    let (unet, _) = parts.build(Plan::frozen(), Device::Cpu, Kind::Float).unwrap();
    let (text, config) = (golden.get("in.text"), golden.json("config"));
    let guidance = config["guidance"].as_f64().unwrap();
    let schedule = NoiseSchedule::new(schedule);
    let predict = |latents: &Tensor, timestep: i64| {
        let twice = Tensor::cat(&[latents, latents], 0);
        let timesteps = Tensor::full([twice.size()[0]], timestep, (Kind::Int64, Device::Cpu));
        guided(&unet.forward(&twice, &timesteps, &text), guidance)
    };
    let ddim = Ddim::new(&schedule, config["steps"].as_i64().unwrap());
    ddim.sample(golden.get("in.latents"), predict, |_| Ok::<(), ()>(())).unwrap()
}
