//! The experiments' harness, on a random base and the least of everything: that steps are kept, repeated only when what
//! they are made from changes, and taken up after an interruption; and what is reported. What the numbers are is no matter.

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

use animatediff::{
    clip::Clip,
    data::{
        Size,
        shapes::{Scene, Split, Style},
    },
    device::DeviceChoice,
    frame::Frame,
    reproduce::{
        self, Budget, Claim, Settings, Watcher,
        finding::{Target, Unit},
        lab::Record,
        measure, strip,
    },
};
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    cli::support::{Desk, shared},
    support::{global_generator, one_thread},
};

/// Hears all, and may panic at the given update of the step `name`.
#[derive(Default)]
struct Ear {
    records: Vec<Record>,
    begun: Vec<String>,
    crash: Option<(&'static str, u64)>,
}

impl Watcher for Ear {
    fn begun(&mut self, name: &str, _length: u64) {
        self.begun.push(name.to_owned());
    }

    fn at(&mut self, position: u64, _note: String) {
        let here = self.begun.last().map(String::as_str);
        assert!(self.crash.is_none_or(|(name, at)| here != Some(name) || position < at), "as the test wants it");
    }

    fn done(&mut self, record: &Record) {
        self.records.push(record.clone());
    }
}

impl Ear {
    /// The steps that were done anew.
    fn made(&self) -> Vec<&str> {
        self.records.iter().filter(|record| !record.reused).map(|record| record.name.as_str()).collect()
    }

    fn record(&self, name: &str) -> &Record {
        self.records.iter().find(|record| record.name == name).unwrap_or_else(|| panic!("there was no `{name}`"))
    }
}

/// A folder with configurations of its own, in which the experiments are done.
struct Bench {
    dir: TempDir,
    settings: Settings,
}

impl Bench {
    fn new(claims: &[Claim]) -> Bench {
        one_thread();
        let dir = tempfile::tempdir().unwrap();
        let configs = dir.path().join("configs");
        fs::create_dir(&configs).unwrap();
        for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/shapes")).unwrap().flatten() {
            fs::copy(entry.path(), configs.join(entry.file_name())).unwrap();
        }
        let settings = Settings {
            base: PathBuf::from(&shared()["BASE"]),
            configs,
            out: dir.path().join("out"),
            seeds: 1,
            claims: claims.to_vec(),
            budget: Budget { frames: 3, ..Budget::quick() },
            device: DeviceChoice::Cpu,
        };
        let bench = Bench { dir, settings };
        for name in ["adapter", "motion", "motionlora", "style"] {
            bench.edit(name, |text| format!("{text}\ntrain_batch_size: 2\n"), "train_batch_size");
            bench.edit(name, |text| format!("{text}\ncheckpointing_steps: 1\n"), "checkpointing_steps");
        }
        bench.edit("motion", |text| text.replace("sample_n_frames: 8", "sample_n_frames: 3"), "");
        bench.edit("motionlora", |text| text.replace("sample_n_frames: 8", "sample_n_frames: 3"), "");
        bench
    }

    /// Changes a configuration, from which the lines of `key` go first.
    fn edit(&self, name: &str, change: impl Fn(&str) -> String, key: &str) {
        let path = self.settings.configs.join(format!("{name}.yaml"));
        let text = fs::read_to_string(&path).unwrap();
        let kept = text.lines().filter(|line| key.is_empty() || !line.starts_with(key));
        fs::write(&path, change(&kept.collect::<Vec<_>>().join("\n"))).unwrap();
    }

    fn run(&self) -> Ear {
        let mut ear = Ear::default();
        self.run_with(&mut ear);
        ear
    }

    fn run_with(&self, ear: &mut Ear) -> String {
        let _mine = global_generator();
        reproduce::run(&self.settings, ear).unwrap()
    }

    fn report(&self) -> Value {
        serde_json::from_slice(&fs::read(self.settings.out.join("report.json")).unwrap()).unwrap()
    }

    fn leftovers(&self, folder: &str) -> usize {
        fs::read_dir(self.dir.path().join("out").join(folder)).unwrap().count()
    }
}

#[test]
fn claims_are_measured_once_and_a_change_repeats_what_depends_on_it() {
    let bench = Bench::new(&[Claim::PromptedMotion, Claim::OneClip]);
    let first = bench.run();
    assert_eq!(
        first.made(),
        ["videos", "adapter", "module", "animations", "pictures", "through the vae"],
        "each step once, though both claims need it"
    );
    let report = bench.report();
    let again = bench.run();
    assert_eq!((again.made().len(), again.records.len()), (0, 6), "nothing is repeated");
    assert_eq!(report["claims"], bench.report()["claims"], "the same numbers");

    let elsewhere = bench.dir.path().join("base");
    let copied =
        std::process::Command::new("cp").arg("-rL").arg(&bench.settings.base).arg(&elsewhere).status().unwrap();
    assert!(copied.success());
    fs::write(elsewhere.join("README.md"), "Read before use.\n").unwrap();
    let bench = Bench { settings: Settings { base: elsewhere, ..bench.settings.clone() }, ..bench };
    assert!(bench.run().made().is_empty(), "the same weights, wherever they lie and whatever is told of them");

    bench.edit("motion", |text| text.replace("learning_rate: ", "learning_rate: 2"), "");
    assert_eq!(bench.run().made(), ["module", "animations"], "the rest does not depend on the motion stage");
    bench.edit("style", |text| text.replace("learning_rate: ", "learning_rate: 2"), "");
    assert!(bench.run().made().is_empty(), "no claim that was asked for uses it");
    assert_eq!(bench.leftovers("runs"), 0, "runs go when their weights are kept");
}

#[test]
fn an_interrupted_training_goes_on_from_its_checkpoint() {
    let bench = Bench::new(&[Claim::PromptedMotion]);
    let bench = Bench {
        settings: Settings {
            budget: Budget { training_steps: Some(3), ..bench.settings.budget.clone() },
            ..bench.settings.clone()
        },
        ..bench
    };
    let whole = Bench { dir: tempfile::tempdir().unwrap(), settings: bench.settings.clone() };
    let whole = Bench { settings: Settings { out: whole.dir.path().join("out"), ..whole.settings.clone() }, ..whole };

    let mut ear = Ear { crash: Some(("module", 2)), ..Ear::default() };
    catch_unwind(AssertUnwindSafe(|| bench.run_with(&mut ear))).unwrap_err();
    assert_eq!(ear.made(), ["videos", "adapter"]);
    assert_eq!(bench.leftovers("runs"), 1, "the run is kept");

    let ear = bench.run();
    assert_eq!(ear.made(), ["module", "animations", "pictures"]);
    assert_eq!(ear.record("module").notes["resumed_at"], 1);
    assert_eq!(bench.leftovers("runs"), 0);

    let undisturbed = whole.run();
    assert_eq!(undisturbed.record("module").notes["resumed_at"], 0);
    let sampled = |ear: &Ear| ear.record("animations").inputs.clone();
    assert_eq!(sampled(&ear), sampled(&undisturbed), "the module's hash is that of one never interrupted");
}

#[test]
fn the_report_has_every_number_its_target_and_the_table() {
    let bench = Bench::new(&[Claim::PromptedMotion]);
    let bench = Bench { settings: Settings { seeds: 2, ..bench.settings.clone() }, ..bench };
    let mut ear = Ear::default();
    let table = bench.run_with(&mut ear);
    assert!(ear.made().contains(&"module (seed 1)"), "{:?}", ear.made());

    let report = bench.report();
    let claim = &report["claims"][0];
    assert_eq!(claim["claim"], "prompted-motion");
    let row = &claim["numbers"][0];
    assert_eq!(row["name"], "prompted motion, seen");
    assert_eq!(row["target"]["at_least"], 0.95);
    let values: Vec<f64> = row["values"].as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect();
    assert_eq!(values.len(), 2, "one per seed");
    assert!((row["mean"].as_f64().unwrap() - (values[0] + values[1]) / 2.0).abs() < 1e-12);
    assert_eq!(row["met"].as_bool().unwrap(), row["mean"].as_f64().unwrap() >= 0.95);
    assert_eq!((&report["reduced"], &report["seeds"][1]), (&Value::Bool(true), &Value::from(1)));
    for key in ["version", "date", "base_digest", "machine", "budget", "steps"] {
        assert!(!report[key].is_null(), "{key}");
    }
    let module = report["steps"].as_array().unwrap().iter().find(|step| step["name"] == "module (seed 0)").unwrap();
    assert!(module["notes"]["seconds_per_step"].as_f64().unwrap() > 0.0);

    let page = fs::read_to_string(bench.settings.out.join("report.html")).unwrap();
    for text in ["<td>prompted motion, held out</td>", "≥ 95.0 %", "data:image/gif;base64,R0lGODlh", "mean nothing"] {
        assert!(page.contains(text), "{text}");
    }
    assert!(!page.contains("http://") && !page.contains("https://"), "the page needs nothing else");
    assert_eq!(fs::read_to_string(bench.settings.out.join("report.md")).unwrap(), table);
    assert!(table.contains("| prompted motion, seen |"), "{table}");
}

#[test]
fn one_process_at_a_time_writes_into_a_folder() {
    let desk = Desk::new();
    let lock = animatediff::train::folder::RunFolder::debug(&desk.path("out")).unwrap();
    let out = lock.root().display().to_string();
    desk.fails(
        &format!("animatediff reproduce --quick --base $BASE --configs $CONFIGS/shapes -o {out}"),
        1,
        &["another process is writing here"],
    );
}

#[test]
fn wrong_places_are_refused() {
    let desk = Desk::new();
    desk.refused("animatediff reproduce --quick --base none -o out", &["none", "no such folder"]);
    desk.refused("animatediff reproduce --quick --base $BASE -o out", &["configs/shapes/adapter.yaml", "--configs"]);
    desk.refused("animatediff reproduce --base $BASE --seeds 0", &["--seeds"]);
    desk.refused("animatediff reproduce --base $BASE --only everything", &["prompted-motion"]);
}

#[test]
fn eval_shapes_measures_a_base_and_animations() {
    let desk = Desk::new();
    let marks = |line: &str| -> Value { serde_json::from_str(&desk.ok(line)).unwrap() };
    let base = marks("animatediff eval shapes --base $BASE --prompts 3 --steps 2 --json -o stills");
    assert_eq!(base["prompts"], 3);
    assert!((0.0..=1.0).contains(&base["shape_and_colour"].as_f64().unwrap()));
    assert!((0.0..40.0).contains(&base["vae_psnr_db"].as_f64().unwrap()), "{base}");
    assert!((0.0..=1.0).contains(&base["vae_shape_and_colour"].as_f64().unwrap()), "{base}");
    assert!(base["prompted_motion"].is_null());
    let page = fs::read_to_string(desk.path("stills/index.html")).unwrap();
    assert_eq!(page.matches("<img").count(), 3);
    assert!(desk.path("stills/002.png").is_file());

    let clips = marks(
        "animatediff eval shapes --base $GOLD --motion $V2 --motion-lora $LORA:0.5 --adapter $ADAPTER --adapter-scale 0 \
         --split held-out --prompts 2 --steps 2 --frames 3 --json -o clips",
    );
    assert!((0.0..=1.0).contains(&clips["prompted_motion"].as_f64().unwrap()));
    assert!(clips["vae_psnr_db"].is_null() && clips["vae_shape_and_colour"].is_null());
    let followed = clips["followed"].as_f64().unwrap();
    assert_eq!(clips["jumps"]["place"].is_number(), followed > 0.0, "{clips}");
    assert!(base["followed"].is_null() && base["jumps"].is_null());
    assert!(desk.path("clips/001.gif").is_file());
    desk.refused("animatediff eval shapes --base $BASE --prompts 1 -o clips", &["--overwrite"]);
    desk.refused("animatediff eval shapes --base $BASE --split seen", &["--motion"]);
    desk.refused("animatediff eval shapes --base $BASE --steps 0", &["--steps"]);
}

#[test]
fn rendered_truth_passes_every_measure() {
    let scenes: Vec<Scene> = (0..12).map(|index| Scene::draw(5, index, Split::All)).collect();
    let clips: Vec<Clip> = scenes.iter().map(|scene| scene.render(Style::Flat, Size::square(64), 8, 8.0)).collect();
    let verdicts = measure::verdicts(&clips, &scenes, Style::Flat);
    assert!(verdicts.iter().all(|one| one.moves && one.shows), "{verdicts:?}");
    let mut others = scenes.clone();
    others.rotate_left(1);
    let wrong = measure::verdicts(&clips, &others, Style::Flat);
    assert!(measure::share(&wrong, |one| one.moves && one.shows) < 0.3, "another scene's clip does not pass");
    let jumps = measure::jumps(&clips);
    let ratio = measure::jump_ratio(&jumps, &jumps);
    assert!((ratio.place - 1.0).abs() < 1e-9);
    assert!(measure::jump_ratio(&jumps, &[]).place.is_nan());
}

#[test]
fn a_sheet_of_clips_comes_back_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let frame = |level: u8| Frame { width: 3, height: 2, rgb: (0..18).map(|at| level + at).collect() };
    let clips: Vec<Clip> =
        [0u8, 100].map(|level| Clip { frames: vec![frame(level), frame(level + 40)], fps: 8.0 }).to_vec();
    let path = dir.path().join("clips.png");
    strip::write(&path, &clips).unwrap();
    assert_eq!(strip::read(&path, 2, 2, 8.0).unwrap(), clips);
    let error = strip::read(&path, 3, 2, 8.0).unwrap_err().to_string();
    assert!(error.contains("clips.png") && error.contains("3 clips"), "{error}");
}

#[test]
fn targets_are_met_at_their_limits_and_never_by_what_was_not_measured() {
    assert!(Target::AtLeast(0.95).met(0.95) && !Target::AtLeast(0.95).met(0.949));
    assert!(Target::AtMost(1.5).met(1.5) && !Target::AtMost(1.5).met(1.51));
    assert!(Target::Between(0.3, 0.7).met(0.5) && !Target::Between(0.3, 0.7).met(0.2));
    for target in [Target::AtLeast(0.0), Target::AtMost(1e9), Target::Between(0.0, 1.0)] {
        assert!(!target.met(f64::NAN), "{target:?}");
    }
    assert_eq!(Target::AtLeast(0.95).text(Unit::Share), "≥ 95.0 %");
}
