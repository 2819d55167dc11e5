//! Which FFmpeg is loaded, and what it can write.

use super::{Codec, FfmpegReport};

/// Library versions, and whether the encoders that [`super::encode`] uses are there.
pub fn ffmpeg_report() -> FfmpegReport {
    super::demux::silence();
    let has = |codec: Codec| ffmpeg_next::encoder::find_by_name(codec.encoder_name()).is_some();
    FfmpegReport {
        built: true,
        libraries: vec![
            ("libavutil", dotted(ffmpeg_next::util::version())),
            ("libavcodec", dotted(ffmpeg_next::codec::version())),
            ("libavformat", dotted(ffmpeg_next::format::version())),
            ("libswscale", dotted(ffmpeg_next::software::scaling::version())),
        ],
        libx264: has(Codec::H264),
        libwebp_anim: has(Codec::Webp),
    }
}

/// FFmpeg packs major, minor and micro version into one number.
fn dotted(version: u32) -> String {
    format!("{}.{}.{}", version >> 16, (version >> 8) & 0xff, version & 0xff)
}
