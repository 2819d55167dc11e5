//! Threads that compute side by side on the same networks.

use std::thread;

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

/// As long as it lives, what libtorch computes in this thread it computes alone: its helpers are sent home. They would go on
/// looking for work for a while (libgomp spins some 10 ms), and take cores from threads that are [side by side](side_by_side).
pub struct Alone {
    threads: i32,
}

impl Alone {
    /// From now on.
    pub fn enter() -> Alone {
        let threads = tch::get_num_threads();
        // SAFETY: takes nothing; no parallel region is open in a thread that runs Rust.
        unsafe { ffi::ad_rest() };
        tch::set_num_threads(1);
        Alone { threads }
    }

    /// How many threads libtorch had, and has again afterwards.
    pub fn threads(&self) -> usize {
        self.threads as usize
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        tch::set_num_threads(self.threads);
    }
}

/// `body` of each of `items`, each in a thread of its own; results in the order of the items. They share the threads that
/// libtorch had, evenly; a single item is left to this thread, with all of them.
pub fn side_by_side<S, T, R>(alone: &Alone, shared: &S, items: Vec<T>, body: impl Fn(&S, T) -> R + Sync) -> Vec<R>
where
    S: Shared + ?Sized,
    T: Send,
    R: Send,
{
    if items.len() <= 1 {
        tch::set_num_threads(alone.threads);
        let results = items.into_iter().map(|item| body(shared, item)).collect();
        tch::set_num_threads(1);
        return results;
    }
    let body = &body;
    let cores = (alone.threads / items.len() as i32).max(1);
    thread::scope(|scope| {
        let start = |item| {
            let reader = Reader(shared);
            scope.spawn(move || {
                tch::set_num_threads(cores);
                body(reader.get(), item)
            })
        };
        let threads: Vec<_> = items.into_iter().map(start).collect();
        let finished = threads.into_iter().map(|thread| thread.join());
        finished.map(|result| result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    })
}
