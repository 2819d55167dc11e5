//! Decodes ahead on several threads; what comes out, and in which order, depends on the seed and the position alone.
//!
//! Each position of the stream is one task. An item that cannot be read is replaced by the first readable one of the
//! positions after it, and the failure is counted when its position is *delivered*, not when a thread happens to find it:
//! so the point at which a run gives up is the same every time, too.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_channel::{Receiver, Sender, unbounded};
use rayon::{ThreadPool, ThreadPoolBuilder};

use super::faults::{DataError, Failure, Faults};
use super::{Cache, Dataset, Sample};

type Outcome = Result<Sample, Failure>;

/// An endless stream of training items.
pub struct Loader {
    shared: Arc<Shared>,
    pool: ThreadPool,
    sender: Sender<(u64, Outcome)>,
    receiver: Receiver<(u64, Outcome)>,
    /// Tasks that were started; `None` until their outcome is here.
    outcomes: HashMap<u64, Option<Outcome>>,
    /// Position of the next item to deliver, and the distance to the one after it.
    next: u64,
    step: u64,
    /// The next position that no task was started for.
    ahead: u64,
    faults: Faults,
}

struct Shared {
    dataset: Arc<Dataset>,
    seed: u64,
    /// Where items come from instead of the clips themselves.
    cache: Option<Arc<Cache>>,
    stopped: AtomicBool,
}

impl Loader {
    /// Starts reading the stream of `seed` at `start_position` on `threads` threads (at least one).
    pub fn new(dataset: Arc<Dataset>, seed: u64, start_position: u64, threads: usize) -> Result<Loader, DataError> {
        Loader::sharded(dataset, seed, start_position, threads, 0, 1)
    }

    /// As [`Loader::new`], for process `rank` of `world`: delivers the positions `start_position + rank`, then every
    /// `world`-th after it. Together the processes deliver each position once, and a global batch holds the same items
    /// whatever `world` is.
    pub fn sharded(
        dataset: Arc<Dataset>,
        seed: u64,
        start_position: u64,
        threads: usize,
        rank: usize,
        world: usize,
    ) -> Result<Loader, DataError> {
        assert!(rank < world, "rank {rank} of {world}");
        let pool = ThreadPoolBuilder::new()
            .num_threads(threads.max(1))
            .thread_name(|index| format!("loader-{index}"))
            .build()
            .map_err(|error| DataError::Threads(error.to_string()))?;
        // No more goes through it than was started: `prefetch` items, and those that a search for a readable one looks at.
        let (sender, receiver) = unbounded();
        let faults = Faults::new(dataset.len());
        let next = start_position + rank as u64;
        let shared = Arc::new(Shared { dataset, seed, cache: None, stopped: AtomicBool::new(false) });
        let outcomes = HashMap::new();
        Ok(Loader { shared, pool, sender, receiver, outcomes, next, step: world as u64, ahead: next, faults })
    }

    /// Takes what the networks made of the clips from `cache`, if there is one, and reads no clip.
    pub fn from_cache(mut self, cache: Option<Arc<Cache>>) -> Loader {
        Arc::get_mut(&mut self.shared).expect("no item was asked for yet").cache = cache;
        self
    }

    /// The next `n` items, waiting for those that are not ready. Fails when too many files cannot be read
    /// (`max_unreadable`, counted from 20 files or the whole set on; or the first 10; or all).
    pub fn next_batch(&mut self, n: usize) -> Result<Vec<Sample>, DataError> {
        (0..n).map(|_| self.next_item()).collect()
    }

    /// Position of the item that comes next.
    pub fn position(&self) -> u64 {
        self.next
    }

    /// What could not be read so far.
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    fn next_item(&mut self) -> Result<Sample, DataError> {
        self.fill_window();
        let position = self.next;
        let mut found = position;
        while !self.readable(found)? {
            found += 1;
        }
        self.next += self.step;
        let sample = if found == position { self.take(found) } else { self.peek(found) };
        // What the search looked at and nobody will ask for again. Later positions of this process stay.
        for passed in position..=found {
            if passed < self.next || !self.is_own(passed) {
                self.outcomes.remove(&passed);
            }
        }
        Ok(Sample { position, ..sample })
    }

    fn is_own(&self, position: u64) -> bool {
        (position - self.next).is_multiple_of(self.step)
    }

    /// Keeps `prefetch` items under way.
    fn fill_window(&mut self) {
        let window = self.shared.dataset.config().prefetch as u64;
        while self.ahead < self.next + window * self.step {
            self.start(self.ahead);
            self.ahead += self.step;
        }
    }

    fn start(&mut self, position: u64) {
        if self.outcomes.contains_key(&position) {
            return;
        }
        self.outcomes.insert(position, None);
        let (shared, sender) = (self.shared.clone(), self.sender.clone());
        self.pool.spawn(move || {
            if !shared.stopped.load(Ordering::Relaxed) {
                // Nobody listens any more when the loader was dropped meanwhile.
                let _ = sender.send((position, shared.decode(position)));
            }
        });
    }

    /// Waits for the item at `position` and counts its file.
    fn readable(&mut self, position: u64) -> Result<bool, DataError> {
        self.start(position);
        while self.outcomes[&position].is_none() {
            let (done, outcome) = self.receiver.recv().expect("the loader itself holds a sender");
            self.outcomes.insert(done, Some(outcome));
        }
        let failure = self.outcomes[&position].as_ref().and_then(|outcome| outcome.as_ref().err());
        let dataset = &self.shared.dataset;
        self.faults.attempt(dataset, dataset.item_at(self.shared.seed, position), failure)?;
        Ok(failure.is_none())
    }

    fn take(&mut self, position: u64) -> Sample {
        self.outcomes.remove(&position).flatten().and_then(Result::ok).expect("was found readable")
    }

    fn peek(&self, position: u64) -> Sample {
        let outcome = self.outcomes[&position].as_ref();
        outcome.and_then(|outcome| outcome.as_ref().ok()).expect("was found readable").clone()
    }
}

impl Shared {
    fn decode(&self, position: u64) -> Outcome {
        match &self.cache {
            Some(cache) => cache.sample(&self.dataset, position),
            None => self.dataset.try_decode(self.seed, position, false),
        }
    }
}

impl Drop for Loader {
    /// Tasks that have not begun do nothing; those that have finish their clip, and nobody waits for them.
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Relaxed);
    }
}
