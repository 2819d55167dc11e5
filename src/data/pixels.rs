//! From frames to the numbers a model sees.

use fast_image_resize::images::{Image, ImageRef, TypedImage, TypedImageRef};
use fast_image_resize::pixels::F32x3;
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};

use super::Size;
use crate::frame::Frame;

/// Brings frames to `size`, in the official order: mirror (if `flip`), resize until both sides are covered, crop the
/// middle, and map 0..=255 to -1..=1. Returns `[F,3,H,W]`, row-major.
///
/// For squares this is torchvision's `Resize` of the shorter side (bilinear, antialiased, in floating point) and
/// `CenterCrop`; for other shapes the frame is scaled by the larger of both ratios, which leaves no side uncovered.
pub fn pixels(frames: &[Frame], size: Size, flip: bool) -> Vec<f32> {
    let mut resizer = Resizer::new();
    let mut pixels = Vec::with_capacity(frames.len() * 3 * size.height * size.width);
    for frame in frames {
        let target = covering(frame.width, frame.height, size);
        let unit = to_unit(frame, flip);
        let scaled = scale(&mut resizer, frame, unit, target);
        crop(&scaled, target, size, &mut pixels);
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

/// Scales a picture of the size of `frame` to `target`; one that fits already is left untouched.
fn scale(resizer: &mut Resizer, frame: &Frame, unit: Vec<F32x3>, target: Size) -> Vec<F32x3> {
    if (target.width, target.height) == (frame.width, frame.height) {
        return unit;
    }
    let source =
        TypedImageRef::new(frame.width as u32, frame.height as u32, &unit).expect("a frame has three bytes per pixel");
    let mut pixels = vec![F32x3::default(); target.width * target.height];
    let mut scaled = TypedImage::from_pixels_slice(target.width as u32, target.height as u32, &mut pixels)
        .expect("the buffer was made for this size");
    resizer.resize_typed(&source, &mut scaled, &bilinear()).expect("the whole picture is scaled");
    pixels
}

fn bilinear() -> ResizeOptions {
    ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Bilinear)).use_alpha(false)
}

/// Levels of 0..=255 as 0..=1, mirrored if `flip`.
fn to_unit(frame: &Frame, flip: bool) -> Vec<F32x3> {
    let mut pixels: Vec<F32x3> =
        frame.rgb.as_chunks::<3>().0.iter().map(|rgb| F32x3::new(rgb.map(|level| f32::from(level) / 255.0))).collect();
    if flip {
        pixels.chunks_exact_mut(frame.width).for_each(<[F32x3]>::reverse);
    }
    pixels
}

/// Appends the middle of a picture of size `from`, one plane per colour, in -1..=1.
fn crop(picture: &[F32x3], from: Size, size: Size, pixels: &mut Vec<f32>) {
    let (top, left) = (half_to_even(from.height - size.height), half_to_even(from.width - size.width));
    for channel in 0..3 {
        for y in top..top + size.height {
            let row = &picture[y * from.width + left..][..size.width];
            pixels.extend(row.iter().map(|pixel| (pixel.0[channel] - 0.5) / 0.5));
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
    Resizer::new().resize(&source, &mut scaled, &bilinear()).expect("both images are of one pixel type and not empty");
    Frame { width: size.width, height: size.height, rgb: scaled.into_vec() }
}
