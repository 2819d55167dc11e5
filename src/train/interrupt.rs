//! SIGINT, SIGTERM and SIGUSR1 as values that the training loop asks for between steps.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use signal_hook::SigId;
use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};

/// A request to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// SIGINT: Ctrl-C.
    Int,
    /// SIGTERM: a cluster or a service manager.
    Term,
}

impl Signal {
    /// Its number, as the operating system counts.
    pub fn number(self) -> i64 {
        match self {
            Signal::Int => SIGINT.into(),
            Signal::Term => SIGTERM.into(),
        }
    }

    /// The signal of this number, if it is one of these.
    pub fn from_number(number: i64) -> Option<Signal> {
        [Signal::Int, Signal::Term].into_iter().find(|signal| signal.number() == number)
    }

    /// What the program exits with after it has stopped in order: 128 plus the signal's number.
    pub fn exit_code(self) -> i32 {
        128 + self.number() as i32
    }
}

/// The handlers. The first signal only sets a flag; SIGINT after it ends the process at once, with 130.
///
/// When this is dropped, both signals do nothing any more until the next [`Interrupt::install`].
#[derive(Debug)]
pub struct Interrupt {
    received: Arc<AtomicUsize>,
    handlers: Vec<SigId>,
}

impl Interrupt {
    /// Installs the handlers.
    ///
    /// # Errors
    /// When the operating system refuses.
    pub fn install() -> io::Result<Self> {
        let received = Arc::new(AtomicUsize::new(0));
        let armed = Arc::new(AtomicBool::new(false));
        // In this order: the exit looks at `armed` before the same signal arms it.
        let handlers = vec![
            signal_hook::flag::register_conditional_shutdown(SIGINT, Signal::Int.exit_code(), Arc::clone(&armed))?,
            signal_hook::flag::register(SIGINT, Arc::clone(&armed))?,
            signal_hook::flag::register(SIGTERM, armed)?,
            signal_hook::flag::register_usize(SIGINT, Arc::clone(&received), SIGINT as usize)?,
            signal_hook::flag::register_usize(SIGTERM, Arc::clone(&received), SIGTERM as usize)?,
        ];
        Ok(Self { received, handlers })
    }

    /// The signal that came, the latest if there were several; `None` while there was none.
    pub fn requested(&self) -> Option<Signal> {
        Signal::from_number(self.received.load(Ordering::Relaxed) as i64)
    }
}

impl Drop for Interrupt {
    fn drop(&mut self) {
        for handler in self.handlers.drain(..) {
            signal_hook::low_level::unregister(handler);
        }
    }
}

/// SIGUSR1: a wish for a checkpoint, after which training goes on. Without this, the signal ends the process.
#[derive(Debug)]
pub struct SaveRequests {
    asked: Arc<AtomicBool>,
    handler: SigId,
}

impl SaveRequests {
    /// Installs the handler.
    ///
    /// # Errors
    /// When the operating system refuses.
    pub fn install() -> io::Result<Self> {
        let asked = Arc::new(AtomicBool::new(false));
        let handler = signal_hook::flag::register(SIGUSR1, Arc::clone(&asked))?;
        Ok(Self { asked, handler })
    }

    /// Whether the signal came since this was last asked.
    pub fn take(&self) -> bool {
        self.asked.swap(false, Ordering::Relaxed)
    }
}

impl Drop for SaveRequests {
    fn drop(&mut self) {
        signal_hook::low_level::unregister(self.handler);
    }
}
