//! TensorBoard event files: scalars, pictures, animations and text.
//!
//! Frames are built by tensorboard-rs's `RecordWriter` in memory and then written in one piece to a file of our own, because its
//! `SummaryWriter` ends the process when the disk is full. A record that could not be written whole is cut off again, so that what
//! follows it stays readable.

use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use protobuf::{Message, RepeatedField};
use tensorboard_proto::event::{Event, SessionLog, SessionLog_SessionStatus};
use tensorboard_proto::summary::{Summary, Summary_Image, Summary_Value, SummaryMetadata};
use tensorboard_proto::tensor::TensorProto;
use tensorboard_proto::tensor_shape::{TensorShapeProto, TensorShapeProto_Dim};
use tensorboard_proto::types::DataType;
use tensorboard_rs::record_writer::RecordWriter;

use crate::files::{Written, failed};

const PREFIX: &str = "events.out.tfevents.";
/// TensorBoard's code for RGB; it reads sizes from the header of the picture and only shows this one.
const RGB: i32 = 3;

/// An event file that is open for writing.
#[derive(Debug)]
pub struct Board {
    path: PathBuf,
    file: File,
    /// Bytes that hold whole records.
    length: u64,
}

impl Board {
    /// Starts a new event file in `dir`, which is created. With `purge_step`, TensorBoard drops what earlier files in the folder say
    /// about that step and later ones: a run resumed after step N passes N + 1.
    ///
    /// # Errors
    /// Names the file and why it cannot be created or written.
    pub fn create(dir: &Path, purge_step: Option<i64>) -> Result<Self> {
        fs::create_dir_all(dir).map_err(|e| failed(dir, "create the folder", e))?;
        let path = dir.join(file_name(dir)?);
        let file = File::create_new(&path).map_err(|e| failed(&path, "create", e))?;
        let mut board = Self { path, file, length: 0 };
        let first_step = purge_step.unwrap_or(0);
        let mut version = event(first_step);
        version.set_file_version("brain.Event:2".to_owned());
        board.write(&version)?;
        // In every file: TensorBoard takes the first start it sees for the beginning of the run, and purges only at later ones.
        board.write(&session_start(first_step))?;
        Ok(board)
    }

    /// Where the events go.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// One point of a curve. TensorBoard keeps it as a 32-bit float.
    ///
    /// # Errors
    /// When the file cannot be written; the board stays usable.
    pub fn scalar(&mut self, tag: &str, step: i64, value: f64) -> Result<()> {
        let mut point = Summary_Value::new();
        point.set_simple_value(value as f32);
        self.summary(tag, step, point)
    }

    /// A picture of `width` × `height` pixels, as the bytes of a PNG file.
    ///
    /// # Errors
    /// When the size does not fit the format, or the file cannot be written; the board stays usable.
    pub fn image_png(&mut self, tag: &str, step: i64, png: &[u8], width: u32, height: u32) -> Result<()> {
        self.picture(tag, step, png, width, height)
    }

    /// A moving picture of `width` × `height` pixels, as the bytes of a GIF file: it sits in the slot of a picture, and browsers play it.
    ///
    /// # Errors
    /// As [`Board::image_png`].
    pub fn animation_gif(&mut self, tag: &str, step: i64, gif: &[u8], width: u32, height: u32) -> Result<()> {
        self.picture(tag, step, gif, width, height)
    }

    /// A text, shown as Markdown.
    ///
    /// # Errors
    /// When the file cannot be written; the board stays usable.
    pub fn text(&mut self, tag: &str, step: i64, text: &str) -> Result<()> {
        let mut metadata = SummaryMetadata::new();
        metadata.mut_plugin_data().set_plugin_name("text".to_owned());
        let mut value = Summary_Value::new();
        value.set_metadata(metadata);
        value.set_tensor(string_tensor(text));
        self.summary(tag, step, value)
    }

    /// The file, to be synced by another thread. (Readers see each record at once, without this.)
    ///
    /// # Errors
    /// When the process may open no more files.
    pub(crate) fn written(&self) -> Result<Written> {
        Written::new(&self.path, &self.file)
    }

    fn picture(&mut self, tag: &str, step: i64, encoded: &[u8], width: u32, height: u32) -> Result<()> {
        let side = |pixels: u32| i32::try_from(pixels).with_context(|| format!("{tag}: a side of {pixels} pixels"));
        let mut image = Summary_Image::new();
        image.set_width(side(width)?);
        image.set_height(side(height)?);
        image.set_colorspace(RGB);
        image.set_encoded_image_string(encoded.to_vec());
        let mut value = Summary_Value::new();
        value.set_image(image);
        self.summary(tag, step, value)
    }

    fn summary(&mut self, tag: &str, step: i64, mut value: Summary_Value) -> Result<()> {
        value.set_tag(tag.to_owned());
        let mut summary = Summary::new();
        summary.set_value(RepeatedField::from_vec(vec![value]));
        let mut event = event(step);
        event.set_summary(summary);
        self.write(&event)
    }

    fn write(&mut self, event: &Event) -> Result<()> {
        let mut record = Vec::new();
        RecordWriter::new(&mut record).write(&event.write_to_bytes()?)?;
        if let Err(error) = self.file.write_all(&record) {
            self.cut().map_err(|e| failed(&self.path, "cut off the half-written record", e))?;
            return Err(failed(&self.path, "write", error));
        }
        self.length += record.len() as u64;
        Ok(())
    }

    fn cut(&mut self) -> std::io::Result<()> {
        self.file.set_len(self.length)?;
        self.file.seek(SeekFrom::Start(self.length)).map(drop)
    }
}

fn event(step: i64) -> Event {
    let mut event = Event::new();
    event.set_wall_time(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |t| t.as_secs_f64()));
    event.set_step(step);
    event
}

fn session_start(step: i64) -> Event {
    let mut log = SessionLog::new();
    log.set_status(SessionLog_SessionStatus::START);
    let mut event = event(step);
    event.set_session_log(log);
    event
}

fn string_tensor(text: &str) -> TensorProto {
    let mut one = TensorShapeProto_Dim::new();
    one.set_size(1);
    let mut shape = TensorShapeProto::new();
    shape.set_dim(RepeatedField::from_vec(vec![one]));
    let mut tensor = TensorProto::new();
    tensor.set_dtype(DataType::DT_STRING);
    tensor.set_tensor_shape(shape);
    tensor.set_string_val(RepeatedField::from_vec(vec![text.as_bytes().to_vec()]));
    tensor
}

/// TensorBoard reads the files of a folder in the order of their names, so a later file must carry a later second.
fn file_name(dir: &Path) -> Result<String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_secs());
    let mut second = now;
    for entry in fs::read_dir(dir).map_err(|e| failed(dir, "list the folder", e))? {
        let name = entry.map_err(|e| failed(dir, "list the folder", e))?.file_name();
        let earlier = name.to_string_lossy().strip_prefix(PREFIX).and_then(|rest| rest.split('.').next()?.parse().ok());
        second = second.max(earlier.map_or(0, |earlier: u64| earlier.saturating_add(1)));
    }
    let system = rustix::system::uname();
    let host: String =
        system.nodename().to_string_lossy().chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').collect();
    Ok(format!("{PREFIX}{second:010}.{host}.{}.0", std::process::id()))
}
