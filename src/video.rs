//! Video files, through FFmpeg: bytes in, bytes out.
//!
//! [`Video`] reads exactly the frames it is asked for and [`encode`] writes frames; neither knows anything of tensors,
//! captions or training. Damage is an error here, never a frame that merely looks plausible.
//!
//! Without the cargo feature `ffmpeg` everything here still exists, and answers [`VideoError::NotBuilt`].

use std::path::{Path, PathBuf};

#[cfg(not(feature = "ffmpeg"))]
mod absent;
#[cfg(feature = "ffmpeg")]
mod convert;
#[cfg(feature = "ffmpeg")]
mod demux;
#[cfg(feature = "ffmpeg")]
mod read;
#[cfg(feature = "ffmpeg")]
mod report;
#[cfg(feature = "ffmpeg")]
mod write;

#[cfg(not(feature = "ffmpeg"))]
pub use absent::{Video, encode, ffmpeg_report};
#[cfg(feature = "ffmpeg")]
pub use read::Video;
#[cfg(feature = "ffmpeg")]
pub use report::ffmpeg_report;
#[cfg(feature = "ffmpeg")]
pub use write::encode;

/// File name extensions, in lower case, that are taken for video files.
pub const EXTENSIONS: [&str; 10] = ["mp4", "mkv", "webm", "mov", "avi", "m4v", "ts", "mpg", "mpeg", "gif"];

/// What [`encode`] can write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// H.264, 4:2:0, in MP4. Needs FFmpeg's `libx264`.
    H264,
    /// Animated WebP that loops for ever. Needs FFmpeg's `libwebp_anim`.
    Webp,
}

impl Codec {
    /// FFmpeg's name of the encoder.
    pub fn encoder_name(self) -> &'static str {
        match self {
            Codec::H264 => "libx264",
            Codec::Webp => "libwebp_anim",
        }
    }
}

/// Which FFmpeg this build runs on; what `animatediff doctor` shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FfmpegReport {
    /// Whether the cargo feature `ffmpeg` is on. When it is not, the rest is empty.
    pub built: bool,
    /// Name and version of each FFmpeg library that is loaded, as `("libavcodec", "59.37.100")`.
    pub libraries: Vec<(&'static str, String)>,
    /// Whether the H.264 encoder that `.mp4` files need is there.
    pub libx264: bool,
    /// Whether the encoder that animated `.webp` files need is there.
    pub libwebp_anim: bool,
}

/// Why a video could not be read or written. Every message names the file and the next step.
#[derive(Debug, thiserror::Error)]
pub enum VideoError {
    /// There is no such file.
    #[error("{}: no such file; check the path", path.display())]
    NotFound {
        /// The file that was asked for.
        path: PathBuf,
    },
    /// The file is there and the system refuses to open it.
    #[error("{}: cannot be opened ({reason}); check its permissions", path.display())]
    Unreadable {
        /// The file that was asked for.
        path: PathBuf,
        /// The system's own words.
        reason: String,
    },
    /// FFmpeg finds nothing in the file that it knows as video.
    #[error("{}: not a video that FFmpeg can read ({reason}); look at it with `ffprobe`, or remove it", path.display())]
    NotAVideo {
        /// The file that was asked for.
        path: PathBuf,
        /// FFmpeg's own words.
        reason: String,
    },
    /// There is a video track without a single frame.
    #[error("{}: holds a video track without frames; remove it, or record it again", path.display())]
    NoFrames {
        /// The file that was asked for.
        path: PathBuf,
    },
    /// The file ends before the video does, or its container is damaged.
    #[error("{}: cut off or damaged: {readable} whole frames, then {reason}; copy or download it again", path.display())]
    Truncated {
        /// The file that was asked for.
        path: PathBuf,
        /// Frames before the first damaged one, as far as the container tells.
        readable: usize,
        /// What was wrong.
        reason: String,
    },
    /// A frame does not decode.
    #[error(
        "{}: frame {frame} does not decode ({reason}); check it with `ffmpeg -v error -i FILE -f null -`, or remove it",
        path.display()
    )]
    Decode {
        /// The file that was asked for.
        path: PathBuf,
        /// Display-order index of the frame that was wanted, from 0.
        frame: usize,
        /// FFmpeg's own words.
        reason: String,
    },
    /// The caller asked for a frame behind the last one.
    #[error("{}: frame {frame} was asked for, and there are {frames} (0 to {}); ask for less", path.display(), frames - 1)]
    OutOfRange {
        /// The file that was asked for.
        path: PathBuf,
        /// The index that was asked for.
        frame: usize,
        /// How many frames the file has.
        frames: usize,
    },
    /// The caller's indices go backwards.
    #[error("{}: frame {frame} was asked for after frame {previous}; give the indices in rising order", path.display())]
    Order {
        /// The file that was asked for.
        path: PathBuf,
        /// The index that goes back.
        frame: usize,
        /// The index before it.
        previous: usize,
    },
    /// FFmpeg takes paths as UTF-8 text.
    #[error("{}: FFmpeg takes only paths that are UTF-8 text; rename the file or its folder", path.display())]
    NotUtf8 {
        /// The path, shown with replacement characters.
        path: PathBuf,
    },
    /// 4:2:0 chroma needs even sides.
    #[error(
        "{}: H.264 needs even sides, and the frames are {width}x{height}; choose an even width and height, or write .gif or .webp",
        path.display()
    )]
    OddSize {
        /// The file that was to be written.
        path: PathBuf,
        /// Width in pixels.
        width: usize,
        /// Height in pixels.
        height: usize,
    },
    /// The frames given cannot make a video.
    #[error("{}: {reason}", path.display())]
    BadFrames {
        /// The file that was to be written.
        path: PathBuf,
        /// What is wrong with them.
        reason: String,
    },
    /// FFmpeg was built without the encoder.
    #[error(
        "{}: this FFmpeg has no encoder `{encoder}`; install one that has it (Debian's has), or write .gif or a folder of PNG",
        path.display()
    )]
    NoEncoder {
        /// The file that was to be written.
        path: PathBuf,
        /// FFmpeg's name of the encoder.
        encoder: &'static str,
    },
    /// Encoding or writing failed.
    #[error("{}: cannot be written: {step}: {reason}; check the free space and the folder's permissions", path.display())]
    Write {
        /// The file that was to be written.
        path: PathBuf,
        /// What was being done.
        step: &'static str,
        /// FFmpeg's own words.
        reason: String,
    },
    /// This program was built without FFmpeg.
    #[error(
        "{}: this build has no FFmpeg; rebuild with `--features ffmpeg`, or use folders of PNG frames and .gif",
        path.display()
    )]
    NotBuilt {
        /// The file that was to be read or written.
        path: PathBuf,
    },
}

/// Whether the name of `path` is that of a video file.
pub fn has_video_extension(path: &Path) -> bool {
    let extension = path.extension().and_then(|e| e.to_str()).map(str::to_ascii_lowercase);
    extension.is_some_and(|e| EXTENSIONS.contains(&e.as_str()))
}
