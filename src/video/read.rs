//! Frame-exact reading.

use std::path::{Path, PathBuf};

use ffmpeg_next::{Dictionary, Discard, Error, Packet, codec, decoder, format, frame};

use super::VideoError;
use super::convert::Converter;
use super::demux::{self, Source, Track};
use crate::frame::{Frame, Planes};

/// A jump to a key frame costs about as much as decoding so many frames.
const WORTH_A_SEEK: usize = 8;

/// An open video file.
///
/// The stamps of all frames are known from [`Video::open`] on, so a frame is found by its stamp and never by guessing from
/// the frame rate. Files whose stamps cannot be trusted (none, repeated, or a container that seeks to the wrong place, such
/// as MPEG-TS) are decoded from the start and counted; so is a frame that does not decode from the key frame before it.
/// Rotation and pixel aspect that the file may declare are ignored.
pub struct Video {
    source: Source,
    track: Track,
    size: (usize, usize),
    cursor: Cursor,
    converter: Converter,
    /// Cleared for good once a seek went to the wrong place.
    seeks: bool,
}

impl Video {
    /// Opens `path` and lists its frames, which reads the file once and decodes nothing.
    pub fn open(path: &Path) -> Result<Video, VideoError> {
        Video::of(Source::File(path.to_path_buf()))
    }

    /// As [`Video::open`], of a file that is in memory and is called `name` in messages.
    pub fn from_bytes(name: &Path, bytes: Vec<u8>) -> Result<Video, VideoError> {
        Video::of(Source::Memory(name.to_path_buf(), bytes.into()))
    }

    fn of(source: Source) -> Result<Video, VideoError> {
        let mut input = demux::open(&source)?;
        let track = demux::scan(source.path(), &mut input)?;
        let cursor = match track.stamps {
            Some(_) => Cursor::at_end(&source, input, &track)?,
            None => Cursor::at_start(&source, &track)?,
        };
        let size = (cursor.decoder.width() as usize, cursor.decoder.height() as usize);
        let seeks = track.stamps.is_some();
        Ok(Video { source, track, size, cursor, converter: Converter::default(), seeks })
    }

    /// Number of frames, at least 1.
    #[allow(clippy::len_without_is_empty, reason = "a video without frames does not open")]
    pub fn len(&self) -> usize {
        self.track.frames
    }

    /// Mean frames per second.
    pub fn fps(&self) -> f64 {
        self.track.fps
    }

    /// Width and height in pixels, as the file's header gives them.
    pub fn size(&self) -> (usize, usize) {
        self.size
    }

    /// The frames at the display-order `indices`, which may repeat and must not fall.
    pub fn read(&mut self, indices: &[usize]) -> Result<Vec<Frame>, VideoError> {
        let mut frames: Vec<Frame> = Vec::with_capacity(indices.len());
        self.each(indices, |converter, picture, times| {
            frames.push(converter.rgb(picture)?);
            let last = frames.len() - 1;
            (1..times).for_each(|_| frames.push(frames[last].clone()));
            Ok(())
        })?;
        Ok(frames)
    }

    /// As [`Video::read`], without keeping the frames: `take` gets the planes of each, and how many times it was asked for in a row.
    pub(crate) fn read_planes(
        &mut self,
        indices: &[usize],
        mut take: impl FnMut(&Planes, usize),
    ) -> Result<(), VideoError> {
        self.each(indices, |converter, picture, times| {
            take(&converter.planes(picture)?, times);
            Ok(())
        })
    }

    fn each(
        &mut self,
        indices: &[usize],
        mut take: impl FnMut(&mut Converter, &frame::Video, usize) -> Result<(), Error>,
    ) -> Result<(), VideoError> {
        self.check(indices)?;
        self.expect(indices);
        for run in indices.chunk_by(|a, b| a == b) {
            let index = run[0];
            let picture = self.frame(index)?;
            if is_damaged(&picture) {
                return Err(self.decode_error(index, Error::InvalidData));
            }
            take(&mut self.converter, &picture, run.len()).map_err(|error| self.decode_error(index, error))?;
        }
        Ok(())
    }

    fn check(&self, indices: &[usize]) -> Result<(), VideoError> {
        let path = || self.path();
        if let Some(pair) = indices.windows(2).find(|pair| pair[0] > pair[1]) {
            return Err(VideoError::Order { path: path(), frame: pair[1], previous: pair[0] });
        }
        match indices.last() {
            Some(&frame) if frame >= self.len() => {
                Err(VideoError::OutOfRange { path: path(), frame, frames: self.len() })
            }
            _ => Ok(()),
        }
    }

    /// Tells the cursor which frames are wanted, so that it leaves out others that no frame leans on.
    fn expect(&mut self, indices: &[usize]) {
        let Some(stamps) = &self.track.stamps else { return };
        if !self.seeks || !self.cursor.can_leave_out() {
            return;
        }
        let first = indices.first().map(|index| stamps.all[*index]);
        if first.is_some_and(|first| first <= self.cursor.left_out) {
            self.cursor.next = usize::MAX;
        }
        // Whoever takes frames one by one will ask for the next one, too.
        let one_by_one = matches!(indices, [index] if *index == self.cursor.next);
        let wanted = if one_by_one { &[] } else { indices };
        self.cursor.wanted = wanted.iter().map(|index| stamps.all[*index]).collect();
    }

    fn frame(&mut self, index: usize) -> Result<frame::Video, VideoError> {
        if self.seeks {
            match self.by_stamp(index)? {
                Sought::Found(picture) => return Ok(picture),
                // Other frames may well be read by a jump.
                Sought::Unreadable => {}
                Sought::Elsewhere => {
                    tracing::debug!(path = %self.source.path().display(), "seeking is not exact here; decoding from the start");
                    self.seeks = false;
                }
            }
            self.cursor = Cursor::at_start(&self.source, &self.track)?;
        }
        self.by_counting(index)
    }

    /// Looks for the frame with the stamp of `index`, from the nearest key frame before it.
    fn by_stamp(&mut self, index: usize) -> Result<Sought, VideoError> {
        let Some(stamps) = &self.track.stamps else { return Ok(Sought::Elsewhere) };
        let wanted = stamps.all[index];
        let key = stamps.keys[..stamps.keys.partition_point(|k| *k <= wanted)].last().copied();
        let behind = self.cursor.next > index;
        let far = key.is_some_and(|key| {
            stamps.all.partition_point(|s| *s < key) >= self.cursor.next.saturating_add(WORTH_A_SEEK)
        });
        if behind || far {
            // Without a key frame before it (a video that starts in mid-stream) only the start will do.
            let Some(key) = key else { return Ok(Sought::Elsewhere) };
            if !self.cursor.seek(key, &self.track) {
                return Ok(Sought::Elsewhere);
            }
        }
        loop {
            match self.cursor.next_frame(self.track.index) {
                Ok(Some(picture)) => match picture.timestamp() {
                    Some(stamp) if stamp == wanted => {
                        if self.cursor.jumped() && is_damaged(&picture) {
                            return Ok(Sought::Unreadable);
                        }
                        self.cursor.next = index + 1;
                        return Ok(Sought::Found(picture));
                    }
                    Some(stamp) if stamp < wanted => {}
                    _ => return Ok(Sought::Elsewhere),
                },
                Ok(None) => return Ok(Sought::Elsewhere),
                Err(_) if self.cursor.jumped() => return Ok(Sought::Unreadable),
                Err(error) => return Err(self.decode_error(index, error)),
            }
        }
    }

    /// The frame at `index`, counting from the start of the file.
    fn by_counting(&mut self, index: usize) -> Result<frame::Video, VideoError> {
        if self.cursor.next > index {
            self.cursor = Cursor::at_start(&self.source, &self.track)?;
        }
        loop {
            match self.cursor.next_frame(self.track.index) {
                Ok(Some(picture)) => {
                    self.cursor.next += 1;
                    if self.cursor.next == index + 1 {
                        return Ok(picture);
                    }
                }
                Ok(None) => {
                    let reason = format!("the video ends, though {} frames were listed", self.len());
                    return Err(VideoError::Truncated { path: self.path(), readable: self.cursor.next, reason });
                }
                Err(error) => return Err(self.decode_error(index, error)),
            }
        }
    }

    fn path(&self) -> PathBuf {
        self.source.path().to_path_buf()
    }

    fn decode_error(&mut self, frame: usize, error: Error) -> VideoError {
        // The decoder is in an unknown state: the next read starts anew.
        self.cursor.next = usize::MAX;
        VideoError::Decode { path: self.path(), frame, reason: error.to_string() }
    }
}

/// What a search by stamps came to.
enum Sought {
    /// The frame.
    Found(frame::Video),
    /// It does not decode from the key frame before it. Some encoders mark as key frames what are only recovery points: later
    /// frames still refer to frames before them.
    Unreadable,
    /// It is not where the stamps say.
    Elsewhere,
}

fn is_damaged(picture: &frame::Video) -> bool {
    picture.is_corrupt() || picture.has_decode_errors()
}

/// Where decoding stands.
struct Cursor {
    input: format::context::Input,
    decoder: decoder::Video,
    /// No frame before this index comes any more; `usize::MAX` when only a seek helps.
    next: usize,
    /// Stamp of the key frame that decoding started from. Frames shown before it lean on frames that were not decoded.
    start: i64,
    ended: bool,
    /// Stamps, rising, of the frames that will be asked for; none when all have to be decoded.
    wanted: Vec<i64>,
    /// Stamp of the last frame that was not decoded because nobody wanted it.
    left_out: i64,
}

impl Cursor {
    fn at_start(source: &Source, track: &Track) -> Result<Cursor, VideoError> {
        let cursor = Cursor::at_end(source, demux::open(source)?, track)?;
        Ok(Cursor { next: 0, ..cursor })
    }

    /// Over what was read to its end: the first frame takes a jump.
    fn at_end(source: &Source, input: format::context::Input, track: &Track) -> Result<Cursor, VideoError> {
        let decoder = open_decoder(&input, track)
            .map_err(|error| VideoError::NotAVideo { path: source.path().to_path_buf(), reason: error.to_string() })?;
        let (wanted, left_out) = (Vec::new(), i64::MIN);
        Ok(Cursor { input, decoder, next: usize::MAX, start: i64::MIN, ended: false, wanted, left_out })
    }

    /// Whether decoding began at a key frame that was sought, and not at the start of the file.
    fn jumped(&self) -> bool {
        self.start > i64::MIN
    }

    /// Goes to the key frame with stamp `key`; `false` if the container does not lead there.
    fn seek(&mut self, key: i64, track: &Track) -> bool {
        let base = track.time_base;
        let micros =
            (i128::from(key) * 1_000_000 * i128::from(base.0)).div_euclid(i128::from(base.1.max(1))) as i64 + 1;
        self.decoder.flush();
        (self.next, self.start, self.ended, self.left_out) = (0, key, false, i64::MIN);
        self.input.seek(micros, ..micros).is_ok() && self.starts_at_or_before(key, track)
    }

    /// Takes the first packet after a seek: it has to be a key frame, and not behind the one that was wanted.
    fn starts_at_or_before(&mut self, key: i64, track: &Track) -> bool {
        match self.next_packet(track.index) {
            Ok(Some(packet)) if packet.is_key() && packet.pts().is_some_and(|stamp| stamp <= key) => {
                self.start = packet.pts().unwrap_or(key);
                self.send(&packet).is_ok()
            }
            _ => false,
        }
    }

    fn next_packet(&mut self, index: usize) -> Result<Option<Packet>, Error> {
        loop {
            let mut packet = Packet::empty();
            match packet.read(&mut self.input) {
                Ok(()) if packet.stream() == index => return Ok(Some(packet)),
                Ok(()) => {}
                Err(Error::Eof) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }

    /// The next frame in display order, or `None` at the end.
    fn next_frame(&mut self, index: usize) -> Result<Option<frame::Video>, Error> {
        const AGAIN: Error = Error::Other { errno: ffmpeg_next::error::EAGAIN };
        loop {
            let mut picture = frame::Video::empty();
            match self.decoder.receive_frame(&mut picture) {
                Ok(()) if picture.timestamp().is_some_and(|stamp| stamp < self.start) => {}
                Ok(()) => return Ok(Some(picture)),
                Err(Error::Eof) => return Ok(None),
                Err(AGAIN) if self.ended => return Ok(None),
                Err(AGAIN) => self.feed(index)?,
                Err(error) => return Err(error),
            }
        }
    }

    fn feed(&mut self, index: usize) -> Result<(), Error> {
        let Some(packet) = self.next_packet(index)? else {
            self.ended = true;
            return self.decoder.send_eof();
        };
        match self.send(&packet) {
            Err(_) if packet.pts().is_some_and(|stamp| stamp < self.start) => Ok(()),
            sent => sent,
        }
    }
}

impl Cursor {
    /// Whether frames that no other leans on are told apart by the decoder. Of H.264 that is part of the format, and half of the
    /// frames that an encoder makes are such; in other formats they are few, or what leans on what is less certain.
    fn can_leave_out(&self) -> bool {
        self.decoder.id() == codec::Id::H264
    }

    /// Gives the decoder a packet. A frame that nobody wants is not decoded unless another one may lean on it.
    fn send(&mut self, packet: &Packet) -> Result<(), Error> {
        let unwanted =
            packet.pts().filter(|stamp| !self.wanted.is_empty() && self.wanted.binary_search(stamp).is_err());
        self.decoder.skip_frame(if unwanted.is_some() { Discard::NonReference } else { Discard::Default });
        self.left_out = self.left_out.max(unwanted.unwrap_or(i64::MIN));
        self.decoder.send_packet(packet)
    }
}

/// One thread (many clips are decoded at once), and no concealing of damage.
fn open_decoder(input: &format::context::Input, track: &Track) -> Result<decoder::Video, Error> {
    let parameters = input.stream(track.index).ok_or(Error::StreamNotFound)?.parameters();
    let mut decoder = codec::Context::from_parameters(parameters)?.decoder();
    decoder.set_packet_time_base(track.time_base);
    let codec = decoder::find(decoder.id()).ok_or(Error::DecoderNotFound)?;
    let mut options = Dictionary::new();
    options.set("threads", "1");
    options.set("err_detect", "crccheck+bitstream+buffer+explode");
    decoder.open_as_with(codec, options)?.video()
}
