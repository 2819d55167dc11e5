//! Checkpoints under kills, refused operations and full disks: a few here, five hundred kills by `make torture`, which sets
//! `ANIMATEDIFF_TORTURE` to their number.
//!
//! What has to hold each time: the newest checkpoint loads, it holds what was saved, and it is not older than the last one
//! that was acknowledged.

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    process::{Child, Command},
    rc::Rc,
    time::{Duration, Instant},
};

use animatediff::{
    files::disk::{self, Operation},
    train::checkpoint::{Checkpoint, Keep, list, load, newest, save, saver::Saver},
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::json;
use tch::{Device, Kind, Tensor};
use tempfile::tempdir;

use crate::{
    board::curves,
    child,
    cli::support::{Desk, Run},
};

/// Kills of a process that only saves.
fn kills() -> usize {
    std::env::var("ANIMATEDIFF_TORTURE").map_or(12, |number| number.parse().expect("a number of kills"))
}

/// A checkpoint all of whose numbers follow from its step.
fn of(step: i64) -> Checkpoint {
    let group = |kind: Kind, sides: [i64; 2]| {
        let tensor = |index: i64| (format!("w.{index}"), Tensor::full(sides, step % 101 + index, (kind, Device::Cpu)));
        (0..3).map(tensor).collect::<BTreeMap<_, _>>()
    };
    let tensors = [("trained", group(Kind::Float, [120, 200])), ("optimizer", group(Kind::BFloat16, [30, 200]))];
    let tensors = tensors.map(|(stem, group)| (stem.to_owned(), group)).into();
    Checkpoint { step, tensors, state: json!({"step": step}) }
}

/// The step of the newest checkpoint of `dir`, in which everything has to be right; `None` where there is none.
#[track_caller]
fn newest_step(dir: &Path) -> Option<i64> {
    let found = newest(dir).unwrap()?;
    assert_eq!(found.damaged, Vec::<String>::new());
    let (loaded, expected) = (load(&found.path).unwrap(), of(load(&found.path).unwrap().step));
    assert_eq!(loaded.state, expected.state);
    for (stem, group) in &expected.tensors {
        let back = &loaded.tensors[stem];
        assert!(back.len() == group.len() && back.iter().all(|(name, tensor)| tensor == &group[name]), "{stem}");
    }
    Some(loaded.step)
}

// Kills.

/// A process that is killed when this goes.
struct Victim(Child);

impl Victim {
    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    #[track_caller]
    fn assert_alive(&mut self) {
        if let Some(status) = self.0.try_wait().unwrap() {
            panic!("it ended by itself: {status}");
        }
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const SAVING: &str = "torture::no_acknowledged_save_is_lost_by_kills";
const ACKNOWLEDGED: &str = "acknowledged";

fn keep() -> Keep {
    Keep { last: 2, every: Some(kills() as i64 / 2), sound_before: 0 }
}

/// Goes on from the newest checkpoint and saves one after the other, telling of each that is on the disk. The last resort
/// against a parent that is gone is a time limit.
fn save_until_killed(dir: &Path) {
    let checkpoints = dir.join("checkpoints");
    let mut acknowledged = File::options().append(true).create(true).open(dir.join(ACKNOWLEDGED)).unwrap();
    let mut step = newest_step(&checkpoints).unwrap_or(0);
    let mut saver = Saver::new(&checkpoints, None);
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(30) {
        step += 1;
        if let Some(saved) = saver.begin(of(step), keep(), || Ok(())).unwrap() {
            writeln!(acknowledged, "{}", saved.step).unwrap();
        }
    }
}

/// The step that was last acknowledged, and how often something was.
fn acknowledged(dir: &Path) -> (i64, usize) {
    let text = fs::read_to_string(dir.join(ACKNOWLEDGED)).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    (whole.lines().last().map_or(0, |line| line.parse().unwrap()), whole.lines().count())
}

fn staging(dir: &Path) -> usize {
    staged(Some(dir)).len()
}

#[test]
fn no_acknowledged_save_is_lost_by_kills() {
    if let Some(dir) = child::folder() {
        return save_until_killed(&dir);
    }
    let dir = tempdir().unwrap();
    let checkpoints = dir.path().join("checkpoints");
    let mut random = ChaCha8Rng::seed_from_u64(kills() as u64);
    let (start, mut amid) = (Instant::now(), 0);
    for _ in 0..kills() {
        let before = acknowledged(dir.path()).1;
        let mut victim = Victim(child::spawn(SAVING, dir.path()));
        // It does nothing but save from here on, so that whatever moment comes is one of a save.
        while acknowledged(dir.path()).1 == before {
            victim.assert_alive();
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_micros(random.random_range(0..40_000)));
        victim.kill();
        amid += usize::from(staging(&checkpoints) > 0);
        let (last, newest) = (acknowledged(dir.path()).0, newest_step(&checkpoints).unwrap());
        assert!(newest >= last, "step {last} was acknowledged, and the newest is {newest}");
        assert!(newest <= last + 2, "step {newest} without a word of those before it");
        let there: Vec<i64> = list(&checkpoints).unwrap().into_iter().map(|(step, _)| step).collect();
        let every = keep().every.unwrap();
        for kept in (1..=last / every).map(|multiple| multiple * every) {
            assert!(there.contains(&kept), "step {kept} was to be kept for ever: {there:?}");
        }
    }
    let (last, saves) = acknowledged(dir.path());
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "killed {} times, {amid} of them while a folder was staged; {saves} saves acknowledged, up to step {last}, none lost; \
         {seconds:.0} s",
        kills()
    );
    assert!(4 * amid >= kills(), "{amid} kills of {} hit a save", kills());
}

// Operations that the file system refuses.

/// How the disk behaves from the k-th operation of a kind on.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    /// That one fails.
    Once,
    /// Nothing succeeds any more: what is on the disk is what a crash at this moment leaves.
    FromThen,
}

/// Watches this thread's operations until the `k`-th of `kind`, and then refuses; tells whether it came to that.
fn refuse(kind: Operation, k: usize, fault: Fault) -> (disk::Watching, Rc<Cell<bool>>) {
    let (mut count, refused) = (0, Rc::new(Cell::new(false)));
    let told = Rc::clone(&refused);
    let watching = disk::watch(move |operation, _| {
        count += usize::from(operation == kind);
        if (operation == kind && count == k) || (fault == Fault::FromThen && told.get()) {
            told.set(true);
            return Err(io::Error::from_raw_os_error(28));
        }
        Ok(())
    });
    (watching, refused)
}

#[test]
fn an_error_at_any_operation_leaves_a_newest_checkpoint() {
    let mut told = Vec::new();
    for kind in [Operation::Create, Operation::Write, Operation::Sync, Operation::Rename, Operation::Remove] {
        for (fault, step) in [(Fault::Once, 3), (Fault::FromThen, 3), (Fault::FromThen, 2)] {
            for k in 1.. {
                let dir = tempdir().unwrap();
                let place = dir.path().join("checkpoints");
                let keep = Some(Keep { last: 2, every: None, sound_before: 0 });
                (1..=2).for_each(|step| drop(save(&place, &of(step), keep).unwrap()));
                let (watching, refused) = refuse(kind, k, fault);
                let saved = save(&place, &of(step), keep);
                drop(watching);
                let case = format!("{kind:?} {k} {fault:?} in the save of step {step}");
                let newest = newest_step(&place).unwrap_or_else(|| panic!("nothing is left after {case}"));
                match saved {
                    Ok(_) => assert_eq!(newest, step, "{case}"),
                    Err(error) => {
                        // Older ones that stay are no failure of the save.
                        assert!(kind != Operation::Remove || step == 2, "{case}: {error:#}");
                        assert!(newest == 2 || newest == step, "{case}: {newest}");
                        let text = format!("{error:#}");
                        assert!(text.contains("the disk is full") && text.contains("step-"), "{case}: {text}");
                    }
                }
                // Afterwards all is as ever, and nothing is left of what failed.
                save(&place, &of(4), keep).unwrap();
                assert_eq!((newest_step(&place), staging(&place)), (Some(4), 0), "{case}");
                if !refused.get() {
                    told.push(format!("{} {kind:?}", k - 1));
                    break;
                }
            }
        }
    }
    println!("refused each in turn, alone, with all after it, and in a save that replaces one: {}", told.join(", "));
}

// Full disks.

/// A small file system of its own; only root may make one.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn new(mebibytes: usize) -> Option<SmallDisk> {
        let dir = tempdir().unwrap();
        let size = format!("size={mebibytes}m");
        let done = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "none"]).arg(dir.path()).output();
        done.is_ok_and(|done| done.status.success()).then_some(SmallDisk(dir))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

/// Saves `of(step)` where only `left` bytes can be written, which must change nothing but the message.
fn save_in_vain(place: &Path, step: i64, left: u64) {
    let before = newest_step(place);
    let error = save(place, &of(step), Some(Keep { last: 1, every: None, sound_before: 0 })).unwrap_err();
    let text = format!("{error:#}");
    assert!(text.starts_with(&format!("the checkpoint of step {step} was not saved: ")), "{left} left: {text}");
    assert_eq!((newest_step(place), staging(place)), (before, 0), "{left} left: {text}");
}

#[test]
fn a_disk_that_is_full_at_any_point_leaves_the_checkpoint_before() {
    let place = |dir: &Path| dir.join("checkpoints");
    if let Some(dir) = child::folder() {
        // No file may grow beyond this: the same at any byte of any file, for users who cannot make a file system.
        for left in (0..280_000).step_by(9_001) {
            child::limit_file_size(left);
            save_in_vain(&place(&dir), 2, left);
        }
        return;
    }
    let dir = tempdir().unwrap();
    save(&place(dir.path()), &of(1), None).unwrap();
    let name = "torture::a_disk_that_is_full_at_any_point_leaves_the_checkpoint_before";
    assert!(child::spawn(name, dir.path()).wait().unwrap().success());
    let Some(disk) = SmallDisk::new(2) else {
        return println!("full disks: files limited in size only, as this user cannot mount a small file system");
    };
    let place = place(disk.0.path());
    save(&place, &of(1), None).unwrap();
    let ballast = disk.0.path().join("ballast");
    let (mut full, mut fitted) = (0, 0);
    let free = animatediff::files::free_space(disk.0.path()).unwrap();
    // From no page free to more than enough.
    for left in (0..500_000).step_by(4096) {
        fs::write(&ballast, vec![0; (free - left) as usize]).unwrap();
        match save(&place, &of(2), None) {
            Ok(path) => {
                fitted += 1;
                assert_eq!(newest_step(&place), Some(2));
                fs::remove_dir_all(path).unwrap();
            }
            Err(error) => {
                full += 1;
                let text = format!("{error:#}");
                assert!(text.contains("No space left on device"), "{left} left: {text}");
                assert_eq!((newest_step(&place), staging(&place)), (Some(1), 0), "{left} left");
            }
        }
        fs::remove_file(&ballast).unwrap();
    }
    assert!(full > 20 && fitted > 10, "{full} {fitted}");
    println!("full disks: {full} saves that did not fit, {fitted} that just did; the one before was always there");
}

// The program itself.

fn checkpoints_of(desk: &Desk) -> Option<PathBuf> {
    // A run that was killed before its first checkpoint is begun anew, under a later name.
    let runs = fs::read_dir(desk.path("runs")).ok()?;
    runs.map(|run| run.unwrap().path().join("checkpoints")).filter(|place| place.is_dir()).max()
}

/// Names of what is staged in a folder of checkpoints.
fn staged(dir: Option<&Path>) -> BTreeSet<String> {
    let Some(entries) = dir.and_then(|dir| fs::read_dir(dir).ok()) else { return BTreeSet::new() };
    let names = entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
    names.filter(|name| name.starts_with('.')).collect()
}

#[test]
fn a_run_that_is_killed_again_and_again_equals_the_undisturbed_one() {
    let times = (kills() / 16).max(2);
    let line = format!(
        "animatediff train adapter -c $TINY --max-steps {} --set checkpointing_steps=1 --set keep_checkpoints=2 \
         --set lr_scheduler=cosine --set use_ema=true --set cfg_random_null_text_ratio=0.5 --set validation_steps=3 \
         --set 'validation_data.prompts=[a ball]'",
        2 * times + 4
    );
    let whole_desk = Desk::new();
    let whole = whole_desk.train(line.strip_prefix("animatediff train ").unwrap());
    let desk = Desk::new();
    let mut random = ChaCha8Rng::seed_from_u64(times as u64);
    let (mut killed, mut amid, mut done) = (0, 0, false);
    while killed < times && !done {
        let before = staged(checkpoints_of(&desk).as_deref());
        let mut command = desk.command(&format!("exec {line} --resume auto"));
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        let mut victim = Victim(command.spawn().unwrap());
        // A folder is staged that was not there; from there on they come with every update.
        while staged(checkpoints_of(&desk).as_deref()).is_subset(&before) && !done {
            done = victim.0.try_wait().unwrap().is_some();
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_micros(random.random_range(0..30_000)));
        done |= victim.0.try_wait().unwrap().is_some();
        if !done {
            victim.kill();
            killed += 1;
            amid += usize::from(checkpoints_of(&desk).is_some_and(|place| staging(&place) > 0));
        }
    }
    assert!(killed == times && amid > 0, "killed {killed} times of {times}, {amid} of them amid a save");
    let finished = desk.run(&format!("{line} --resume auto"));
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    let export = desk.path(finished.stdout.trim_end());
    let run = Run { folder: export.ancestors().nth(2).unwrap().to_owned(), export };
    equal(&whole, &run);
    println!(
        "the program killed {killed} times, {amid} of them while a folder was staged; equal to the undisturbed run"
    );
}

/// Everything that a run leaves and that no clock decides.
pub fn equal(whole: &Run, other: &Run) {
    assert_eq!(whole.losses(), other.losses());
    assert_eq!(fs::read(&whole.export).unwrap(), fs::read(&other.export).unwrap(), "the export");
    let newest = |run: &Run| newest(&run.folder.join("checkpoints")).unwrap().unwrap().path;
    let files = |path: &Path| -> BTreeMap<String, Vec<u8>> {
        let files = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
        files.map(|file| (file.file_name().unwrap().to_string_lossy().into_owned(), fs::read(&file).unwrap())).collect()
    };
    let (ours, theirs) = (files(&newest(whole)), files(&newest(other)));
    assert!(ours.keys().eq(theirs.keys()));
    for (name, bytes) in &ours {
        assert!(bytes == &theirs[name], "{name} of the newest checkpoint differs");
    }
    let shown = |run: &Run| curves(&run.folder.join("tensorboard"));
    let (ours, theirs) = (shown(whole), shown(other));
    let differs = ours.keys().chain(theirs.keys()).find(|point| ours.get(point) != theirs.get(point));
    assert_eq!(differs, None, "what TensorBoard shows");
}

#[test]
fn a_signal_while_a_checkpoint_is_written_loses_nothing() {
    let line = |name: &str, steps: usize| {
        format!(
            "adapter -c $TINY --name {name} --max-steps {steps} --set checkpointing_steps=1 --set keep_checkpoints=2 \
             --set use_ema=true --set cfg_random_null_text_ratio=0.5"
        )
    };
    let desk = Desk::new();
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        // As soon as a third checkpoint or a later one is staged.
        let done = desk.run(&format!(
            "animatediff train {} & run=$!
             until ls -A runs/{signal}-*/checkpoints 2>/dev/null | grep -q '^[.]step-0*[3-9][.]'; do kill -0 $run; done
             kill -{signal} $run; wait $run || exit $?",
            line(signal, 100_000)
        ));
        assert_eq!(done.code, Some(code), "{}", done.stderr);
        let export = desk.path(done.stdout.trim_end());
        let stopped = Run { folder: export.ancestors().nth(2).unwrap().to_owned(), export };
        let steps = stopped.rows().len();
        let expected = [steps - 1, steps].map(|step| format!("step-{step:08}"));
        assert_eq!(stopped.names("checkpoints"), expected, "the one under way and the last, and nothing staged");
        let told = done.stderr.lines().filter(|line| line.contains("checkpoint runs/")).count();
        assert_eq!(told, steps, "each is told of once: {}", done.stderr);
        let whole = desk.train(&line("whole", steps + 2));
        let resumed = desk.train(&format!("adapter --resume {} --max-steps {}", stopped.folder.display(), steps + 2));
        equal(&whole, &resumed);
    }
}
