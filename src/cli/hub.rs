//! Downloads from the Hub, shown as they go on.

use std::cell::RefCell;

use super::progress::{self, say};
use crate::hub::{Progress, on_progress};

/// A download that goes on in this thread.
struct Download {
    shown: progress::Progress,
    bytes: u64,
}

thread_local! {
    static DOWNLOAD: RefCell<Option<Download>> = const { RefCell::new(None) };
}

const MEGABYTE: u64 = 1_000_000;

/// Draws a bar for every download of this process.
pub fn show_downloads() {
    on_progress(report);
}

fn report(step: Progress<'_>) {
    DOWNLOAD.with_borrow_mut(|download| match step {
        Progress::Wait { file } => say(&format!("{file}: another process is downloading it; waiting")),
        Progress::Begin { file, bytes, resumed } => {
            let shown = progress::Progress::new(bytes.div_ceil(MEGABYTE), format!("downloading {file}"));
            *download = Some(Download { shown, bytes: resumed });
        }
        Progress::Advance(bytes) => {
            if let Some(Download { shown, bytes: all }) = download {
                *all += bytes;
                shown.at(all.div_ceil(MEGABYTE), "MB".into());
            }
        }
        Progress::End => {
            if let Some(Download { shown, .. }) = download.take() {
                shown.finish();
            }
        }
    });
}
