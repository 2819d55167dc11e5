//! Loss scaling for float16, whose smallest numbers gradients fall below: PyTorch's `GradScaler`.

/// The scale before anything is known.
const START: f64 = 65_536.0;
/// Updates without an overflow after which the scale is doubled.
const GROWTH_INTERVAL: i64 = 2000;

/// What the loss is multiplied by before the backward pass, so that its gradients can be told from zero.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LossScaler {
    scale: f64,
    /// Updates since the scale was last changed.
    since: i64,
}

impl Default for LossScaler {
    fn default() -> LossScaler {
        LossScaler { scale: START, since: 0 }
    }
}

impl LossScaler {
    /// As it was saved: the scale and the updates since it was changed.
    pub fn from_state(scale: f64, since: i64) -> LossScaler {
        LossScaler { scale, since }
    }

    /// What to multiply the loss by.
    pub fn scale(&self) -> f64 {
        self.scale
    }

    /// Updates since the scale was last changed.
    pub fn since(&self) -> i64 {
        self.since
    }

    /// Whether an overflow may be the scale's fault: below 1, it is not.
    pub fn may_overflow(&self) -> bool {
        self.scale >= 1.0
    }

    /// Learns from the loss and the gradient norm of an update: halves the scale after an overflow of the gradients, and doubles it
    /// after many updates without one. A loss that is not finite teaches nothing, as it was so before it was scaled.
    pub fn learn(&mut self, loss: f64, grad_norm: f64) {
        if !loss.is_finite() {
            return;
        }
        if !grad_norm.is_finite() {
            *self = LossScaler { scale: self.scale / 2.0, since: 0 };
            return;
        }
        self.since += 1;
        if self.since == GROWTH_INTERVAL {
            *self = LossScaler { scale: self.scale * 2.0, since: 0 };
        }
    }
}
