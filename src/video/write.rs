//! Encoding frames into a file.

use std::path::{Path, PathBuf};

use ffmpeg_next::format::Pixel;
use ffmpeg_next::{Dictionary, Error, Packet, Rational, codec, color, encoder, format};

use super::convert::Converter;
use super::{Codec, VideoError, demux};
use crate::frame::Frame;

impl Codec {
    fn container(self) -> &'static str {
        match self {
            Codec::H264 => "mp4",
            Codec::Webp => "webp",
        }
    }

    fn layout(self) -> Pixel {
        match self {
            Codec::H264 => Pixel::YUV420P,
            Codec::Webp => Pixel::BGRA,
        }
    }

    /// Near visually lossless: clips are small, and they are judged by eye and used for training.
    fn encoder_options(self) -> Dictionary<'static> {
        let options: &[(&str, &str)] = match self {
            Codec::H264 => &[("preset", "medium"), ("crf", "17"), ("threads", "1")],
            Codec::Webp => &[("quality", "90"), ("compression_level", "4")],
        };
        options.iter().copied().collect()
    }

    fn container_options(self) -> Dictionary<'static> {
        let options: &[(&str, &str)] = match self {
            // The index goes to the front, so that a player can start before it has everything.
            Codec::H264 => &[("movflags", "+faststart")],
            Codec::Webp => &[("loop", "0")],
        };
        options.iter().copied().collect()
    }
}

/// Writes `frames` (packed RGB, all of one size) to `path` at `fps` frames per second.
///
/// The file is written in place; [`crate::clip::Clip::save`] stages it beside its target.
pub fn encode(path: &Path, frames: &[Frame], fps: f64, codec: Codec) -> Result<(), VideoError> {
    demux::silence();
    let (width, height) = check(path, frames, fps, codec)?;
    let mut writer = Writer::create(path, (width, height), fps, codec)?;
    for (index, frame) in frames.iter().enumerate() {
        writer.push(frame, index as i64)?;
    }
    writer.finish()
}

fn check(path: &Path, frames: &[Frame], fps: f64, codec: Codec) -> Result<(u32, u32), VideoError> {
    let bad = |reason: String| Err(VideoError::BadFrames { path: path.to_path_buf(), reason });
    let Some(first) = frames.first() else { return bad("there are no frames to write".into()) };
    let (width, height) = (first.width, first.height);
    if let Some(odd) =
        frames.iter().position(|f| (f.width, f.height, f.rgb.len()) != (width, height, 3 * width * height))
    {
        return bad(format!("frame {odd} is not {width}x{height} pixels of RGB as frame 0 is"));
    }
    if !(fps.is_finite() && (0.01..=1000.0).contains(&fps)) {
        return bad(format!("{fps} frames per second cannot be written; choose 0.01 to 1000"));
    }
    if !(1..=16384).contains(&width) || !(1..=16384).contains(&height) {
        return bad(format!("{width}x{height} pixels cannot be encoded; each side has to be 1 to 16384"));
    }
    if codec == Codec::H264 && (width % 2 == 1 || height % 2 == 1) {
        return Err(VideoError::OddSize { path: path.to_path_buf(), width, height });
    }
    Ok((width as u32, height as u32))
}

struct Writer {
    path: PathBuf,
    codec: Codec,
    output: format::context::Output,
    encoder: encoder::Video,
    /// One frame lasts one tick of this.
    tick: Rational,
    converter: Converter,
}

impl Writer {
    fn create(path: &Path, size: (u32, u32), fps: f64, codec: Codec) -> Result<Writer, VideoError> {
        let url = demux::url(path)?;
        let found = encoder::find_by_name(codec.encoder_name())
            .ok_or_else(|| VideoError::NoEncoder { path: path.to_path_buf(), encoder: codec.encoder_name() })?;
        let step = |step, result| at(path, step, result);
        let mut output = format::output_as(&url, codec.container())
            .map_err(|error| write_error(path, "creating the file", error))?;
        let tick = rate(fps).invert();
        let encoder = step("opening the encoder", open_encoder(&output, found, size, tick, codec))?;
        add_stream(&mut output, &encoder, tick).map_err(|error| write_error(path, "adding the track", error))?;
        let unused = output.write_header_with(codec.container_options()).map(drop);
        unused.map_err(|error| write_error(path, "writing the header", error))?;
        Ok(Writer { path: path.to_path_buf(), codec, output, encoder, tick, converter: Converter::default() })
    }

    fn push(&mut self, frame: &Frame, index: i64) -> Result<(), VideoError> {
        let picture = self.converter.encodable(frame, self.codec.layout());
        let mut picture = at(&self.path, "converting colours", picture)?;
        picture.set_pts(Some(index));
        at(&self.path, "encoding", self.encoder.send_frame(&picture))?;
        self.drain()
    }

    fn drain(&mut self) -> Result<(), VideoError> {
        loop {
            let mut packet = Packet::empty();
            match self.encoder.receive_packet(&mut packet) {
                Ok(()) => {}
                Err(Error::Eof | Error::Other { errno: ffmpeg_next::error::EAGAIN }) => return Ok(()),
                Err(error) => return Err(write_error(&self.path, "encoding", error)),
            }
            packet.set_stream(0);
            // Without a duration the last frame would last no time, and readers would drop it.
            packet.set_duration(1);
            let base = self.output.stream(0).map_or(self.tick, |stream| stream.time_base());
            packet.rescale_ts(self.tick, base);
            at(&self.path, "writing", packet.write_interleaved(&mut self.output))?;
        }
    }

    fn finish(mut self) -> Result<(), VideoError> {
        at(&self.path, "encoding", self.encoder.send_eof())?;
        self.drain()?;
        at(&self.path, "writing the end", self.output.write_trailer())
    }
}

/// Broadcast rates are thousandths of 1001; other rates are kept to a thousandth of a frame.
fn rate(fps: f64) -> Rational {
    let near = |value: f64| (value - value.round()).abs() < 1e-6 * value;
    if near(fps) {
        Rational(fps.round() as i32, 1)
    } else if near(fps * 1.001) {
        Rational((fps * 1.001).round() as i32 * 1000, 1001)
    } else {
        Rational((fps * 1000.0).round() as i32, 1000).reduce()
    }
}

fn open_encoder(
    output: &format::context::Output,
    found: ffmpeg_next::Codec,
    size: (u32, u32),
    tick: Rational,
    codec: Codec,
) -> Result<encoder::Video, Error> {
    let mut video = codec::Context::new_with_codec(found).encoder().video()?;
    video.set_width(size.0);
    video.set_height(size.1);
    video.set_format(codec.layout());
    video.set_time_base(tick);
    video.set_frame_rate(Some(tick.invert()));
    if codec == Codec::H264 {
        // What the scaler makes of RGB, said aloud: players guess BT.709 for large pictures.
        video.set_colorspace(color::Space::SMPTE170M);
        video.set_color_range(color::Range::MPEG);
    }
    // Each key frame is a place to start from, as readers that jump expect.
    let mut flags = codec::Flags::CLOSED_GOP;
    flags.set(codec::Flags::GLOBAL_HEADER, output.format().flags().contains(format::Flags::GLOBAL_HEADER));
    video.set_flags(flags);
    video.open_with(codec.encoder_options())
}

fn add_stream(output: &mut format::context::Output, encoder: &encoder::Video, tick: Rational) -> Result<(), Error> {
    let mut stream = output.add_stream_with(encoder)?;
    stream.set_time_base(tick);
    stream.set_avg_frame_rate(tick.invert());
    Ok(())
}

fn at<T>(path: &Path, step: &'static str, result: Result<T, Error>) -> Result<T, VideoError> {
    result.map_err(|error| write_error(path, step, error))
}

fn write_error(path: &Path, step: &'static str, error: Error) -> VideoError {
    VideoError::Write { path: path.to_path_buf(), step, reason: error.to_string() }
}
