//! Threads that compute side by side on the same networks.

use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use tch::Tensor;

use super::ffi;

/// What several threads may read at once though it holds tensors, which tch keeps to one thread.
///
/// # Safety
/// Nothing in it may change behind a shared reference but through libtorch, which counts references to tensors atomically
/// and lets any number of threads read them: no `Cell`, no `RefCell`, no `Rc`.
pub unsafe trait Shared {}

// SAFETY: a list of tensors, and nothing else.
unsafe impl Shared for [Tensor] {}

// SAFETY: references to what may be shared.
unsafe impl<A: Shared + ?Sized, B: Shared + ?Sized> Shared for (&A, &B) {}

struct Reader<'a, S: ?Sized>(&'a S);

// SAFETY: what `Shared` promises.
unsafe impl<S: Shared + ?Sized> Send for Reader<'_, S> {}

impl<'a, S: ?Sized> Reader<'a, S> {
    /// A method, so that closures capture the whole and not the reference in it.
    fn get(&self) -> &'a S {
        self.0
    }
}

/// Into how many parts `rows` rows are split for [`side_by_side`]: one for each of libtorch's threads, if there are enough.
pub fn parts(rows: usize) -> usize {
    rows.min(tch::get_num_threads() as usize).max(1)
}

/// `body` of each of `items`, each in a thread of its own; `done` is given the results in the order of the items. The threads
/// share those that libtorch has, evenly.
///
/// `body` may only read the tensors of `shared`, which Rust cannot check: nothing in place, and no `backward()`, which writes
/// gradients; `Tensor::run_backward` with inputs gives them instead.
pub fn side_by_side<S, T, R>(shared: &S, items: Vec<T>, body: impl Fn(&S, T) -> R + Sync, mut done: impl FnMut(R))
where
    S: Shared + ?Sized,
    T: Send,
    R: Send,
{
    let alone = Alone::enter();
    let cores = (alone.threads / items.len().max(1) as i32).max(1);
    let body = &body;
    thread::scope(|scope| {
        let start = |item| {
            let reader = Reader(shared);
            scope.spawn(move || {
                tch::set_num_threads(cores); // the number of all, too: each sets the same
                body(reader.get(), item)
            })
        };
        let threads: Vec<_> = items.into_iter().map(start).collect();
        for thread in threads {
            done(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
    });
}

/// `other` of `shared` in a thread of its own while `here` runs in this one: both results, and how long this one then waited.
///
/// `other` has as many of libtorch's threads as this one has now, whatever `here` makes of their number. What [`side_by_side`] asks of
/// `body` holds for `other`.
pub fn beside<S, A, B>(shared: &S, other: impl FnOnce(&S) -> A + Send, here: impl FnOnce() -> B) -> (B, A, Duration)
where
    S: Shared + ?Sized,
    A: Send,
{
    let (threads, ready) = (tch::get_num_threads(), Barrier::new(2));
    thread::scope(|scope| {
        let (reader, ready) = (Reader(shared), &ready);
        let thread = scope.spawn(move || {
            // libtorch keeps one number for all threads and applies it to each at its first question, over what the thread was given
            // before. So this one asks, then sets its own, before `here` may change the number of all.
            tch::get_num_threads();
            tch::set_num_threads(threads);
            ready.wait();
            other(reader.get())
        });
        ready.wait();
        let here = here();
        let start = Instant::now();
        let other = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        (here, other, start.elapsed())
    })
}

/// As long as it lives, libtorch computes on one thread where it was entered, and OpenMP's helpers are ended: they would spin
/// for a while after their last work, and take cores from threads that compute side by side.
struct Alone {
    threads: i32,
}

impl Alone {
    fn enter() -> Alone {
        let threads = tch::get_num_threads();
        // SAFETY: takes nothing; no parallel region is open in a thread that runs Rust.
        unsafe { ffi::ad_end_helpers() };
        tch::set_num_threads(1);
        Alone { threads }
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        tch::set_num_threads(self.threads);
    }
}
