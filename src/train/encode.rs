//! What the frozen networks before the UNet make of clips and captions.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    time::Duration,
};

use tch::{Device, Kind, Tensor, no_grad};

use super::pixels;
use crate::{
    data::{
        Sample,
        cache::{Encoded, Stored},
    },
    model::{clip::TextEncoder, vae::Vae},
    native,
    tokenizer::Tokenizer,
};

/// Pictures that go through the VAE together; the result does not depend on it.
const CHUNK: i64 = 8;

/// Mean and logarithm of the variance, side by side, of the frames of all `samples`: `[B·F, 2·C, h, w]`.
///
/// On the CPU the last bits depend on what goes through together: what has to repeat exactly is encoded clip by clip.
pub fn moments(vae: &Vae, samples: &[Sample], device: Device) -> Tensor {
    let pixels = pixels::batch(samples, device);
    let moments = pixels.split(CHUNK, 0).into_iter().map(|pixels| {
        let posterior = no_grad(|| vae.encode(&pixels));
        Tensor::cat(&[posterior.mean, posterior.logvar], 1)
    });
    plain(Tensor::cat(&moments.collect::<Vec<_>>(), 0))
}

/// The states of `captions`, `[B, L, D]`, with gradients where the encoder is trained.
pub fn states(tokenizer: &Tokenizer, encoder: &TextEncoder, captions: &[&str], device: Device) -> Tensor {
    let ids: Vec<i64> = captions.iter().flat_map(|caption| tokenizer.encode(caption)).collect();
    plain(encoder.forward(&Tensor::from_slice(&ids).view([captions.len() as i64, -1]).to_device(device)))
}

/// In row-major order, as a cache has it: the last bits of what is computed from a tensor depend on its layout, too.
fn plain(tensor: Tensor) -> Tensor {
    tensor.contiguous()
}

/// The frozen networks before the UNet, for a thread that works ahead of the one that trains.
pub struct Encoders {
    tokenizer: Rc<Tokenizer>,
    text_encoder: Rc<TextEncoder>,
    vae: Rc<Vae>,
    device: Device,
}

impl Encoders {
    /// Those on `device`.
    pub fn new(tokenizer: &Rc<Tokenizer>, text_encoder: &Rc<TextEncoder>, vae: &Rc<Vae>, device: Device) -> Encoders {
        Encoders { tokenizer: tokenizer.clone(), text_encoder: text_encoder.clone(), vae: vae.clone(), device }
    }

    /// Fetches clips with `fetch` and encodes them in a thread of its own, while `here` runs in this one. Gives both results,
    /// and how long this thread then waited for the other.
    pub fn beside<A, E: Send>(
        &self,
        fetch: impl FnOnce() -> Result<Option<Vec<Sample>>, E> + Send,
        here: impl FnOnce() -> A,
    ) -> (A, Result<Option<Vec<Sample>>, E>, Duration) {
        let (tokenizer, device) = (&*self.tokenizer, self.device);
        let networks = (&*self.vae, &*self.text_encoder);
        native::beside(
            &networks,
            move |(vae, text_encoder): &(&Vae, &TextEncoder)| {
                Ok(fetch()?.map(|mut samples| {
                    // Memory that runs out here runs out in the update, too, which knows what to say.
                    let work = AssertUnwindSafe(|| encoded(&samples, (tokenizer, text_encoder, vae), device));
                    let found = catch_unwind(work).unwrap_or_default();
                    samples.iter_mut().zip(found).for_each(|(sample, found)| sample.encoded = Some(found));
                    samples
                }))
            },
            here,
        )
    }
}

/// What the networks make of each of `samples`: on the CPU clip by clip, as a run without look-ahead has it.
fn encoded(
    samples: &[Sample],
    (tokenizer, text_encoder, vae): (&Tokenizer, &TextEncoder, &Vae),
    device: Device,
) -> Vec<Encoded> {
    let read = |captions: &[&str]| no_grad(|| states(tokenizer, text_encoder, captions, device));
    let empty = stored(&read(&[""]).squeeze_dim(0));
    let together = if device.is_cuda() { samples.len() } else { 1 };
    let mut all = Vec::with_capacity(samples.len());
    for part in samples.chunks(together.max(1)) {
        let moments = moments(vae, part, device).split(part[0].frames as i64, 0);
        let captions: Vec<&str> = part.iter().map(|sample| sample.caption.as_str()).collect();
        let texts = read(&captions);
        let rows = moments.iter().enumerate();
        all.extend(rows.map(|(row, moments)| Encoded {
            moments: stored(moments),
            states: stored(&texts.get(row as i64)),
            empty: empty.clone(),
        }));
    }
    all
}

/// A tensor as bytes of a cache, in float32.
fn stored(tensor: &Tensor) -> Stored {
    let tensor = tensor.to_device(Device::Cpu).to_kind(Kind::Float).contiguous();
    let mut bytes = vec![0; tensor.numel() * 4];
    tensor.copy_data_u8(&mut bytes, tensor.numel());
    Stored { bytes: bytes.into(), shape: tensor.size(), half: false }
}

/// Bytes of a cache as a tensor in float32.
pub fn tensor(stored: &Stored, device: Device) -> Tensor {
    let kind = if stored.half { Kind::Half } else { Kind::Float };
    Tensor::from_data_size(&stored.bytes, &stored.shape, kind).to_device(device).to_kind(Kind::Float)
}
