//! Still pictures.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::save::staged;
use crate::frame::Frame;

impl Frame {
    /// Writes the frame as a PNG; it appears under `path` only when it is complete.
    pub fn save_png(&self, path: &Path) -> Result<()> {
        staged(path, |partial| self.write_png(partial))
    }

    pub(super) fn write_png(&self, path: &Path) -> Result<()> {
        self.encode_png(path).with_context(|| format!("cannot write {}", path.display()))
    }

    fn encode_png(&self, path: &Path) -> Result<()> {
        ensure!(self.rgb.len() == 3 * self.width * self.height, "the frame's bytes do not match its size");
        let mut file = BufWriter::new(File::create(path)?);
        let mut encoder = ::png::Encoder::new(&mut file, u32::try_from(self.width)?, u32::try_from(self.height)?);
        encoder.set_color(::png::ColorType::Rgb);
        encoder.set_depth(::png::BitDepth::Eight);
        let mut writer = encoder.write_header()?;
        writer.write_image_data(&self.rgb)?;
        writer.finish()?;
        Ok(file.flush()?)
    }
}
