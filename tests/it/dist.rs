//! Several processes as one: what they agree on, what they sum, and what they do when one of them goes.

use std::{
    collections::BTreeMap,
    fs,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use animatediff::{
    dist::{Comm, DistError, Place, PlaceError},
    native::Store,
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tch::{Kind, Tensor};

use crate::{
    cli::support::{Desk, Run},
    support::{one_thread, relative_error, tensors_of},
    torture::equal,
};

// Who a process is.

fn place(variables: &[(&str, &str)]) -> Result<Option<Place>, PlaceError> {
    let variables: BTreeMap<&str, &str> = variables.iter().copied().collect();
    Place::find(|name| variables.get(name).map(ToString::to_string))
}

#[test]
fn places_are_those_that_starters_name() {
    assert_eq!(place(&[]), Ok(None));
    let torch = [("RANK", "3"), ("WORLD_SIZE", "8"), ("MASTER_ADDR", "gpu-1"), ("MASTER_PORT", "29500")];
    let job = place(&torch).unwrap().unwrap();
    assert_eq!((job.rank, job.world, job.local_rank, job.serves, job.restarts), (3, 8, 0, false, 0));
    assert_eq!((job.host.as_str(), job.port), ("gpu-1", 29500));
    let mut first = torch;
    first[0].1 = "0";
    assert!(place(&first).unwrap().unwrap().serves, "without an agent, the first process holds the store");
    let agent = [
        &first[..],
        &[("LOCAL_RANK", "2"), ("TORCHELASTIC_USE_AGENT_STORE", "True"), ("TORCHELASTIC_RESTART_COUNT", "4")],
    ];
    let torchrun = place(&agent.concat()).unwrap().unwrap();
    assert_eq!((torchrun.local_rank, torchrun.serves, torchrun.restarts), (2, false, 4));
    let slurm = |nodes: &'static str| {
        place(&[
            ("SLURM_STEP_NUM_TASKS", "16"),
            ("SLURM_PROCID", "9"),
            ("SLURM_LOCALID", "1"),
            ("SLURM_STEP_NODELIST", nodes),
            ("SLURM_JOB_ID", "4711123"),
        ])
        .unwrap()
        .unwrap()
    };
    let found = slurm("gpu[003-005,9],login");
    assert_eq!((found.rank, found.world, found.local_rank, found.serves), (9, 16, 1, false));
    assert_eq!((found.host.as_str(), found.port), ("gpu003", 16123));
    for (nodes, host) in [("a", "a"), ("a,b[1-2]", "a"), ("n[7,9]-ib,x", "n7-ib"), ("rack2[01-02]", "rack201")] {
        assert_eq!(slurm(nodes).host, host, "{nodes}");
    }
    let batch = [("SLURM_PROCID", "0"), ("SLURM_NTASKS", "16"), ("SLURM_JOB_ID", "1")];
    assert_eq!(place(&batch), Ok(None), "a batch script is one process");
}

#[test]
fn places_that_cannot_be_are_refused_by_the_variables_name() {
    let text = |variables: &[(&str, &str)]| place(variables).unwrap_err().to_string();
    assert!(text(&[("RANK", "0")]).contains("WORLD_SIZE is not set"));
    let rest = [("MASTER_ADDR", "a"), ("MASTER_PORT", "1")];
    assert!(text(&[&[("RANK", "x"), ("WORLD_SIZE", "2")], &rest[..]].concat()).contains("RANK is `x`"));
    assert!(text(&[&[("RANK", "2"), ("WORLD_SIZE", "2")], &rest[..]].concat()).contains("rank 2 of 2"));
    let port = [("RANK", "0"), ("WORLD_SIZE", "2"), ("MASTER_ADDR", "a"), ("MASTER_PORT", "99999")];
    assert!(text(&port).contains("MASTER_PORT is `99999`"));
}

// What they do together, in threads of this process.

const PATIENCE: Duration = Duration::from_secs(30);

/// What `body` gives in each of `world` ranks.
fn together<T: Send>(world: usize, body: impl Fn(Comm) -> T + Sync) -> Vec<T> {
    let store = Store::serve("127.0.0.1", 0, PATIENCE).unwrap();
    let port = store.port();
    let body = &body;
    thread::scope(|scope| {
        let start = |rank| {
            let host = "127.0.0.1".to_owned();
            let place = Place { rank, world, local_rank: rank, host, port, serves: false, restarts: 0 };
            scope.spawn(move || body(Comm::join(place, PATIENCE).unwrap()))
        };
        let threads: Vec<_> = (0..world).map(start).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

#[test]
fn what_one_knows_all_know() {
    let told = together(3, |comm| {
        let rank = comm.rank();
        let sum = comm.sum(0.5 + rank as f64).unwrap();
        let max = comm.max([rank as i64, -(rank as i64)]).unwrap();
        let decided: String = comm.decide(|| Ok(format!("rank {rank}"))).unwrap();
        let gathered = comm.gather("x".repeat(rank * 3)).unwrap();
        let refused = comm.decide::<u8>(|| anyhow::bail!("no")).unwrap_err();
        let tensor = Tensor::from(rank as f64 + 7.0);
        comm.broadcast(&tensor).unwrap();
        let tensors = comm.gather_tensors(&Tensor::from_slice(&[rank as i64, 1])).unwrap();
        let tensors: Vec<i64> = tensors.iter().map(|tensor| tensor.int64_value(&[0])).collect();
        (sum, max, decided, gathered, format!("{refused:#}"), tensor.double_value(&[]), tensors)
    });
    for (rank, (sum, max, decided, gathered, refused, tensor, tensors)) in told.into_iter().enumerate() {
        assert_eq!((sum, max, decided.as_str(), tensor), (4.5, [2, 0], "rank 0", 7.0));
        assert_eq!(gathered, ["", "xxx", "xxxxxx"]);
        assert_eq!(refused, if rank == 0 { "no" } else { "rank 0: no" });
        assert_eq!(tensors, [0, 1, 2]);
    }
}

#[test]
fn a_difference_is_named_in_every_process() {
    let told = together(3, |comm| {
        comm.check_equal("the seed", b"42", "give one").unwrap();
        let own: &[u8] = if comm.rank() == 2 { b"43" } else { b"42" };
        comm.check_equal("the seed", own, "give one").unwrap_err()
    });
    for error in told {
        assert!(matches!(&error, DistError::Differs { rank: 2, .. }), "{error}");
        assert_eq!(error.to_string(), "the seed of rank 2 differs from that of rank 0; give one");
    }
}

/// Gradients of a small network of which one tensor is not reached, by two passes, summed over `world` ranks that have so many clips each.
fn gradients(world: usize, clips: usize) -> Vec<Vec<(bool, Vec<f32>)>> {
    together(world, |comm| {
        one_thread();
        let values = |shape: [i64; 2], scale: f64| {
            let count = shape[0] * shape[1];
            (Tensor::arange(count, (Kind::Float, tch::Device::Cpu)) * scale).sin().view(shape).set_requires_grad(true)
        };
        // More than a bucket in all, so that there are several.
        let params = [values([64, 3], 0.1), values([2600, 2600], 0.01), values([3, 64], 0.2), values([5, 5], 1.0)];
        let buckets = comm.buckets(&params);
        let own = |index: usize| (index * world + comm.rank()) as f64;
        let loss = |index: usize| {
            let x = Tensor::from_slice(&[0.3f32, 0.1, -0.2]) * (1.0 + own(index));
            let x = params[0].matmul(&x).tanh();
            (params[2].matmul(&x).sum(Kind::Float) + params[1].square().sum(Kind::Float) * own(index)) / 4.0
        };
        let mut told = Vec::new();
        for _ in 0..2 {
            match &buckets {
                Some(buckets) => buckets.begin(),
                None => params.iter().for_each(|param| param.shallow_clone().zero_grad()),
            }
            for index in 0..clips {
                if let (Some(buckets), true) = (&buckets, index + 1 == clips) {
                    buckets.arm();
                }
                loss(index).backward();
            }
            if let Some(buckets) = &buckets {
                comm.finish(buckets).unwrap();
            }
            told = params.iter().map(|param| param.grad()).map(|grad| (grad.defined(), flat(&grad))).collect();
        }
        told
    })
}

fn flat(grad: &Tensor) -> Vec<f32> {
    if grad.defined() { Vec::try_from(grad.flatten(0, -1)).unwrap() } else { Vec::new() }
}

#[test]
fn gradients_of_several_are_those_of_one_with_all_clips() {
    let whole = gradients(1, 4).remove(0);
    assert!(!whole[3].0 && whole[..3].iter().all(|(defined, _)| *defined), "the last is not reached");
    for world in [2, 4] {
        let all = gradients(world, 4 / world);
        for own in &all {
            assert!(own == &all[0], "the same bits in every process");
            for ((defined, values), (whole_defined, expected)) in own.iter().zip(&whole) {
                assert_eq!(defined, whole_defined);
                if *defined {
                    let error = relative_error(&Tensor::from_slice(values), &Tensor::from_slice(expected));
                    assert!(error < 1e-6, "{error}");
                }
            }
        }
    }
}

#[test]
fn one_that_goes_is_an_error_in_the_others_at_once() {
    let told = together(2, |comm| {
        if comm.rank() == 1 {
            return None;
        }
        let start = Instant::now();
        let error = loop {
            if let Err(error) = comm.sum(1.0) {
                break error;
            }
        };
        Some((error.to_string(), start.elapsed()))
    });
    let (error, waited) = told[0].clone().unwrap();
    assert!(error.starts_with("another process is gone or cannot be reached"), "{error}");
    assert!(waited < PATIENCE / 2, "{waited:?}");
}

// The program.

/// Motion modules, with everything that has a state of its own.
const OPTIONS: &str = "-c $TINY --set cfg_random_null_text_ratio=0.5 --set use_ema=true --set noise_offset=0.1 \
     --set lr_scheduler=cosine --set dist_check_steps=1 --set checkpointing_steps=2";

/// One process on `batch` clips a pass, `passes` passes.
fn line(stage: &str, name: &str, (batch, passes): (usize, usize), steps: usize) -> String {
    format!(
        "{stage} {OPTIONS} --name {name} --max-steps {steps} --set train_batch_size={batch} \
         --set gradient_accumulation_steps={passes}"
    )
}

#[track_caller]
fn alike(one: &Run, several: &Run) {
    for (ours, theirs) in one.losses().iter().zip(&several.losses()) {
        for (ours, theirs) in ours.iter().zip(theirs) {
            assert!((ours - theirs).abs() <= 1e-6 * ours.abs(), "{ours} {theirs}");
        }
    }
    assert_eq!(one.rows().len(), several.rows().len());
    let tensors = |run: &Run| match run.export.is_dir() {
        true => tensors_of(&run.export.join("unet")),
        false => run.tensors(),
    };
    let (ours, theirs) = (tensors(one), tensors(several));
    assert!(ours.keys().eq(theirs.keys()));
    let flat = |tensors: &BTreeMap<String, Tensor>| {
        Tensor::cat(&tensors.values().map(|tensor| tensor.flatten(0, -1).to_kind(Kind::Double)).collect::<Vec<_>>(), 0)
    };
    let (ours, theirs) = (flat(&ours), flat(&theirs));
    let error = ((&theirs - &ours).norm() / ours.norm()).double_value(&[]);
    println!("weights: {error:.1e}");
    assert!(error <= 1e-6, "{error:.2e}");
}

#[test]
fn two_processes_train_as_one_with_twice_the_batch() {
    let desk = Desk::new();
    for (stage, alone, each) in [("motion", (4, 1), (2, 1)), ("adapter", (2, 4), (2, 2)), ("image", (2, 1), (1, 1))] {
        // Where a gradient is next to nothing, Adam divides its rounding by next to nothing, but for this term.
        let line = |number: &str, clips| {
            format!("{} --set adam_epsilon=1e-3", line(stage, &format!("{stage}-{number}"), clips, 3))
        };
        let one = desk.train(&line("one", alone));
        let two = desk.train(&format!("{} --nproc 2", line("two", each)));
        alike(&one, &two);
        assert_eq!(two.names("checkpoints"), one.names("checkpoints"));
    }
}

#[test]
fn a_run_goes_on_with_another_number_of_processes_if_the_clips_of_an_update_stay() {
    let desk = Desk::new();
    let whole = desk.train(&line("motion", "whole", (4, 1), 4));
    let begun = desk.train(&format!("{} --nproc 2", line("motion", "begun", (2, 1), 2)));
    let resume = format!("--resume {}", begun.folder.display());
    let line =
        |batch| format!("animatediff train motion {resume} --set max_train_steps=4 --set train_batch_size={batch}");
    let message = desk.refused(&line(2), &["an update was on 4 clips and is now on 2", "processes"]);
    assert!(!message.contains("rank"), "{message}");
    desk.ok(&line(4));
    // The schedule of the learning rate is that of two steps until then.
    let rows = |run: &Run| run.rows().iter().map(|row| row["loss"].as_f64().unwrap()).collect::<Vec<_>>();
    let (ours, theirs) = (rows(&whole), rows(&begun));
    assert_eq!(theirs.len(), 4);
    assert!((ours[0] - theirs[0]).abs() <= 1e-6 * ours[0], "{ours:?} {theirs:?}");
}

#[test]
fn processes_that_differ_are_refused() {
    let desk = Desk::new();
    let store = Store::serve("127.0.0.1", 0, PATIENCE).unwrap();
    let rank = |rank: usize, seed: u64| -> Command {
        let mut command = desk.command(&format!(
            "exec animatediff train motion -c $TINY --set global_seed={seed} --set output_dir=rank-{rank}"
        ));
        let port = store.port().to_string();
        command.envs([("RANK", rank.to_string()), ("WORLD_SIZE", "2".into()), ("MASTER_PORT", port)]);
        command.envs([("MASTER_ADDR", "127.0.0.1"), ("TORCHELASTIC_USE_AGENT_STORE", "True")]);
        command
    };
    let other = rank(1, 43).stderr(std::process::Stdio::piped()).stdout(std::process::Stdio::null()).spawn().unwrap();
    let first = rank(0, 42).output().unwrap();
    let other = other.wait_with_output().unwrap();
    for (rank, output) in [first, other].into_iter().enumerate() {
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success());
        let words = format!("rank {rank} of 2: the configuration or the data of rank 1 differs from that of rank 0");
        assert!(text.contains(&words), "{text}");
    }
    assert!(!desk.path("rank-1").exists(), "nothing was written by the other");
}

#[test]
fn a_killed_process_ends_the_others_and_the_run_goes_on_as_if_nothing_had_been() {
    let desk = Desk::new();
    let (steps, name) = (12, "killed");
    let whole = desk.train(&format!("{} --nproc 2", line("adapter", "whole", (1, 1), steps)));
    let mut random = ChaCha8Rng::seed_from_u64(1);
    for victim in [1, 0] {
        let mut command = desk.command(&format!(
            "exec animatediff train {} --nproc 2 --resume auto",
            line("adapter", name, (1, 1), steps)
        ));
        let launcher =
            command.stderr(std::process::Stdio::piped()).stdout(std::process::Stdio::null()).spawn().unwrap();
        let pid = rank_of(launcher.id(), victim);
        // It has begun when there is a first row.
        let rows = || {
            fs::read_dir(desk.path("runs")).map_or(0, |runs| {
                let own = runs.flatten().map(|run| run.path()).filter(|run| run.to_string_lossy().contains(name));
                own.map(|run| fs::read_to_string(run.join("metrics.jsonl")).unwrap_or_default().lines().count()).sum()
            })
        };
        let before = rows();
        let start = Instant::now();
        while rows() == before && start.elapsed() < Duration::from_secs(60) {
            thread::sleep(Duration::from_millis(2));
        }
        thread::sleep(Duration::from_millis(random.random_range(0..60)));
        let _ = rustix_kill(pid);
        let killed = Instant::now();
        let ended = launcher.wait_with_output().unwrap();
        assert!(killed.elapsed() < Duration::from_secs(20), "{:?}", killed.elapsed());
        let text = String::from_utf8(ended.stderr).unwrap();
        assert!(!ended.status.success(), "{text}");
        assert!(text.contains(&format!("rank {victim} was ended by signal 9")), "{text}");
        assert!(text.contains("another process is gone"), "{text}");
    }
    let line = line("adapter", name, (1, 1), steps);
    let finished = desk.run(&format!("animatediff train {line} --nproc 2 --resume auto"));
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    let export = desk.path(finished.stdout.trim_end());
    equal(&whole, &Run { folder: export.ancestors().nth(2).unwrap().to_owned(), export });
}

/// The process that `launcher` started as this rank.
fn rank_of(launcher: u32, rank: usize) -> i32 {
    let start = Instant::now();
    loop {
        let text = fs::read_to_string(format!("/proc/{launcher}/task/{launcher}/children")).unwrap_or_default();
        for pid in text.split_whitespace() {
            let variables = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            let wanted = format!("RANK={rank}");
            if variables.split(|byte| *byte == 0).any(|variable| variable == wanted.as_bytes()) {
                return pid.parse().unwrap();
            }
        }
        assert!(start.elapsed() < Duration::from_secs(20), "rank {rank} does not come");
        thread::sleep(Duration::from_millis(5));
    }
}

fn rustix_kill(pid: i32) -> bool {
    Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap().success()
}

#[test]
fn a_signal_to_one_stops_all_with_a_checkpoint() {
    let desk = Desk::new();
    for (signal, whom, code) in [("TERM", "launcher", 143), ("INT", "launcher", 130), ("TERM", "rank", 143)] {
        let name = format!("{signal}-{whom}");
        // A process of its own is asked for the run's process: that of the launcher, or its second child.
        let target = if whom == "launcher" { "$run" } else { "$(cut -d' ' -f2 /proc/$run/task/$run/children)" };
        let done = desk.run(&format!(
            "animatediff train {} --nproc 2 & run=$!
             until test -s runs/{name}-*/metrics.jsonl; do kill -0 $run; sleep 0.05; done
             kill -{signal} {target}; wait $run || exit $?",
            line("adapter", &name, (1, 1), 100_000)
        ));
        assert_eq!(done.code, Some(code), "{name}: {}", done.stderr);
        let export = desk.path(done.stdout.trim_end());
        let run = Run { folder: export.ancestors().nth(2).unwrap().to_owned(), export };
        let newest = run.names("checkpoints").pop().unwrap();
        assert_eq!(newest, format!("step-{:08}", run.rows().len()), "{name}");
        assert_eq!(done.stderr.matches("stopped by a signal").count(), 1, "{}", done.stderr);
    }
}

#[test]
fn bad_steps_list_the_clips_of_all_processes() {
    let desk = Desk::new();
    let line = "animatediff train motion -c $TINY --nproc 2 --set learning_rate=1e30 --max-steps 40 --set max_bad_steps=3 \
                --set train_batch_size=1 --set name=wild";
    let done = desk.run(line);
    assert_eq!(done.code, Some(1), "{}", done.stderr);
    let runs: Vec<_> = fs::read_dir(desk.path("runs")).unwrap().map(|run| run.unwrap().path()).collect();
    let dump = fs::read_dir(runs[0].join("bad_steps")).unwrap().next().unwrap().unwrap().path();
    let dump: serde_json::Value = serde_json::from_slice(&fs::read(dump).unwrap()).unwrap();
    let clips = dump["clips"].as_array().unwrap();
    let mut positions: Vec<u64> = clips.iter().map(|clip| clip["position"].as_u64().unwrap()).collect();
    positions.sort();
    let step = dump["step"].as_u64().unwrap();
    assert_eq!(positions, [2 * step - 2, 2 * step - 1]);
}

#[test]
fn prompts_are_shared_out() {
    let desk = Desk::new();
    let line = "animatediff sample --base $BASE --prompt a --prompt b --prompt c --seed 3 --steps 2 -L 1 -W 32 -H 32";
    desk.ok(&format!("{line} -o one --save-latents one.safetensors"));
    let stdout = desk.ok(&format!("{line} -o two --save-latents two.safetensors --nproc 2"));
    let mut printed: Vec<&str> = stdout.lines().collect();
    printed.sort();
    assert_eq!(printed, ["two/0-a.gif", "two/1-b.gif", "two/2-c.gif"]);
    assert_eq!(desk.latents("one.safetensors"), desk.latents("two.safetensors"));
    for name in ["0-a.gif", "1-b.gif", "2-c.gif", "sample.gif"] {
        assert_eq!(desk.bytes(&format!("one/{name}")), desk.bytes(&format!("two/{name}")), "{name}");
    }
    desk.fails(&format!("{line} -o two --nproc 2"), 2, &["two", "exists already"]);
    desk.refused(
        &format!("RANK=0 WORLD_SIZE=1 MASTER_ADDR=a MASTER_PORT=1 {line} -o three --nproc 2"),
        &["started as rank 0 of 1", "remove --nproc"],
    );
}
