//! What benchmarks count and compute with.

use animatediff::{
    assemble::{Pool, outline},
    bench::{
        Case, Scale, Version,
        flops::{self, Clips},
        measure,
    },
    model::{
        sizes::Sizes,
        unet::{UNet, motion},
    },
    nn::{Params, Plan},
};
use tch::{Device, Kind};

fn case(size: i64, batch: i64, motion: Version, guided: bool) -> Case {
    Case {
        scale: Scale::Sd15,
        motion,
        size,
        frames: 16,
        batch,
        steps: 1,
        guided,
        warmup: 0,
        repeat: 1,
        device: Device::Cpu,
        kind: Kind::Float,
        seed: 0,
        tag: String::new(),
    }
}

#[track_caller]
fn near(found: f64, expected: f64) {
    assert!((found - expected).abs() < 6e-4, "{found} and not {expected}");
}

/// Against torch's own counter over diffusers' UNet and VAE at Stable Diffusion 1.5's sizes, in 10¹² operations.
#[test]
fn operations_are_those_that_torch_counts() {
    near(flops::step(&case(512, 1, Version::V3, true)), 35.350);
    near(flops::step(&case(512, 1, Version::V3, false)), 17.675);
    near(flops::step(&case(512, 1, Version::V2, true)), 35.498);
    near(flops::step(&case(256, 1, Version::V3, true)), 8.175);
    near(flops::step(&case(256, 1, Version::V2, true)), 8.212);
    near(flops::decode(&case(512, 1, Version::V3, true)), 40.232);
    near(flops::decode(&case(256, 1, Version::V3, true)), 9.955);
}

#[test]
fn an_update_counts_forward_and_backward() {
    near(flops::update(&case(256, 1, Version::V3, false)), 9.355);
    near(flops::update(&case(256, 1, Version::V2, false)), 9.410);
    // Four clips are four times the work, within the rounding of the counts.
    assert!((flops::update(&case(256, 4, Version::V3, false)) - 37.419).abs() < 2e-3);
}

#[test]
fn odd_latents_round_up_on_the_way_down() {
    let sizes = Sizes::tiny(100);
    let count = |side| flops::unet(&sizes.unet, &motion::Config::v3(), Clips { clips: 1, frames: 2, side });
    assert!(count(9) > count(8) && count(9) < count(10));
}

/// Values are finite after many layers, the kind is the one asked for, and a seed is a set of weights.
#[test]
fn a_pool_fills_networks_with_ordinary_numbers() {
    let sizes = Sizes::tiny(100);
    let build = |seed, kind| {
        let pool = Pool::new(seed, Device::Cpu, kind);
        let weights = pool.fill(outline(|params| UNet::new(params, &sizes.unet, None)));
        let params = Params::new(weights, Plan::frozen(), Device::Cpu, kind);
        let unet = UNet::new(&params, &sizes.unet, None);
        let (store, problems) = params.finish();
        assert!(problems.is_empty(), "{problems}");
        (unet, store)
    };
    let (unet, store) = build(1, Kind::Float);
    let random = |shape: &[i64]| tch::Tensor::randn(shape, (Kind::Float, Device::Cpu));
    let timesteps = tch::Tensor::from_slice(&[500_i64]);
    let out = unet.forward(&random(&[1, 4, 1, 8, 8]), &timesteps, &random(&[1, 7, 32]));
    let spread = out.std(false).double_value(&[]);
    assert!(spread.is_finite() && spread > 1e-3 && spread < 1e3, "{spread}");
    let weight = &store.frozen["mid_block.resnets.0.conv1.weight"];
    let norm = weight.flatten(1, -1).norm_scalaropt_dim(2, [1_i64].as_slice(), false).mean(Kind::Float);
    assert!((norm.double_value(&[]) - 0.7).abs() < 0.02);
    let again = build(1, Kind::Float).1;
    assert!(store.frozen.iter().all(|(name, tensor)| again.frozen[name].equal(tensor)));
    assert!(!build(2, Kind::Float).1.frozen["conv_in.weight"].equal(&store.frozen["conv_in.weight"]));
    assert!(build(1, Kind::BFloat16).1.frozen.values().all(|tensor| tensor.kind() == Kind::BFloat16));
}

#[test]
fn the_middle_is_the_middle() {
    assert_eq!(measure::median(&[3.0, 1.0, 2.0]), 2.0);
    assert_eq!(measure::median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
    assert_eq!(measure::spread(&[3.0, 1.0, 2.0]), (1.0, 3.0));
}

#[test]
fn the_age_of_a_process_grows() {
    let first = measure::since_start().expect("Linux tells");
    std::thread::sleep(std::time::Duration::from_millis(50));
    let second = measure::since_start().expect("Linux tells");
    assert!(first > 0.0 && second - first > 0.03 && second - first < 30.0, "{first}, {second}");
}
