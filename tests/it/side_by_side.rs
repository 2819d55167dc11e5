//! Parts of a batch in threads of their own: the same numbers, in the order of the parts.

use animatediff::native::{Alone, add_grads, side_by_side};
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
        let answers = side_by_side(&Alone::enter(), &weights[..], rows.tensor_split(parts, 0), |weights, rows| {
            Tensor::run_backward(&[&loss(weights, &rows)], weights, false, false)
        });
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
fn results_come_in_the_order_of_the_items() {
    let none: [Tensor; 0] = [];
    let squares = side_by_side(&Alone::enter(), &none[..], (0..7).collect(), |_, item: i32| {
        std::thread::sleep(std::time::Duration::from_millis(7 - item as u64));
        item * item
    });
    assert_eq!(squares, [0, 1, 4, 9, 16, 25, 36]);
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
