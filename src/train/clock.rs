//! Where the time of a run goes.

use std::time::{Duration, Instant};

/// How fast a run goes.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Clips per second, since the start.
    pub clips_per_second: f64,
    /// Time left at this pace.
    pub left: Duration,
    /// Share of the time spent waiting for data.
    pub waiting: f64,
    /// Share of the time that checkpoints kept the updates waiting.
    pub saving: f64,
}

/// Counts from its start.
pub(super) struct Clock {
    start: Instant,
    pub(super) waited: Duration,
    saved: Duration,
}

impl Clock {
    pub(super) fn start() -> Clock {
        Clock { start: Instant::now(), waited: Duration::ZERO, saved: Duration::ZERO }
    }

    /// Counts `work` as waiting for data.
    pub(super) fn wait<T>(&mut self, work: impl FnOnce() -> T) -> T {
        timed(&mut self.waited, work)
    }

    /// Counts `work` as waiting for a save.
    pub(super) fn save<T>(&mut self, work: impl FnOnce() -> T) -> T {
        timed(&mut self.saved, work)
    }

    pub(super) fn pace(&self, clips: usize, steps_left: i64, clips_per_step: usize) -> Pace {
        let elapsed = self.start.elapsed().as_secs_f64();
        let clips_per_second = clips as f64 / elapsed;
        let left = (steps_left as f64 * clips_per_step as f64 / clips_per_second).min(1e9);
        let share = |time: Duration| time.as_secs_f64() / elapsed;
        let (waiting, saving) = (share(self.waited), share(self.saved));
        Pace { clips_per_second, left: Duration::from_secs_f64(left), waiting, saving }
    }
}

fn timed<T>(total: &mut Duration, work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = work();
    *total += start.elapsed();
    result
}
