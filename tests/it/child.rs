//! Runs one test of this binary in a process of its own, for what would end or cripple the one that runs all tests.

use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Whether this process is such a child; its folder is the value.
pub fn folder() -> Option<std::path::PathBuf> {
    std::env::var_os("ANIMATEDIFF_TEST_CHILD").map(Into::into)
}

/// Starts the test `name` (`module::function`) again as a child that works in `dir`.
pub fn spawn(name: &str, dir: &Path) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([name, "--exact", "--nocapture", "--test-threads=1"]).env("ANIMATEDIFF_TEST_CHILD", dir);
    command.stdout(Stdio::null()).stderr(Stdio::inherit()).spawn().unwrap()
}

/// Limits files that this process writes to `bytes`; going past it is an error, not a signal.
pub fn limit_file_size(bytes: u64) {
    use rustix::process::{Resource, Rlimit, setrlimit};
    signal_hook::flag::register(25, std::sync::Arc::default()).unwrap(); // SIGXFSZ
    setrlimit(Resource::Fsize, Rlimit { current: Some(bytes), maximum: None }).unwrap();
}
