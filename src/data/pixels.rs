//! From frames to the numbers a model sees.

use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};

use super::Size;
use crate::clip::Frame;

/// Brings frames to `size`, in the official order: mirror (if `flip`), resize until both sides are covered, crop the
/// middle, and map 0..=255 to -1..=1. Returns `[F,3,H,W]`, row-major.
///
/// For squares this is torchvision's `Resize` of the shorter side (bilinear, antialiased, in floating point) and
/// `CenterCrop`; for other shapes the frame is scaled by the larger of both ratios, which leaves no side uncovered.
pub fn pixels(frames: &[Frame], size: Size, flip: bool) -> Vec<f32> {
    let mut resizer = Resizer::new();
    let mut pixels = Vec::with_capacity(frames.len() * 3 * size.height * size.width);
    for frame in frames {
        let (covered, float) = cover(&mut resizer, frame, size, flip);
        crop(&float, covered, size, &mut pixels);
    }
    pixels
}

/// The size that `width` x `height` is scaled to so that it covers `size` and at least one side fits.
pub fn covering(width: usize, height: usize, size: Size) -> Size {
    // Which side binds is decided in whole numbers; the other is cut, as Python's `int` does.
    if size.width * height >= size.height * width {
        let other = (size.width as f64 * height as f64 / width as f64) as usize;
        Size { width: size.width, height: other.max(size.height) }
    } else {
        let other = (size.height as f64 * width as f64 / height as f64) as usize;
        Size { width: other.max(size.width), height: size.height }
    }
}

/// Interleaved floats in 0..=1, scaled to the size that covers `size`.
fn cover(resizer: &mut Resizer, frame: &Frame, size: Size, flip: bool) -> (Size, Vec<f32>) {
    let target = covering(frame.width, frame.height, size);
    let float = to_float(frame, flip);
    if (target.width, target.height) == (frame.width, frame.height) {
        return (target, float);
    }
    let bytes: Vec<u8> = float.iter().flat_map(|value| value.to_ne_bytes()).collect();
    let source = Image::from_vec_u8(frame.width as u32, frame.height as u32, bytes, PixelType::F32x3)
        .expect("the buffer has the size it was made for");
    let mut scaled = Image::new(target.width as u32, target.height as u32, PixelType::F32x3);
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Bilinear)).use_alpha(false);
    resizer.resize(&source, &mut scaled, &options).expect("both images are of one pixel type and not empty");
    let float = scaled.buffer().as_chunks::<4>().0.iter().map(|bytes| f32::from_ne_bytes(*bytes)).collect();
    (target, float)
}

fn to_float(frame: &Frame, flip: bool) -> Vec<f32> {
    let unit = |byte: &u8| f32::from(*byte) / 255.0;
    if !flip {
        return frame.rgb.iter().map(unit).collect();
    }
    let rows = frame.rgb.chunks_exact(3 * frame.width);
    rows.flat_map(|row| row.as_chunks::<3>().0.iter().rev().flatten()).map(unit).collect()
}

/// Appends the middle of an interleaved picture, one plane per colour, in -1..=1.
fn crop(float: &[f32], from: Size, size: Size, pixels: &mut Vec<f32>) {
    let (top, left) = (half_to_even(from.height - size.height), half_to_even(from.width - size.width));
    for channel in 0..3 {
        for y in top..top + size.height {
            let row = &float[3 * (y * from.width + left)..3 * (y * from.width + left + size.width)];
            pixels.extend(row.iter().skip(channel).step_by(3).map(|value| (value - 0.5) / 0.5));
        }
    }
}

/// Half of `value`, rounded as Python's `round` does: a tie goes to the even number.
fn half_to_even(value: usize) -> usize {
    let half = value / 2;
    if value % 4 == 3 { half + 1 } else { half }
}

/// Scales a frame to exactly `size` with the same filter, in bytes. For pictures that are to be shown or filmed.
pub fn resize(frame: &Frame, size: Size) -> Frame {
    let source = ImageRef::new(frame.width as u32, frame.height as u32, &frame.rgb, PixelType::U8x3)
        .expect("a frame has three bytes per pixel");
    let mut scaled = Image::new(size.width as u32, size.height as u32, PixelType::U8x3);
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Bilinear)).use_alpha(false);
    Resizer::new().resize(&source, &mut scaled, &options).expect("both images are of one pixel type and not empty");
    Frame { width: size.width, height: size.height, rgb: scaled.into_vec() }
}
