//! Samples as tensors, and back as pictures.

use tch::{Device, Tensor};

use crate::{data::Sample, frame::Frame};

/// The pixels of all frames of all samples, `[B·F, 3, H, W]` in [-1, 1].
pub fn batch(samples: &[Sample], device: Device) -> Tensor {
    let pixels = samples.iter().map(|sample| {
        let shape = [sample.frames, 3, sample.height, sample.width].map(|size| size as i64);
        Tensor::from_slice(&sample.pixels).view(shape)
    });
    Tensor::cat(&pixels.collect::<Vec<_>>(), 0).to_device(device)
}

/// The frames of a sample, back in 8 bits.
pub fn frames(sample: &Sample) -> Vec<Frame> {
    let plane = 3 * sample.height * sample.width;
    sample.pixels.chunks(plane).map(|planes| frame(planes, sample.height, sample.width)).collect()
}

/// One picture from its three planes.
fn frame(planes: &[f32], height: usize, width: usize) -> Frame {
    let plane = height * width;
    let level = |value: f32| ((value / 2.0 + 0.5).clamp(0.0, 1.0) * 255.0).round() as u8;
    let rgb = (0..plane).flat_map(|at| [0, 1, 2].map(|channel| level(planes[channel * plane + at]))).collect();
    Frame { width, height, rgb }
}
