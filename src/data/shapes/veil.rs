//! What stock footage adds to every clip: a watermark across the middle, softness, and the marks of compression.

use std::io::Cursor;

use image::codecs::jpeg::{JpegDecoder, JpegEncoder};
use image::{DynamicImage, ExtendedColorType};

use super::super::Size;
use crate::clip::Clip;
use crate::frame::Frame;

/// How strongly the corpus is marked, from 0 (clean) to 1 (opaque).
pub const STRENGTH: f64 = 0.5;

/// JPEG quality of the frames: visible blocks.
const QUALITY: u8 = 40;

/// The watermark's word, five letters of five by seven cells.
const LETTERS: [[u8; 7]; 5] = [
    [0b01111, 0b10000, 0b10000, 0b01110, 0b00001, 0b00001, 0b11110],
    [0b11111, 0b00100, 0b00100, 0b00100, 0b00100, 0b00100, 0b00100],
    [0b01110, 0b10001, 0b10001, 0b10001, 0b10001, 0b10001, 0b01110],
    [0b01110, 0b10001, 0b10000, 0b10000, 0b10000, 0b10001, 0b01110],
    [0b10001, 0b10010, 0b10100, 0b11000, 0b10100, 0b10010, 0b10001],
];

/// Cells along the picture's shorter side.
const CELLS: f64 = 32.0;

/// The clip as the corpus would show it: marked with `strength` (0 to 1), then softened and compressed.
pub fn veil(clip: &Clip, strength: f64) -> Clip {
    let frame = |frame: &Frame| compressed(&softened(&marked(frame, strength)));
    Clip { frames: clip.frames.iter().map(frame).collect(), fps: clip.fps }
}

/// The watermark of a picture of `size`, row by row: 1 where its letters are (towards white), -1 in their shadow (towards
/// black), 0 elsewhere.
pub fn watermark(size: Size) -> Vec<f64> {
    let cell = size.width.min(size.height) as f64 / CELLS;
    let (left, top) = (size.width as f64 / 2.0 - 14.5 * cell, size.height as f64 / 2.0 - 3.5 * cell);
    let inked = |x: f64, y: f64| {
        let (column, row) = (((x - left) / cell).floor(), ((y - top) / cell).floor());
        let inside = (0.0..29.0).contains(&column) && (0.0..7.0).contains(&row);
        let (column, row) = (column as usize, row as usize);
        inside && column % 6 < 5 && LETTERS[column / 6][row] >> (4 - column % 6) & 1 == 1
    };
    let value = |at: usize| {
        let (x, y) = ((at % size.width) as f64 + 0.5, (at / size.width) as f64 + 0.5);
        if inked(x, y) {
            1.0
        } else if inked(x - cell / 2.0, y - cell / 2.0) {
            -1.0
        } else {
            0.0
        }
    };
    (0..size.width * size.height).map(value).collect()
}

fn marked(frame: &Frame, strength: f64) -> Frame {
    let pattern = watermark(Size { height: frame.height, width: frame.width });
    let blend = |(level, mark): (&u8, f64)| {
        let (level, towards) = (f64::from(*level), if mark > 0.0 { 255.0 } else { 0.0 });
        (level + (towards - level) * mark.abs() * strength).round() as u8
    };
    let rgb = frame.rgb.iter().enumerate().map(|(at, level)| blend((level, pattern[at / 3]))).collect();
    Frame { rgb, ..*frame }
}

/// Blurred by a quarter, a half, a quarter, along both sides.
fn softened(frame: &Frame) -> Frame {
    let (width, height) = (frame.width, frame.height);
    let blurred = |x: usize, y: usize| -> [u8; 3] {
        let (xs, ys) =
            ([x.saturating_sub(1), x, (x + 1).min(width - 1)], [y.saturating_sub(1), y, (y + 1).min(height - 1)]);
        let mut sum = [0u32; 3];
        for (row, down) in ys.iter().zip([1, 2, 1]) {
            for (column, across) in xs.iter().zip([1, 2, 1]) {
                let pixel = frame.pixel(*column, *row);
                (0..3).for_each(|c| sum[c] += down * across * u32::from(pixel[c]));
            }
        }
        sum.map(|total| ((total + 8) / 16) as u8)
    };
    let rgb = (0..height).flat_map(|y| (0..width).flat_map(move |x| blurred(x, y))).collect();
    Frame { width, height, rgb }
}

fn compressed(frame: &Frame) -> Frame {
    let mut bytes = Vec::new();
    JpegEncoder::new_with_quality(&mut bytes, QUALITY)
        .encode(&frame.rgb, frame.width as u32, frame.height as u32, ExtendedColorType::Rgb8)
        .expect("memory takes every JPEG");
    let picture = JpegDecoder::new(Cursor::new(bytes)).and_then(DynamicImage::from_decoder);
    let rgb = picture.expect("what was encoded can be decoded").into_rgb8().into_raw();
    Frame { width: frame.width, height: frame.height, rgb }
}
