//! Which timesteps are drawn more often, as in diffusers' training scripts.

use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

/// Which end of the schedule is drawn more often.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Strategy {
    /// None: every timestep is as likely.
    #[default]
    None,
    /// The first timesteps, of little noise: details.
    Earlier,
    /// The last timesteps, of much noise: layout and motion.
    Later,
}

/// How timesteps are drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TimestepBias {
    /// Which end is drawn more often.
    pub strategy: Strategy,
    /// How many times as often.
    pub multiplier: f64,
    /// How large a share of the schedule that end is.
    pub portion: f64,
}

impl TimestepBias {
    /// `count` timesteps of a schedule of `timesteps`, int64, from libtorch's generator.
    pub fn draw(&self, timesteps: i64, count: i64) -> Tensor {
        let favoured = ((self.portion * timesteps as f64).ceil() as i64).clamp(1, timesteps);
        let start = match self.strategy {
            Strategy::None => return Tensor::randint(timesteps, [count], (Kind::Int64, Device::Cpu)),
            Strategy::Earlier => 0,
            Strategy::Later => timesteps - favoured,
        };
        let weights = Tensor::ones([timesteps], (Kind::Double, Device::Cpu));
        let _ = weights.narrow(0, start, favoured).fill_(self.multiplier);
        weights.multinomial(count, true)
    }
}
