//! What a download tells whoever started the program.
//!
//! Nothing is printed here: the command line sets one function for the process, which draws what it likes.

use std::sync::OnceLock;

/// A step of a download. After a break `Begin` comes again for the same file; each `Begin` is followed by one `End`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress<'a> {
    /// Another process downloads this file; it is waited for.
    Wait {
        /// Path in the repository.
        file: &'a str,
    },
    /// A transfer starts.
    Begin {
        /// Path in the repository.
        file: &'a str,
        /// Size of the whole file.
        bytes: u64,
        /// Bytes of it that are here already and are not sent again.
        resumed: u64,
    },
    /// So many bytes more have arrived.
    Advance(u64),
    /// The transfer is over, whether or not it was complete.
    End,
}

static REPORT: OnceLock<fn(Progress<'_>)> = OnceLock::new();

/// Sets the function that is told about downloads in this process. The first call counts; without one, nobody is told.
pub fn on_progress(report: fn(Progress<'_>)) {
    let _ = REPORT.set(report);
}

pub(super) fn report(step: Progress<'_>) {
    if let Some(report) = REPORT.get() {
        report(step);
    }
}

/// Reports a transfer from `Begin` to `End`, also where it is left early.
pub(super) struct Transfer;

impl Transfer {
    pub(super) fn begin(file: &str, bytes: u64, resumed: u64) -> Self {
        report(Progress::Begin { file, bytes, resumed });
        Self
    }

    pub(super) fn advance(&self, bytes: u64) {
        report(Progress::Advance(bytes));
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        report(Progress::End);
    }
}
