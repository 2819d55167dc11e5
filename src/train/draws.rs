//! The random numbers of one update. They depend on the seed and the step alone, so that a resumed run draws what the
//! undisturbed one would have, and accumulation, or several processes, draw what one large batch would.

use tch::{Device, Kind, Tensor};

use super::timestep_bias::TimestepBias;
use crate::data::choice;

/// Drawn for all clips of one update together.
#[derive(Debug)]
pub struct Draws {
    /// For the VAE's posterior, `[N, C, F, h, w]`.
    pub posterior: Tensor,
    /// What the network must find, `[N, C, F, h, w]`, independent per frame but for the offset, which shifts a clip as a whole.
    pub noise: Tensor,
    /// One timestep per clip, `[N]` int64.
    pub timesteps: Tensor,
    /// Whose caption is replaced by the empty one.
    pub drop_caption: Vec<bool>,
}

impl Draws {
    /// For the update after `step` updates, clips of latent `shape` `[N, C, F, h, w]`, on a schedule of `timesteps`.
    pub fn new(
        seed: u64,
        step: i64,
        shape: [i64; 5],
        (timesteps, bias): (i64, TimestepBias),
        caption_dropout: f64,
        noise_offset: f64,
    ) -> Draws {
        let mut random = choice::random(seed ^ STREAM, step as u64);
        tch::manual_seed(choice::below(&mut random, u64::MAX) as i64);
        let normal = |shape: [i64; 5]| Tensor::randn(shape, (Kind::Float, Device::Cpu));
        let (posterior, mut noise) = (normal(shape), normal(shape));
        let timesteps = bias.draw(timesteps, shape[0]);
        if noise_offset > 0.0 {
            // Drawn last, so that everything else is what it is without.
            noise += normal([shape[0], shape[1], 1, 1, 1]) * noise_offset;
        }
        Draws {
            posterior,
            noise,
            timesteps,
            drop_caption: (0..shape[0]).map(|_| choice::between(&mut random, 0.0, 1.0) < caption_dropout).collect(),
        }
    }

    /// What is drawn for the clips of process `rank` of `world`, which has every `world`-th of them.
    pub fn dealt(self, rank: usize, world: usize) -> Draws {
        let own = |tensor: &Tensor| tensor.slice(0, rank as i64, None, world as i64);
        Draws {
            posterior: own(&self.posterior),
            noise: own(&self.noise),
            timesteps: own(&self.timesteps),
            drop_caption: self.drop_caption.into_iter().skip(rank).step_by(world).collect(),
        }
    }

    /// The part that belongs to clips `start..start + count`, on `device`.
    pub fn part(&self, start: usize, count: usize, device: Device) -> Draws {
        let narrow = |tensor: &Tensor| tensor.narrow(0, start as i64, count as i64).to_device(device);
        Draws {
            posterior: narrow(&self.posterior),
            noise: narrow(&self.noise),
            timesteps: narrow(&self.timesteps),
            drop_caption: self.drop_caption[start..start + count].to_vec(),
        }
    }
}

/// Keeps these numbers apart from those that choose frames, which have the same seed.
const STREAM: u64 = 0x6472_6177_735f_7631;
