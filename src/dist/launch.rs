//! Several processes on this machine: this program again, once for each rank, with the variables that torchrun sets.

use std::{
    env,
    ffi::OsString,
    io,
    os::unix::process::{CommandExt, ExitStatusExt},
    process::{Child, Command, ExitStatus},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow};
use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};
use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};

use crate::native::Store;

/// Set for the processes that are started here: the number of the one that started them.
const LAUNCHER: &str = "ANIMATEDIFF_LAUNCHER";
const HERE: &str = "127.0.0.1";
/// How often the processes are looked at.
const LOOK: Duration = Duration::from_millis(20);
/// How long the others have after one failed, to end by themselves; and then how long after SIGTERM.
const GRACE: Duration = Duration::from_secs(30);
/// For the store, which is on this machine.
const TIMEOUT: Duration = Duration::from_secs(60);

/// What became of the processes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Exit code of rank 0 if it failed, else of the first that did; 0 when none did.
    pub code: u8,
    /// What happened, where that needs to be told.
    pub note: Option<String>,
}

/// Starts this program `world` times with `arguments` and waits for all. SIGINT, SIGTERM and SIGUSR1 are passed on. When one process fails
/// the others are given time to end, too, and then made to.
///
/// # Errors
/// When a process cannot be started.
pub fn launch(world: usize, arguments: &[OsString]) -> Result<Ended> {
    let signals = Forwarded::install().context("signals cannot be handled")?;
    let store = Store::serve(HERE, 0, TIMEOUT).map_err(|reason| anyhow!("no store for {world} processes: {reason}"))?;
    let mut ranks = Ranks { children: Vec::new(), failed: None };
    for rank in 0..world {
        let child = command(rank, world, store.port(), arguments)?.spawn();
        let child = child.with_context(|| format!("rank {rank} of {world} cannot be started"))?;
        ranks.children.push(Some(child));
    }
    while ranks.reap()? {
        signals.each(|signal| ranks.signal(signal));
        if let Some(failed) = &mut ranks.failed
            && failed.since.elapsed() > GRACE * (failed.pressed + 1)
        {
            failed.pressed += 1;
            let signal = if failed.pressed == 1 { Signal::TERM } else { Signal::KILL };
            ranks.signal(signal);
        }
        thread::sleep(LOOK);
    }
    Ok(ranks.failed.take().map_or(Ended { code: 0, note: None }, |failed| failed.ended))
}

/// In a process that [`launch`] started: it ends when that one does.
pub fn follow_launcher() {
    if let Some(launcher) = env::var(LAUNCHER).ok().and_then(|pid| pid.parse().ok()) {
        // Where this is refused, such a process is stopped by hand, as any other.
        let _ = set_parent_process_death_signal(Some(Signal::TERM));
        if rustix::process::getppid().map(Pid::as_raw_pid) != Some(launcher) {
            std::process::exit(143);
        }
    }
}

fn command(rank: usize, world: usize, port: u16, arguments: &[OsString]) -> Result<Command> {
    let mut command = Command::new(env::current_exe().context("this program's own file is not known")?);
    command.args(arguments);
    let number = |number: usize| number.to_string();
    command.envs([("RANK", number(rank)), ("WORLD_SIZE", number(world))]);
    command.envs([("LOCAL_RANK", number(rank)), ("LOCAL_WORLD_SIZE", number(world))]);
    command.envs([("MASTER_ADDR", HERE.to_owned()), ("MASTER_PORT", port.to_string())]);
    // The store is here.
    command.env("TORCHELASTIC_USE_AGENT_STORE", "True").env_remove("TORCHELASTIC_RESTART_COUNT");
    command.env(LAUNCHER, std::process::id().to_string());
    if env::var_os("OMP_NUM_THREADS").is_none() {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        command.env("OMP_NUM_THREADS", number((cores / world).max(1)));
    }
    // Ctrl-C on a terminal reaches this process alone, which passes it on once.
    command.process_group(0);
    Ok(command)
}

/// The processes, by rank; none for those that ended.
struct Ranks {
    children: Vec<Option<Child>>,
    failed: Option<Failed>,
}

struct Failed {
    since: Instant,
    ended: Ended,
    /// How often the others were made to end.
    pressed: u32,
}

impl Ranks {
    /// Looks for those that ended; whether any still runs.
    fn reap(&mut self) -> io::Result<bool> {
        for (rank, place) in self.children.iter_mut().enumerate() {
            let Some(child) = place else { continue };
            let Some(status) = child.try_wait()? else { continue };
            *place = None;
            if status.success() {
                continue;
            }
            let ended = ended(rank, status);
            match &mut self.failed {
                None => self.failed = Some(Failed { since: Instant::now(), ended, pressed: 0 }),
                // Its code tells what kind of failure it was; those of the others follow from it.
                Some(first) if rank == 0 => first.ended.code = ended.code,
                Some(_) => {}
            }
        }
        Ok(self.children.iter().any(Option::is_some))
    }

    fn signal(&self, signal: Signal) {
        for child in self.children.iter().flatten() {
            // One that has just ended needs none.
            let _ = kill_process(Pid::from_child(child), signal);
        }
    }
}

impl Drop for Ranks {
    /// Whatever ends the waiting, nothing is left behind.
    fn drop(&mut self) {
        self.signal(Signal::KILL);
        self.children.iter_mut().flatten().for_each(|child| drop(child.wait()));
    }
}

fn ended(rank: usize, status: ExitStatus) -> Ended {
    match (status.code(), status.signal()) {
        (Some(code), _) => Ended { code: u8::try_from(code).unwrap_or(1), note: None },
        (None, signal) => {
            let signal = signal.unwrap_or_default();
            let note = format!("rank {rank} was ended by signal {signal}; the others were stopped");
            Ended { code: u8::try_from(128 + signal).unwrap_or(1), note: Some(note) }
        }
    }
}

/// Signals that came and were not passed on yet.
struct Forwarded([(Signal, Arc<AtomicBool>); 3]);

impl Forwarded {
    fn install() -> io::Result<Forwarded> {
        let flag = |number, signal| {
            let flag = Arc::new(AtomicBool::new(false));
            signal_hook::flag::register(number, Arc::clone(&flag)).map(|_| (signal, flag))
        };
        Ok(Forwarded([flag(SIGINT, Signal::INT)?, flag(SIGTERM, Signal::TERM)?, flag(SIGUSR1, Signal::USR1)?]))
    }

    fn each(&self, mut pass_on: impl FnMut(Signal)) {
        for (signal, flag) in &self.0 {
            if flag.swap(false, Ordering::Relaxed) {
                pass_on(*signal);
            }
        }
    }
}
