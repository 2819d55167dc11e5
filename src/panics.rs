//! Panics as values. libtorch's failures come as panics, in whatever thread it computes: what is said of one is decided where it
//! arrives, not where it happened.

use std::{
    any::Any,
    fmt,
    panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind},
    sync::Mutex,
};

/// The text of the last panic of all threads, and where it was.
static LAST: Mutex<Option<(String, String)>> = Mutex::new(None);

/// A panic that was caught: memory that ran out, or a mistake of ours.
#[derive(Debug, thiserror::Error)]
pub struct Panicked {
    text: String,
    place: Option<String>,
}

impl fmt::Display for Panicked {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        let place = self.place.as_ref().map_or(String::new(), |place| format!(" at {place}"));
        let next = if self.is_lack() {
            "memory ran out: lower the batch size, the frames or the picture size"
        } else {
            "this is a mistake in animatediff; please report it with the command"
        };
        write!(out, "{}{place}\n{next}", self.text)
    }
}

impl Panicked {
    /// What `payload` says.
    pub fn of(payload: &(dyn Any + Send)) -> Panicked {
        let whole = text(payload).unwrap_or("no message");
        let last = LAST.lock().ok().and_then(|last| last.clone());
        let place = last.filter(|(text, _)| text == whole).map(|(_, place)| place);
        Panicked { text: first_line(whole).to_owned(), place }
    }

    /// Its text, without a stack.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether memory ran out.
    pub fn is_lack(&self) -> bool {
        let words =
            ["out of memory", "not enough memory", "can't allocate memory", "_STATUS_ALLOC_FAILED", "std::bad_alloc"];
        words.iter().any(|words| self.text.contains(words))
    }

    /// Whether whoever read the output has seen enough of it.
    pub fn is_broken_pipe(&self) -> bool {
        self.text.contains("failed printing to stdout") && self.text.contains("Broken pipe")
    }
}

/// `body`, with a panic as an error.
///
/// # Errors
/// What it panicked with.
pub fn catch<T>(body: impl FnOnce() -> T) -> Result<T, Panicked> {
    catch_unwind(AssertUnwindSafe(body)).map_err(|payload| Panicked::of(&*payload))
}

/// The text of a panic, if it has one.
pub fn text(payload: &(dyn Any + Send)) -> Option<&str> {
    payload.downcast_ref::<String>().map(String::as_str).or_else(|| payload.downcast_ref::<&str>().copied())
}

/// The program's hook: says nothing, and remembers where the panic was, which its payload does not tell.
pub fn remember(info: &PanicHookInfo) {
    let text = info.payload_as_str().unwrap_or("no message").to_owned();
    let place = info.location().map_or(String::new(), |place| format!("{}:{}", place.file(), place.line()));
    if let Ok(mut last) = LAST.lock() {
        *last = Some((text, place));
    }
}

/// libtorch appends its own C++ stack.
fn first_line(text: &str) -> &str {
    let line = text.lines().next().unwrap_or_default();
    line.split("\\n").next().unwrap_or_default()
}
