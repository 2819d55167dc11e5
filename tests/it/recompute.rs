//! Activation checkpointing, and nodes that keep less: the same gradients, less memory.

use animatediff::{
    assemble::UNetParts,
    native::{frozen_conv2d, geglu, group_norm_silu},
    nn::{Checkpointing, LoraPlan, NormScope, Pattern, Plan},
};
use tch::{Device, Kind, Tensor};

use crate::support::{assert_close, base, global_generator, motion};

const CPU: (Kind, Device) = (Kind::Float, Device::Cpu);

fn pairs(targets: &str) -> Plan {
    Plan { lora: Some(LoraPlan { targets: vec![Pattern::new(targets)], rank: 4, scale: 1.0 }), ..Plan::frozen() }
}

/// Gradients of every trained tensor, and of the text, on two clips of two frames.
fn gradients(plan: &Plan, moves: bool, checkpointing: Checkpointing, apart: bool) -> Vec<(String, Tensor)> {
    tch::manual_seed(3);
    let base = base();
    let parts = UNetParts { motion: moves.then(|| motion("v2", NormScope::Frame)), ..UNetParts::new(&base) };
    let (unet, store) = parts.build(plan.clone(), Device::Cpu, Kind::Float).unwrap();
    let unet = unet.with_checkpointing(checkpointing);
    let frames = if moves { 2 } else { 1 };
    tch::manual_seed(4);
    let latents = Tensor::randn([2, 4, frames, 8, 8], CPU);
    let text = Tensor::randn([2, 5, base.unet.cross_attention_dim], CPU);
    let timesteps = Tensor::from_slice(&[10_i64, 700]);
    let loss = unet.forward(&latents, &timesteps, &text).square().mean(Kind::Float);
    let (names, tensors): (Vec<String>, Vec<Tensor>) =
        store.trained.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).unzip();
    let found = if apart {
        Tensor::run_backward(&[&loss], &tensors, false, false)
    } else {
        loss.backward();
        tensors.iter().map(Tensor::grad).collect()
    };
    names.into_iter().zip(found).collect()
}

#[test]
fn computed_again_gradients_are_the_same_bit_for_bit() {
    let _generator = global_generator();
    let plans = [
        ("adapter", pairs(".attentions.*.to_q"), false),
        ("motion", Plan { trained: vec![Pattern::new("motion_modules.")], ..Plan::frozen() }, true),
        ("motionlora", pairs(".motion_modules.*.to_q"), true),
        ("image", Plan { trained: vec![Pattern::new(".")], ..Plan::frozen() }, false),
    ];
    for (name, plan, moves) in plans {
        let plain = gradients(&plan, moves, Checkpointing::None, false);
        assert!(plain.iter().any(|(_, grad)| grad.abs().max().double_value(&[]) > 0.0), "{name}: there are gradients");
        for (checkpointing, apart) in
            [(Checkpointing::Blocks, false), (Checkpointing::Full, false), (Checkpointing::Full, true)]
        {
            for ((key, want), (_, got)) in plain.iter().zip(gradients(&plan, moves, checkpointing, apart)) {
                assert!(got.equal(want), "{name}, {checkpointing:?}: gradient of `{key}` differs");
            }
        }
    }
}

/// Gradients of `inputs` under a loss that weighs every value differently.
fn slopes(output: &Tensor, inputs: &[&Tensor]) -> Vec<Tensor> {
    let weights = Tensor::arange(output.numel() as i64, CPU).sin().view_as(output);
    Tensor::run_backward(&[(output * weights).sum(Kind::Float)], inputs, false, false)
}

fn leaf(shape: &[i64]) -> Tensor {
    Tensor::randn(shape, CPU).set_requires_grad(true)
}

/// Channels innermost, five dimensions, frozen weights, and bf16 beside what is trained in float32.
fn nodes_as_they_are_used() {
    let (x, weight, bias) = (leaf(&[3, 8, 7, 5]), Tensor::randn([6, 8, 3, 3], CPU), Tensor::randn([6], CPU));
    // As `proj_out` of a spatial transformer gives a picture on.
    let inner = x.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2]);
    assert_ne!(inner.stride(), x.stride());
    for stride in [1, 2] {
        let ours = frozen_conv2d(&inner, &weight, &bias, stride, 1);
        let plain = inner.conv2d(&weight, Some(&bias), [stride; 2], [1, 1], [1, 1], 1);
        assert!(ours.equal(&plain) && ours.stride() == plain.stride());
        assert_close("channels innermost", &slopes(&ours, &[&x])[0], &slopes(&plain, &[&x])[0], 1e-6);
    }
    let clip = leaf(&[2, 8, 3, 4, 5]);
    let (scale, shift) = (Tensor::randn([8], CPU), Tensor::randn([8], CPU));
    for x in [&clip, &inner] {
        let ours = group_norm_silu(x, &scale, &shift, 4, 1e-5);
        let plain = x.group_norm(4, Some(&scale), Some(&shift), 1e-5, true).silu();
        assert!(ours.equal(&plain), "{:?}", x.size());
        assert_close("frozen norm", &slopes(&ours, &[x])[0], &slopes(&plain, &[x])[0], 1e-6);
    }
    let (half, both) = (x.to_kind(Kind::BFloat16), leaf(&[4, 6]));
    let half_weights = [weight.to_kind(Kind::BFloat16), bias.to_kind(Kind::BFloat16)];
    let ours = frozen_conv2d(&half, &half_weights[0], &half_weights[1], 1, 1);
    let plain = half.conv2d(&half_weights[0], Some(&half_weights[1]), [1, 1], [1, 1], [1, 1], 1);
    assert!(ours.equal(&plain) && ours.kind() == Kind::BFloat16);
    assert_close("bf16", &slopes(&ours, &[&x])[0], &slopes(&plain, &[&x])[0], 1e-2);
    let halves = both.to_kind(Kind::BFloat16);
    let parts = halves.chunk(2, -1);
    let (ours, plain) = (geglu(&halves), &parts[0] * parts[1].gelu("none"));
    assert_eq!(ours.kind(), Kind::BFloat16);
    assert_close("gate in bf16", &ours.to_kind(Kind::Float), &plain.to_kind(Kind::Float), 1e-2);
    assert_close("its gradient", &slopes(&ours, &[&both])[0], &slopes(&plain, &[&both])[0], 1e-2);
}

#[test]
fn nodes_that_keep_less_are_those_of_libtorch() {
    let _generator = global_generator();
    tch::manual_seed(5);
    let (x, weight, bias) = (leaf(&[3, 8, 7, 5]), Tensor::randn([6, 8, 3, 3], CPU), Tensor::randn([6], CPU));
    for stride in [1, 2] {
        let (ours, plain) = (
            frozen_conv2d(&x, &weight, &bias, stride, 1),
            x.conv2d(&weight, Some(&bias), [stride; 2], [1, 1], [1, 1], 1),
        );
        assert!(ours.equal(&plain));
        assert_close("convolution", &slopes(&ours, &[&x])[0], &slopes(&plain, &[&x])[0], 1e-6);
    }
    let (scale, shift) = (leaf(&[8]), leaf(&[8]));
    let plain = x.group_norm(4, Some(&scale), Some(&shift), 1e-5, true).silu();
    let ours = group_norm_silu(&x, &scale, &shift, 4, 1e-5);
    assert!(ours.equal(&plain));
    let inputs = [&x, &scale, &shift];
    for (got, want) in slopes(&ours, &inputs).iter().zip(slopes(&plain, &inputs)) {
        assert_close("norm", got, &want, 1e-6);
    }
    nodes_as_they_are_used();
    let both = leaf(&[4, 6]);
    let halves = both.chunk(2, -1);
    let (ours, plain) = (geglu(&both), &halves[0] * halves[1].gelu("none"));
    assert_close("gate", &ours, &plain, 1e-6);
    assert_close("gate", &slopes(&ours, &[&both])[0], &slopes(&plain, &[&both])[0], 1e-6);
}
