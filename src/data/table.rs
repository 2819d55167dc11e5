//! Tables of clips: the columns that a CSV may have, and its rows one after another.

use std::fs::File;
use std::path::{Path, PathBuf};

use super::faults::{DataError, fault};

/// An open CSV, read row by row: it may have ten million.
pub(super) struct Table {
    path: PathBuf,
    reader: csv::Reader<File>,
    layout: Layout,
    record: csv::StringRecord,
}

/// Letters of the column names that a message repeats: what is no table at all may go on for megabytes.
const NAMED: usize = 200;

impl Table {
    /// Opens `path` and reads its first line, which has to name the columns of one of the layouts.
    pub fn open(path: &Path) -> Result<Table, DataError> {
        let mut reader = csv::ReaderBuilder::new()
            .buffer_capacity(1 << 18)
            .from_path(path)
            .map_err(|error| csv_fault(path, &error))?;
        let headers = reader.headers().map_err(|error| csv_fault(path, &error))?;
        let layout = Layout::of(headers).ok_or_else(|| {
            let found = headers.iter().collect::<Vec<_>>().join(",");
            let more = if found.chars().count() > NAMED { "…" } else { "" };
            let found = found.chars().take(NAMED).collect::<String>() + more;
            fault(
                path,
                format!(
                    "columns `{found}` found; needed are `videoid,name` (WebVid), or `video,caption`, or `name,contentUrl`: rename them in the first line"
                ),
            )
        })?;
        Ok(Table { path: path.to_path_buf(), reader, layout, record: csv::StringRecord::new() })
    }

    /// Whether its files may also be folders of frames of that name without extension.
    pub fn names_folders(&self) -> bool {
        matches!(self.layout, Layout::Webvid { .. })
    }

    /// Whether its rows are paths, which may be relative to the table's own folder.
    pub fn names_paths(&self) -> bool {
        matches!(self.layout, Layout::Paths { .. })
    }

    /// Path below the root and caption of the next row; `None` after the last.
    pub fn next(&mut self) -> Result<Option<(String, &str)>, DataError> {
        let Table { path, reader, layout, record } = self;
        if !reader.read_record(record).map_err(|error| csv_fault(path, &error))? {
            return Ok(None);
        }
        match layout.file(record) {
            Ok(file) => Ok(Some((file, layout.caption(record)))),
            Err(column) => {
                let line = record.position().map_or(0, csv::Position::line);
                Err(fault(path, format!("line {line}: column `{column}` is empty; fill it or remove the line")))
            }
        }
    }

    /// The error of a table without rows.
    pub fn empty(&self) -> DataError {
        fault(&self.path, "has a first line and no clips after it; add a line for each clip")
    }
}

/// The CSV layouts that are known, by the columns that they need.
#[derive(Clone, Copy)]
enum Layout {
    Webvid { videoid: usize, name: usize },
    Paths { video: usize, caption: usize },
    Addresses { address: usize, name: usize },
}

impl Layout {
    fn of(headers: &csv::StringRecord) -> Option<Layout> {
        let column = |name: &str| headers.iter().position(|header| header.trim() == name);
        match (column("videoid"), column("name"), column("contentUrl"), column("video"), column("caption")) {
            (Some(videoid), Some(name), ..) => Some(Layout::Webvid { videoid, name }),
            (.., Some(video), Some(caption)) => Some(Layout::Paths { video, caption }),
            (_, Some(name), Some(address), ..) => Some(Layout::Addresses { address, name }),
            _ => None,
        }
    }

    /// The file of one row; the name of the column that is empty where there is none.
    fn file(self, row: &csv::StringRecord) -> Result<String, &'static str> {
        let filled = |column, name| Some(field(row, column)).filter(|text| !text.is_empty()).ok_or(name);
        Ok(match self {
            Layout::Webvid { videoid, .. } => format!("{}.mp4", filled(videoid, "videoid")?),
            Layout::Paths { video, .. } => filled(video, "video")?.to_string(),
            Layout::Addresses { address, .. } => {
                let path = filled(address, "contentUrl")?.split(['?', '#']).next().unwrap_or("");
                path.rsplit('/').next().filter(|last| !last.is_empty()).ok_or("contentUrl")?.to_string()
            }
        })
    }

    fn caption(self, row: &csv::StringRecord) -> &str {
        let (Layout::Webvid { name: column, .. }
        | Layout::Paths { caption: column, .. }
        | Layout::Addresses { name: column, .. }) = self;
        field(row, column)
    }
}

fn field(row: &csv::StringRecord, column: usize) -> &str {
    row.get(column).unwrap_or("").trim()
}

fn csv_fault(path: &Path, error: &csv::Error) -> DataError {
    let line = error.position().map_or_else(String::new, |at| format!("line {}: ", at.line()));
    match error.kind() {
        csv::ErrorKind::Io(io) => fault(path, format!("cannot be read ({io}); correct `csv_path`")),
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => fault(
            path,
            format!(
                "{line}{len} fields, and the first line has {expected_len}; put captions with commas into double quotes"
            ),
        ),
        csv::ErrorKind::Utf8 { .. } => fault(path, format!("{line}not UTF-8 text; save the file as UTF-8")),
        _ => fault(path, format!("{line}{error}")),
    }
}
