//! What the VAE made of clips that were seen before, so that it need not look at them again.

use std::collections::HashMap;

use tch::Tensor;

use crate::data::Sample;

/// Bytes that are kept at most; clips that come when it is full are encoded each time.
const LIMIT: usize = 2 << 30;

/// Moments by the hash of the pixels: nothing can be mistaken for something else, whatever was cropped or mirrored.
#[derive(Debug, Default)]
pub struct LatentCache {
    moments: HashMap<[u8; 32], Tensor>,
    bytes: usize,
}

impl LatentCache {
    /// The moments of `sample`, by `encode` if it is new. Each sample is encoded by itself, so that what it gives does not
    /// depend on what is cached, and a resumed run equals the undisturbed one.
    pub fn get(&mut self, sample: &Sample, encode: impl FnOnce() -> Tensor) -> Tensor {
        let bytes: Vec<u8> = sample.pixels.iter().flat_map(|pixel| pixel.to_le_bytes()).collect();
        let key = *blake3::hash(&bytes).as_bytes();
        if let Some(moments) = self.moments.get(&key) {
            return moments.shallow_clone();
        }
        let moments = encode();
        let size = moments.numel() * 4;
        if self.bytes + size <= LIMIT {
            self.bytes += size;
            self.moments.insert(key, moments.shallow_clone());
        }
        moments
    }
}
