//! Kernels of our own beside libtorch's operators, and layers with packed weights beside the same ones without.

use std::collections::BTreeMap;

use animatediff::{
    native::{
        geglu,
        kernels::{self, GroupNormOptions},
    },
    nn::{Attention, Conv2d, Linear, Params, Plan, Source},
};
use tch::{Device, Kind, Tensor};

use crate::support::{global_generator, largest, one_thread};

const KINDS: [(Kind, f64); 2] = [(Kind::Float, 2e-6), (Kind::BFloat16, 8e-3)];

/// Each of `seed` draws the same.
fn random(seed: i64, shape: &[i64], kind: Kind) -> Tensor {
    let _lock = global_generator();
    tch::manual_seed(seed);
    Tensor::randn(shape, (Kind::Float, Device::Cpu)).to_kind(kind)
}

/// Within `tolerance` of the largest magnitude that is wanted.
fn assert_near(what: &str, found: &Tensor, wanted: &Tensor, tolerance: f64) {
    assert_eq!(found.size(), wanted.size(), "{what}");
    let away = largest(&(found.to_kind(Kind::Double) - wanted.to_kind(Kind::Double))) / largest(wanted);
    assert!(away <= tolerance, "{what}: {away:.2e} away, {tolerance:.2e} allowed");
}

#[test]
fn group_norm_is_libtorchs_over_frames_and_over_clips() {
    one_thread();
    for (kind, tolerance) in KINDS {
        // Rows, channels, height, width, groups: lanes that are not full, one large picture in pieces, one of one pixel.
        for (rows, channels, height, width, groups) in [(4, 40, 3, 5, 8), (1, 64, 40, 33, 32), (6, 20, 1, 1, 4)] {
            let x = random(1, &[rows, channels, height, width], kind) * 3.0 + 50.0;
            let x = kernels::with_channels_innermost(&x);
            let (weight, bias) = (random(2, &[channels], Kind::Float), random(3, &[channels], Kind::Float));
            let added = random(4, &[1, channels], kind);
            let sum = &x.to_kind(Kind::Float) + added.to_kind(Kind::Float).view([1, channels, 1, 1]);
            for together in [1, rows] {
                let clips = sum.view([rows / together, together, channels, height, width]).transpose(1, 2).contiguous();
                let wanted = clips.group_norm(groups, Some(&weight), Some(&bias), 1e-5, true).silu();
                let wanted = wanted.transpose(1, 2).reshape(x.size());
                let options =
                    GroupNormOptions { weight: &weight, bias: &bias, groups, eps: 1e-5, together, silu: true };
                assert!(kernels::fits_group_norm(&x));
                let found = kernels::group_norm(&x, Some(&added), options);
                // The mean is 50 times the spread: what is left of float32 is 1e-5.
                assert_near(&format!("{kind:?} {together} of {rows}"), &found, &wanted, tolerance.max(1e-5));
            }
        }
    }
}

#[test]
fn layer_norm_is_libtorchs_plus_the_row_of_the_frame() {
    one_thread();
    for (kind, tolerance) in KINDS {
        let (clips, frames, positions, width) = (2, 3, 5, 40);
        let x = random(1, &[clips * frames, positions, width], kind);
        let (weight, bias) = (random(2, &[width], Kind::Float), random(3, &[width], Kind::Float));
        let table = random(4, &[frames, width], Kind::Float);
        let wanted = x.to_kind(Kind::Float).layer_norm([width], Some(&weight), Some(&bias), 1e-5, true);
        assert_near("alone", &kernels::layer_norm(&x, &weight, &bias, 1e-5, None), &wanted, tolerance);
        let placed = wanted.view([clips, frames, positions, width]) + table.view([1, frames, 1, width]);
        let found = kernels::layer_norm(&x, &weight, &bias, 1e-5, Some(&table));
        assert_near("placed", &found, &placed.view(x.size().as_slice()), tolerance);
    }
}

#[test]
fn products_by_onednn_and_their_gradients_are_libtorchs() {
    one_thread();
    // Few rows and many, for which the weight's gradient goes different ways; rows that lie apart.
    for (rows, apart) in [(7, false), (300, false), (20, true)] {
        let leaf = |seed, shape: &[i64]| random(seed, shape, Kind::Float).set_requires_grad(true);
        let (x, weight, bias) = (leaf(1, &[2, rows, 24]), leaf(2, &[40, 24]), leaf(3, &[40]));
        let seen = if apart { x.transpose(0, 1) } else { x.shallow_clone() };
        let slope = random(4, &[seen.size()[0], seen.size()[1], 40], Kind::Float);
        let wide = |tensor: &Tensor| tensor.to_kind(Kind::Double);
        for bias in [Some(&bias), None] {
            let found = kernels::onednn_linear(&seen, &weight, bias);
            let wanted = wide(&seen).linear(&wide(&weight), bias.map(wide).as_ref());
            assert_near("product", &found, &wanted, 2e-6);
            let inputs: Vec<&Tensor> = [Some(&x), Some(&weight), bias].into_iter().flatten().collect();
            let ours = Tensor::run_backward(&[(&found * &slope).sum(Kind::Float)], &inputs, false, false);
            let plain = Tensor::run_backward(&[(&wanted * wide(&slope)).sum(Kind::Double)], &inputs, false, false);
            for (what, (ours, plain)) in ["rows", "weight", "bias"].iter().zip(ours.iter().zip(&plain)) {
                assert_near(&format!("gradient of the {what}, {rows} rows"), ours, plain, 2e-6);
            }
        }
        let frozen = kernels::onednn_linear(&seen, &weight.detach(), Some(&bias.detach()));
        let ours = Tensor::run_backward(&[(&frozen * &slope).sum(Kind::Float)], &[&x], false, false);
        let plain = seen.linear(&weight.detach(), Some(&bias.detach()));
        let plain = Tensor::run_backward(&[(&plain * &slope).sum(Kind::Float)], &[&x], false, false);
        assert_near("gradient beside a frozen weight", &ours[0], &plain[0], 2e-6);
    }
}

#[test]
fn linear_layers_small_and_large_are_libtorchs() {
    one_thread();
    let weight = random(2, &[64, 256], Kind::Float).set_requires_grad(true);
    // The last two are above the size from which oneDNN may be asked; a trained layer on frozen states, and rows by themselves.
    for shape in [&[3, 5, 256][..], &[256], &[4, 200, 256], &[800, 256]] {
        let x = random(1, shape, Kind::Float);
        // A gradient that does not lie as the output does, and one that is the same for all.
        let slopes = |y: &Tensor| {
            let y = y.view([-1, 64]);
            let loss = (y.transpose(0, 1).contiguous().sin()).sum(Kind::Float) + y.sum(Kind::Float);
            Tensor::run_backward(&[loss], &[&weight], false, false).remove(0)
        };
        let (found, wanted) = (kernels::linear(&x, &weight, None), x.linear(&weight, None::<&Tensor>));
        assert_near("value", &found, &wanted, 2e-6);
        assert_near("gradient of the weight", &slopes(&found), &slopes(&wanted), 1e-5);
        // libtorch's may be changed in place, which a view of a node's output may not.
        let mut found = kernels::linear(&x, &weight, None);
        let _ = found.g_add_scalar_(1.0);
        assert_near("in place", &found, &(wanted + 1.0), 2e-6);
    }
}

#[test]
fn frozen_convolutions_of_few_places_are_libtorchs() {
    one_thread();
    for (kind, tolerance) in KINDS {
        // Kernel, stride, padding, side: as in a residual block, on the way down, in a shortcut.
        for (kernel, stride, padding, side) in [(3, 1, 1, 2), (3, 2, 1, 4), (1, 1, 0, 3), (3, 2, 0, 5)] {
            let (inputs, outputs) = (24, 96);
            let given = Given::new(&[("weight", &[outputs, inputs, kernel, kernel]), ("bias", &[outputs])]);
            let of = |name: &str| given.0[name].to_kind(kind).to_kind(Kind::Float);
            let (weight, bias) = (of("weight"), of("bias"));
            let params = Params::new(given, Plan::frozen(), Device::Cpu, kind);
            let conv = Conv2d::new(&params, inputs, outputs, kernel).stride(stride).padding(padding);
            let x = random(3, &[3, inputs, side, side], kind).set_requires_grad(true);
            let wide = x.detach().to_kind(Kind::Float).set_requires_grad(true);
            let wanted = wide.conv2d(&weight, Some(&bias), [stride; 2], [padding; 2], [1, 1], 1);
            let slope = random(4, &wanted.size(), kind);
            for x in [x.shallow_clone(), kernels::with_channels_innermost(&x)] {
                let found = conv.forward(&x);
                assert_near("value", &found, &wanted, tolerance);
                let loss = |y: &Tensor| (y * slope.to_kind(y.kind())).sum(Kind::Float);
                let ours = Tensor::run_backward(&[loss(&found)], &[&x], false, false).remove(0);
                let plain = Tensor::run_backward(&[loss(&wanted)], &[&wide], true, false).remove(0);
                assert_near("gradient", &ours, &plain, tolerance);
            }
        }
    }
}

#[test]
fn geglu_and_its_gradient_are_those_of_a_product_and_a_gelu() {
    one_thread();
    for (kind, tolerance) in KINDS {
        let x = (random(1, &[7, 3, 2 * 36], kind) * 3.0).set_requires_grad(true);
        let weights = random(2, &[7, 3, 36], kind);
        let plain = |x: &Tensor| {
            let halves = x.chunk(2, -1);
            &halves[0] * halves[1].gelu("none")
        };
        let wide = x.detach().to_kind(Kind::Float).set_requires_grad(true);
        let wanted = plain(&wide);
        let found = geglu(&x);
        assert_near("value", &found, &wanted, tolerance);
        let gradient = |y: &Tensor, x: &Tensor| {
            Tensor::run_backward(&[(y * weights.to_kind(y.kind())).sum(y.kind())], &[x], false, false).remove(0)
        };
        assert_near("gradient", &gradient(&found, &x), &gradient(&wanted, &wide), tolerance);
    }
}

#[test]
fn frames_attend_to_each_other_where_they_lie() {
    one_thread();
    for (kind, tolerance) in KINDS {
        for (clips, frames, positions, heads, width) in
            [(2, 8, 6, 2, 40), (1, 17, 3, 3, 8), (1, 32, 2, 1, 20), (1, 1, 4, 2, 16)]
        {
            let inner = heads * width;
            let qkv = random(1, &[clips * frames, positions, 3 * inner], kind).set_requires_grad(true);
            let weights = random(2, &[clips * frames, positions, inner], kind);
            let wide = qkv.detach().to_kind(Kind::Float).set_requires_grad(true);
            let parts: Vec<Tensor> = wide
                .view([clips, frames, positions, 3, heads, width])
                .permute([3, 0, 2, 4, 1, 5])
                .reshape([3, clips * positions, heads, frames, width])
                .unbind(0);
            let attended = Tensor::scaled_dot_product_attention(
                &parts[0],
                &parts[1],
                &parts[2],
                None::<&Tensor>,
                0.0,
                false,
                None,
                false,
            );
            let wanted = attended.view([clips, positions, heads, frames, width]).permute([0, 3, 1, 2, 4]).reshape([
                clips * frames,
                positions,
                inner,
            ]);
            let found = kernels::attend_frames(&qkv, frames, heads);
            let what = format!("{kind:?}, {frames} frames, heads of {width}");
            assert_near(&what, &found, &wanted, tolerance);
            let gradient = |y: &Tensor, x: &Tensor| {
                Tensor::run_backward(&[(y * weights.to_kind(y.kind())).sum(y.kind())], &[x], false, false).remove(0)
            };
            assert_near(&what, &gradient(&found, &qkv), &gradient(&wanted, &wide), 2.0 * tolerance);
        }
    }
}

/// Tensors by name, drawn when they are asked for.
struct Given(BTreeMap<String, Tensor>);

impl Given {
    fn new(shapes: &[(&str, &[i64])]) -> Given {
        let draw = |(seed, (name, shape)): (usize, &(&str, &[i64]))| {
            let fan = shape[1..].iter().product::<i64>().max(1) as f64;
            ((*name).to_owned(), random(10 + seed as i64, shape, Kind::Float) / fan.sqrt())
        };
        Given(shapes.iter().enumerate().map(draw).collect())
    }
}

impl Source for Given {
    fn take(&mut self, name: &str) -> Option<Tensor> {
        self.0.remove(name)
    }

    fn left(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }

    fn origin(&self, _name: &str) -> Option<String> {
        None
    }
}

/// A layer with its weights as they are in float32, and one with packed weights in `kind`.
fn both<L>(shapes: &[(&str, &[i64])], kind: Kind, new: impl Fn(&Params) -> L) -> [L; 2] {
    [(Plan::frozen(), Kind::Float), (Plan::only_used(), kind)].map(|(plan, kind)| {
        let params = Params::new(Given::new(shapes), plan, Device::Cpu, kind);
        let layer = new(&params);
        let (_, problems) = params.finish();
        assert!(problems.is_empty(), "{problems}");
        layer
    })
}

#[test]
fn packed_layers_compute_what_plain_ones_do() {
    one_thread();
    for (kind, tolerance) in [(Kind::Float, 1e-5), (Kind::BFloat16, 2e-2)] {
        let [plain, packed] =
            both(&[("weight", &[48, 40]), ("bias", &[48])], kind, |params| Linear::new(params, 40, 48));
        let (x, onto) = (random(1, &[2, 5, 40], kind), random(2, &[2, 5, 48], kind));
        let wide = |x: &Tensor| x.to_kind(Kind::Float);
        assert_near("linear", &packed.forward(&x), &plain.forward(&wide(&x)), tolerance);
        let (found, wanted) = (packed.forward_onto(&x, &onto), plain.forward_onto(&wide(&x), &wide(&onto)));
        assert_near("linear onto", &found, &wanted, tolerance);

        let names = ["to_q.weight", "to_k.weight", "to_v.weight", "to_out.0.weight"];
        let mut shapes: Vec<(&str, &[i64])> = names.iter().map(|&name| (name, [32, 32].as_slice())).collect();
        shapes.push(("to_out.0.bias", &[32]));
        let [plain, packed] = both(&shapes, kind, |params| Attention::over_itself(params, 32, 32, 4));
        let x = random(3, &[6, 9, 32], kind);
        let (found, wanted) = (packed.forward_onto(&x, &x), plain.forward_onto(&wide(&x), &wide(&x)));
        assert_near("attention", &found, &wanted, tolerance);
        let (found, wanted) =
            (packed.forward_frames_onto(&x, 3, &x), plain.forward_frames_onto(&wide(&x), 3, &wide(&x)));
        assert_near("attention over frames", &found, &wanted, tolerance);
    }
}

#[test]
fn packed_convolutions_compute_what_plain_ones_do_at_every_size() {
    one_thread();
    for (kind, tolerance) in [(Kind::Float, 1e-5), (Kind::BFloat16, 2e-2)] {
        for (side, kernel, stride) in [(9, 3, 1), (9, 3, 2), (2, 3, 1), (3, 3, 2), (6, 1, 1)] {
            let shapes: [(&str, &[i64]); 2] = [("weight", &[24, 16, kernel, kernel]), ("bias", &[24])];
            let [plain, packed] = both(&shapes, kind, |params| Conv2d::new(params, 16, 24, kernel).stride(stride));
            // The weight is put in order for the first size; others must come out right as well.
            for side in [side, 2 * side + 1, 1] {
                let x = random(1, &[3, 16, side, side], kind);
                let wanted = plain.forward(&x.to_kind(Kind::Float));
                let what = format!("{kind:?} {kernel}×{kernel} by {stride} on {side}");
                assert_near(&what, &packed.forward(&x), &wanted, tolerance);
                let onto = random(2, &wanted.size(), kind);
                let wanted = plain.forward_onto(&x.to_kind(Kind::Float), &onto.to_kind(Kind::Float));
                assert_near(&what, &packed.forward_onto(&x, &onto), &wanted, tolerance);
            }
        }
        let shapes: [(&str, &[i64]); 2] = [("weight", &[24, 16, 3, 3]), ("bias", &[24])];
        for first in [8, 3] {
            let [plain, packed] = both(&shapes, kind, |params| Conv2d::new(params, 16, 24, 3));
            for side in [first, 11] {
                let x = random(1, &[2, 16, side, side], kind);
                let wanted = plain.forward_doubled(&x.to_kind(Kind::Float));
                assert_near("doubled", &packed.forward_doubled(&x), &wanted, tolerance);
                assert_near("whole", &packed.forward(&x), &plain.forward(&x.to_kind(Kind::Float)), tolerance);
            }
        }
    }
}
