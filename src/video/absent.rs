//! What stands in for FFmpeg in a build without it: the same names, each answering that it is not there.

use std::convert::Infallible;
use std::path::Path;

use super::{Codec, FfmpegReport, VideoError};
use crate::frame::{Frame, Planes};

/// A video file; in this build there can be none.
pub struct Video(Infallible);

impl Video {
    /// Always [`VideoError::NotBuilt`], or [`VideoError::NotFound`] where that is the plainer truth.
    pub fn open(path: &Path) -> Result<Video, VideoError> {
        let path = path.to_path_buf();
        Err(if path.exists() { VideoError::NotBuilt { path } } else { VideoError::NotFound { path } })
    }

    /// Always [`VideoError::NotBuilt`].
    pub fn from_bytes(name: &Path, _bytes: Vec<u8>) -> Result<Video, VideoError> {
        Err(VideoError::NotBuilt { path: name.to_path_buf() })
    }

    /// Number of frames.
    #[allow(clippy::len_without_is_empty, reason = "a video without frames does not open")]
    pub fn len(&self) -> usize {
        match self.0 {}
    }

    /// Mean frames per second.
    pub fn fps(&self) -> f64 {
        match self.0 {}
    }

    /// Width and height in pixels.
    pub fn size(&self) -> (usize, usize) {
        match self.0 {}
    }

    /// The frames at `indices`.
    pub fn read(&mut self, _indices: &[usize]) -> Result<Vec<Frame>, VideoError> {
        match self.0 {}
    }

    /// The planes of the frames at `indices`.
    pub(crate) fn read_planes(
        &mut self,
        _indices: &[usize],
        _take: impl FnMut(&Planes, usize),
    ) -> Result<(), VideoError> {
        match self.0 {}
    }
}

/// Always [`VideoError::NotBuilt`].
pub fn encode(path: &Path, _frames: &[Frame], _fps: f64, _codec: Codec) -> Result<(), VideoError> {
    Err(VideoError::NotBuilt { path: path.to_path_buf() })
}

/// Says that there is no FFmpeg in this build.
pub fn ffmpeg_report() -> FfmpegReport {
    FfmpegReport::default()
}
