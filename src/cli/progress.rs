//! Progress bars on a terminal, now and then a line elsewhere.

use std::{
    io::{self, IsTerminal, Write},
    sync::LazyLock,
    time::{Duration, Instant},
};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

static BARS: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);

/// How often a line is printed where there is no terminal.
const QUIET: Duration = Duration::from_secs(10);

/// A bar, or, without a terminal, a line every ten seconds and at the end.
pub struct Progress {
    bar: ProgressBar,
    label: String,
    last_line: Instant,
    terminal: bool,
}

impl Progress {
    /// Of `length` steps, called `label`.
    pub fn new(length: u64, label: impl Into<String>) -> Progress {
        let label = label.into();
        let style =
            ProgressStyle::with_template("{prefix} {wide_bar} {pos}/{len} {msg}").expect("the template is valid");
        let bar = ProgressBar::new(length).with_style(style).with_prefix(label.clone());
        let terminal = io::stderr().is_terminal();
        Progress { bar: if terminal { BARS.add(bar) } else { bar }, label, last_line: Instant::now(), terminal }
    }

    /// At `position`, with a note.
    pub fn at(&mut self, position: u64, note: String) {
        if self.terminal {
            self.bar.set_position(position);
            self.bar.set_message(note);
        } else if self.last_line.elapsed() >= QUIET || Some(position) == self.bar.length() {
            self.last_line = Instant::now();
            eprintln!("{} {position}/{} {note}", self.label, self.bar.length().unwrap_or(0));
        }
    }

    /// Done; the bar goes.
    pub fn finish(self) {
        if self.terminal {
            self.bar.finish_and_clear();
        }
    }
}

/// A line on standard error that does not tear a bar.
pub fn say(line: &str) {
    BARS.suspend(|| eprintln!("{line}"));
}

/// `1:02:03` or `2:03`.
pub fn clock(time: Duration) -> String {
    let seconds = time.as_secs();
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}

/// Where logs are written: whole lines, past the bars.
pub fn writer() -> impl Write {
    Lines
}

struct Lines;

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        BARS.suspend(|| io::stderr().write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}
