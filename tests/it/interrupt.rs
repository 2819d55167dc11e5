use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

use animatediff::train::interrupt::{Interrupt, Signal};
use rustix::process::{Pid, Signal as Os, kill_process};
use tempfile::tempdir;

use crate::child;

const TEST: &str = "interrupt::signals_are_requests_and_the_second_ctrl_c_quits";

/// Says in files what it has seen; ends in order only when told so by a file.
fn act(dir: &Path) -> ! {
    let interrupt = Interrupt::install().unwrap();
    assert_eq!(interrupt.requested(), None);
    fs::write(dir.join("ready"), "").unwrap();
    loop {
        if let Some(signal) = interrupt.requested() {
            fs::write(dir.join("seen"), "").unwrap();
            if dir.join("orderly").exists() {
                std::process::exit(signal.exit_code());
            }
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn wait_for(path: &Path) {
    let start = Instant::now();
    while !path.exists() {
        assert!(start.elapsed() < Duration::from_secs(10), "{} did not appear", path.display());
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn signal(child: &Child, signal: Os) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

fn exit_after(signals: &[Os], orderly: bool) -> (Option<i32>, Option<i32>) {
    let dir = tempdir().unwrap();
    if orderly {
        fs::write(dir.path().join("orderly"), "").unwrap();
    }
    let mut process = child::spawn(TEST, dir.path());
    wait_for(&dir.path().join("ready"));
    for &one in signals {
        signal(&process, one);
        wait_for(&dir.path().join("seen"));
    }
    let status = process.wait().unwrap();
    (status.code(), status.signal())
}

#[test]
fn signals_are_requests_and_the_second_ctrl_c_quits() {
    if let Some(dir) = child::folder() {
        act(&dir);
    }
    assert_eq!(exit_after(&[Os::INT], true), (Some(130), None));
    assert_eq!(exit_after(&[Os::TERM], true), (Some(143), None));
    assert_eq!(exit_after(&[Os::INT, Os::INT], false), (Some(130), None));
    assert_eq!(exit_after(&[Os::TERM, Os::INT], false), (Some(130), None));
    assert_eq!((Signal::Int.exit_code(), Signal::Term.exit_code()), (130, 143));
}
