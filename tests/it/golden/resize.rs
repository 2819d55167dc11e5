//! Frames to pixels, as torchvision resizes, crops and normalises them.

use std::fs;

use animatediff::{
    data::{Size, pixels},
    frame::Frame,
};
use safetensors::SafeTensors;
use tch::Tensor;

use crate::support::golden_path;

/// Of values from -1 to 1.
const TOLERANCE: f64 = 1e-5;

#[test]
fn frames_are_resized_as_torchvision_does() {
    let bytes = fs::read(golden_path("resize.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut cases = 0;
    for name in file.names() {
        let (case, form) = name.split_once('.').unwrap();
        let Some((height, width)) = form.split_once('x') else { continue };
        let size = Size { height: height.parse().unwrap(), width: width.parse().unwrap() };
        let got = pixels::pixels(&[frame(&file, case)], size, false);
        let want: Vec<f32> =
            file.tensor(name).unwrap().data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        assert_eq!(got.len(), want.len(), "{name}");
        let difference = Tensor::from_slice(&got) - Tensor::from_slice(&want);
        let error = difference.abs().max().double_value(&[]);
        println!("{name}: error {error:.1e} of {TOLERANCE:.0e}");
        assert!(error <= TOLERANCE, "{name}: off by {error:.2e}");
        cases += 1;
    }
    assert_eq!(cases, 8);
}

/// The picture `<case>.in` `[3, H, W]`, as a frame.
fn frame(file: &SafeTensors, case: &str) -> Frame {
    let picture = file.tensor(&format!("{case}.in")).unwrap();
    let [_, height, width] = picture.shape().try_into().unwrap();
    let plane = height * width;
    let rgb = (0..plane).flat_map(|at| [0, 1, 2].map(|channel| picture.data()[channel * plane + at])).collect();
    Frame { width, height, rgb }
}
