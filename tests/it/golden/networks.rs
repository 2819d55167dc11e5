//! The text encoder and the VAE.

use animatediff::nn::Plan;
use tch::{Device, Kind};

use crate::support::{Golden, OUTPUT, assert_close, base};

#[test]
fn text_encoder() {
    let golden = Golden::load("text_encoder");
    let (model, _) = base().text_encoder(Plan::frozen(), Device::Cpu, Kind::Float).unwrap();
    assert_close("hidden", &model.forward(&golden.get("in.ids")), &golden.get("out.hidden"), OUTPUT);
}

#[test]
fn vae_encodes() {
    let golden = Golden::load("vae");
    let posterior = base().vae(Device::Cpu, Kind::Float).unwrap().encode(&golden.get("in.pixels"));
    assert_close("mean", &posterior.mean, &golden.get("out.mean"), OUTPUT);
    assert_close("logvar", &posterior.logvar, &golden.get("out.logvar"), OUTPUT);
}

#[test]
fn vae_decodes() {
    let golden = Golden::load("vae");
    let image = base().vae(Device::Cpu, Kind::Float).unwrap().decode(&golden.get("in.latents"));
    assert_close("image", &image, &golden.get("out.image"), OUTPUT);
}

#[test]
fn a_posterior_is_sampled_by_its_standard_deviation() {
    let golden = Golden::load("vae");
    let posterior = base().vae(Device::Cpu, Kind::Float).unwrap().encode(&golden.get("in.pixels"));
    let noise = golden.get("in.latents");
    let want = &posterior.mean + posterior.logvar.exp().sqrt() * &noise;
    assert_close("sample", &posterior.sample(&noise), &want, 1e-6);
}
