//! Clips as one picture: a row for each clip, its frames side by side. Lossless, and looked at at a glance.

use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::{clip::Clip, data::decode, frame::Frame};

/// Writes clips of one size and length to a PNG.
pub fn write(path: &Path, clips: &[Clip]) -> Result<()> {
    let first = clips.first().context("there are no clips")?;
    let ((width, height), length) = (first.size()?, first.frames.len());
    let mut sheet = Frame::filled(width * length, height * clips.len(), [0; 3]);
    for (row, clip) in clips.iter().enumerate() {
        ensure!(clip.size()? == (width, height) && clip.frames.len() == length, "the clips differ in size");
        for (column, frame) in clip.frames.iter().enumerate() {
            sheet.paste(frame, column * width, row * height);
        }
    }
    sheet.save_png(path)
}

/// Reads what [`write()`] wrote: clips of `frames` frames, `count` of them.
pub fn read(path: &Path, count: usize, frames: usize, fps: f64) -> Result<Vec<Clip>> {
    let mut pictures = decode::read_all(path)?;
    let sheet = pictures.pop().with_context(|| format!("{}: holds no picture", path.display()))?;
    ensure!(
        count > 0 && frames > 0 && sheet.width % frames == 0 && sheet.height % count == 0,
        "{}: {}x{} pixels are not {count} clips of {frames} frames; remove its folder to repeat the step",
        path.display(),
        sheet.width,
        sheet.height
    );
    let (width, height) = (sheet.width / frames, sheet.height / count);
    let clip = |row: usize| {
        let frames = (0..frames).map(|column| cut(&sheet, (column * width, row * height), (width, height)));
        Clip { frames: frames.collect(), fps }
    };
    Ok((0..count).map(clip).collect())
}

fn cut(sheet: &Frame, (x, y): (usize, usize), (width, height): (usize, usize)) -> Frame {
    let row = |line: usize| &sheet.rgb[3 * ((y + line) * sheet.width + x)..][..3 * width];
    Frame { width, height, rgb: (0..height).flat_map(|line| row(line).to_vec()).collect() }
}
