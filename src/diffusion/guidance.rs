//! Classifier-free guidance (Ho & Salimans 2022).

use tch::Tensor;

/// The guided prediction from one batch of `[unconditional; conditional]` outputs: `u + scale · (c − u)`.
pub fn guided(output: &Tensor, scale: f64) -> Tensor {
    let halves = output.chunk(2, 0);
    &halves[0] + (&halves[1] - &halves[0]) * scale
}
