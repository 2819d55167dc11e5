//! Finished frames: what sampling produces, training previews show and data tools write.

use anyhow::{Result, bail, ensure};

mod gif;
mod png;
mod save;

pub use save::check_target;

use crate::frame::Frame;

/// Pixels between and around the cells of a grid, as torchvision's `make_grid` leaves them.
const PADDING: usize = 2;

/// Frames of one size, shown `fps` times a second.
#[derive(Clone, Debug, PartialEq)]
pub struct Clip {
    /// The frames in the order in which they are shown.
    pub frames: Vec<Frame>,
    /// Frames per second.
    pub fps: f64,
}

impl Clip {
    /// Width and height in pixels. An error if there are no frames, or if they differ in size.
    pub fn size(&self) -> Result<(usize, usize)> {
        let Some(first) = self.frames.first() else { bail!("the clip has no frames") };
        let (width, height) = (first.width, first.height);
        ensure!(width > 0 && height > 0, "the clip's frames have no pixels ({width}x{height})");
        for (index, frame) in self.frames.iter().enumerate() {
            ensure!(
                (frame.width, frame.height, frame.rgb.len()) == (width, height, 3 * width * height),
                "frame {index} of the clip is not {width}x{height} pixels of RGB as frame 0 is"
            );
        }
        Ok((width, height))
    }

    /// Shows `clips` side by side, `columns` to a row, in the layout of torchvision's `make_grid`: black, two pixels around
    /// and between the cells; one single clip stays as it is. Cells are as large as the largest clip, and a clip that ends
    /// early holds its last frame. The rate is the first clip's.
    pub fn grid(clips: &[Clip], columns: usize) -> Clip {
        let fps = clips.first().map_or(8.0, |clip| clip.fps);
        let length = clips.iter().map(|clip| clip.frames.len()).max().unwrap_or(0);
        let at = |moment: usize| -> Vec<Option<&Frame>> {
            clips.iter().map(|clip| clip.frames.get(moment).or(clip.frames.last())).collect()
        };
        Clip { frames: (0..length).map(|moment| tile(&at(moment), columns)).collect(), fps }
    }
}

fn tile(cells: &[Option<&Frame>], columns: usize) -> Frame {
    if let [Some(only)] = cells {
        return (*only).clone();
    }
    let columns = columns.clamp(1, cells.len().max(1));
    let rows = cells.len().div_ceil(columns);
    let present = || cells.iter().flatten();
    let width = present().map(|frame| frame.width).max().unwrap_or(0) + PADDING;
    let height = present().map(|frame| frame.height).max().unwrap_or(0) + PADDING;
    let mut sheet = Frame::filled(columns * width + PADDING, rows * height + PADDING, [0; 3]);
    for (index, cell) in cells.iter().enumerate() {
        if let Some(frame) = cell {
            sheet.paste(frame, (index % columns) * width + PADDING, (index / columns) * height + PADDING);
        }
    }
    sheet
}
