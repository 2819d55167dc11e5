//! Parts of a batch in threads of their own: the same numbers, in the order of the parts.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Barrier,
};

use animatediff::native::{add_grads, beside, parts, side_by_side};
use tch::{Device, Kind, Tensor};

use crate::support::{assert_close, global_generator};

const CPU: (Kind, Device) = (Kind::Float, Device::Cpu);

#[test]
fn gradients_of_parts_add_up_to_those_of_the_batch() {
    let _generator = global_generator();
    tch::manual_seed(1);
    let weights: Vec<Tensor> = (0..2).map(|_| Tensor::randn([8, 8], CPU).set_requires_grad(true)).collect();
    let rows = Tensor::randn([5, 8], CPU);
    let loss = |weights: &[Tensor], rows: &Tensor| {
        rows.matmul(&weights[0]).tanh().matmul(&weights[1]).square().sum(Kind::Float)
    };
    let whole = Tensor::run_backward(&[&loss(&weights, &rows)], &weights, false, false);
    for parts in 1..=5 {
        let mut answers = Vec::new();
        let backward = |weights: &[Tensor], rows| Tensor::run_backward(&[&loss(weights, &rows)], weights, false, false);
        side_by_side(&weights[..], rows.tensor_split(parts, 0), backward, |grads| answers.push(grads));
        assert_eq!(answers.len(), parts as usize);
        let mut weights: Vec<Tensor> = weights.iter().map(|tensor| tensor.detach().set_requires_grad(true)).collect();
        weights.iter_mut().for_each(Tensor::zero_grad);
        answers.iter().for_each(|grads| add_grads(&weights, grads));
        for (weight, whole) in weights.iter().zip(&whole) {
            assert_close(&format!("{parts} parts"), &weight.grad(), whole, 1e-6);
        }
    }
}

#[test]
fn all_run_at_once_and_results_come_in_the_order_of_the_items() {
    let _generator = global_generator();
    let threads = tch::get_num_threads();
    let none: [Tensor; 0] = [];
    let all = Barrier::new(7);
    let square = |_: &[Tensor], item: i32| {
        all.wait();
        std::thread::sleep(std::time::Duration::from_millis(7 - item as u64));
        item * item
    };
    let mut squares = Vec::new();
    side_by_side(&none[..], (0..7).collect(), square, |result| squares.push(result));
    assert_eq!(squares, [0, 1, 4, 9, 16, 25, 36]);
    let panics = |_: &[Tensor], _: i32| panic!("as the test wants it");
    let caught = catch_unwind(AssertUnwindSafe(|| side_by_side(&none[..], vec![1, 2], panics, |()| ())));
    assert!(caught.is_err());
    assert_eq!(tch::get_num_threads(), threads, "libtorch has its threads back, after a panic too");
    assert!(parts(0) == 1 && parts(1) == 1 && parts(1000) == threads as usize);
}

#[test]
fn what_runs_beside_has_the_threads_that_were_there_when_it_began() {
    let _generator = global_generator();
    let (threads, none) = (tch::get_num_threads(), [] as [Tensor; 0]);
    tch::set_num_threads(3);
    let changed = Barrier::new(2);
    let here = || {
        tch::set_num_threads(1);
        changed.wait();
    };
    let other = |_: &[Tensor]| {
        changed.wait();
        tch::get_num_threads()
    };
    let ((), found, _) = beside(&none[..], other, here);
    tch::set_num_threads(threads);
    assert_eq!(found, 3);
}

#[test]
fn an_undefined_gradient_is_none() {
    let weight = Tensor::zeros([2], CPU).set_requires_grad(true);
    add_grads(std::slice::from_ref(&weight), &[Tensor::new()]);
    assert!(!weight.grad().defined());
    for _ in 0..2 {
        add_grads(std::slice::from_ref(&weight), &[Tensor::ones([2], CPU)]);
    }
    assert_eq!(Vec::<f32>::try_from(weight.grad()).unwrap(), [2.0, 2.0]);
}
