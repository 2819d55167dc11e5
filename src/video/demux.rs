//! Opening a container and listing the time stamps of its frames, without decoding any.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Once};

use ffmpeg_next::format::context::StreamIo;
use ffmpeg_next::{Dictionary, Error, Packet, Rational, format, media};

use super::VideoError;

/// Containers that hold video. FFmpeg would also take text for subtitle art and play lists for links to elsewhere.
const CONTAINERS: &str =
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,asf,ogg,gif,h264,hevc,m4v,ivf,nut";

/// What a scan of all packets tells about the video track.
pub(super) struct Track {
    /// Index of the track in its container.
    pub index: usize,
    /// Duration of one tick of a stamp, in seconds.
    pub time_base: Rational,
    /// Mean frames per second.
    pub fps: f64,
    /// Number of frames.
    pub frames: usize,
    /// Display-order time stamps; `None` where the container has none that tell frames apart.
    pub stamps: Option<Stamps>,
}

/// Time stamps of frames, in ticks, rising.
pub(super) struct Stamps {
    /// Every frame.
    pub all: Vec<i64>,
    /// Only the frames at which decoding can start.
    pub keys: Vec<i64>,
}

/// Keeps FFmpeg from printing: what it has to say reaches the caller as errors.
pub(super) fn silence() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // Loads the texts of its errors; nothing in it can fail since FFmpeg 4.
        let _ = ffmpeg_next::init();
        ffmpeg_next::log::set_level(ffmpeg_next::log::Level::Quiet);
    });
}

/// `path` as FFmpeg wants it: text, and marked as a file so that a colon in a name does not select a protocol.
pub(super) fn url(path: &Path) -> Result<String, VideoError> {
    match path.to_str() {
        Some(text) if !text.contains('\0') => Ok(format!("file:{text}")),
        _ => Err(VideoError::NotUtf8 { path: path.to_path_buf() }),
    }
}

/// Where a container's bytes are.
#[derive(Clone)]
pub(super) enum Source {
    /// In a file.
    File(PathBuf),
    /// In memory, and what they are called in messages.
    Memory(PathBuf, Arc<[u8]>),
}

impl Source {
    /// The file, or what stands for one in messages.
    pub fn path(&self) -> &Path {
        match self {
            Source::File(path) | Source::Memory(path, _) => path,
        }
    }

    /// The first bytes: they say plainly why something cannot be opened, before FFmpeg gets to guess.
    fn head(&self) -> Result<[u8; 8], VideoError> {
        let mut head = [0; 8];
        let read = match self {
            Source::File(path) => File::open(path).and_then(|mut file| file.read(&mut head)),
            Source::Memory(_, bytes) => (&**bytes).read(&mut head),
        };
        let path = self.path().to_path_buf();
        match read {
            Ok(0) => Err(VideoError::NotAVideo { path, reason: "the file is empty".into() }),
            Ok(_) => Ok(head),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(VideoError::NotFound { path }),
            Err(error) => Err(VideoError::Unreadable { path, reason: error.to_string() }),
        }
    }

    fn input(&self) -> Result<Result<format::context::Input, Error>, VideoError> {
        let mut options = Dictionary::new();
        options.set("protocol_whitelist", "file");
        options.set("format_whitelist", CONTAINERS);
        Ok(match self {
            Source::File(path) => format::input_with_dictionary(&url(path)?, options),
            Source::Memory(_, bytes) => StreamIo::from_read_seek(io::Cursor::new(Arc::clone(bytes)))
                .and_then(|stream| format::input_from_stream(stream, None, Some(options))),
        })
    }
}

/// Opens the container.
pub(super) fn open(source: &Source) -> Result<format::context::Input, VideoError> {
    silence();
    if let Source::File(path) = source {
        url(path)?;
    }
    let head = source.head()?;
    source.input()?.map_err(|error| {
        let (path, reason) = (source.path().to_path_buf(), error.to_string());
        match &head {
            // An MP4 whose index is at its end opens no more once that end is gone.
            [_, _, _, _, b'f', b't', b'y', b'p', ..] => {
                VideoError::Truncated { path, readable: 0, reason: format!("the index is missing ({reason})") }
            }
            _ => VideoError::NotAVideo { path, reason },
        }
    })
}

/// Reads every packet of the video track once.
pub(super) fn scan(path: &Path, input: &mut format::context::Input) -> Result<Track, VideoError> {
    let stream = input
        .streams()
        .best(media::Type::Video)
        .ok_or_else(|| VideoError::NotAVideo { path: path.to_path_buf(), reason: "it has no video track".into() })?;
    let (index, time_base, declared) = (stream.index(), stream.time_base(), stream.frames());
    let rate = [stream.avg_frame_rate(), stream.rate()].into_iter().map(f64::from).find(|r| r.is_finite() && *r > 0.0);
    let promised = declared > 0 || stream.duration() > 0;
    let packets = packets(path, input, index)?;
    if packets.is_empty() {
        let path = path.to_path_buf();
        return Err(if promised {
            let reason = "none of the frames that it announces is there".into();
            VideoError::Truncated { path, readable: 0, reason }
        } else {
            VideoError::NoFrames { path }
        });
    }
    let stamps = stamps(&packets);
    // Counted rather than believed: headers round (Matroska to 30.3 for 29.97) or hold a guess.
    let fps = stamps.as_ref().and_then(|s| mean_rate(&s.all, time_base)).or(rate).unwrap_or(25.0);
    Ok(Track { index, time_base, fps, frames: packets.len(), stamps })
}

struct Seen {
    stamp: Option<i64>,
    key: bool,
}

/// The displayed packets of track `index`, in file order.
fn packets(path: &Path, input: &mut format::context::Input, index: usize) -> Result<Vec<Seen>, VideoError> {
    let mut seen = Vec::new();
    loop {
        let mut packet = Packet::empty();
        let damage = match packet.read(input) {
            Err(Error::Eof) => return Ok(seen),
            Err(error) => error.to_string(),
            Ok(()) if packet.stream() != index => continue,
            Ok(()) if packet.is_corrupt() => "an incomplete frame".to_string(),
            Ok(()) => {
                if !is_hidden(&packet) {
                    seen.push(Seen { stamp: packet.pts(), key: packet.is_key() });
                }
                continue;
            }
        };
        return Err(VideoError::Truncated { path: path.to_path_buf(), readable: seen.len(), reason: damage });
    }
}

/// Packets that an edit list cuts away are decoded for the sake of others and never shown.
pub(super) fn is_hidden(packet: &Packet) -> bool {
    const DISCARD: i32 = ffmpeg_next::ffi::AV_PKT_FLAG_DISCARD;
    packet.flags().bits() & DISCARD != 0
}

fn stamps(packets: &[Seen]) -> Option<Stamps> {
    let mut all: Vec<i64> = packets.iter().map(|p| p.stamp).collect::<Option<_>>()?;
    all.sort_unstable();
    let distinct = all.windows(2).all(|pair| pair[0] < pair[1]);
    let mut keys: Vec<i64> = packets.iter().filter(|p| p.key).filter_map(|p| p.stamp).collect();
    keys.sort_unstable();
    distinct.then_some(Stamps { all, keys })
}

fn mean_rate(stamps: &[i64], time_base: Rational) -> Option<f64> {
    let span = (stamps.last()? - stamps.first()?) as f64 * f64::from(time_base);
    (span > 0.0).then(|| (stamps.len() - 1) as f64 / span)
}
