//! Whatever ends a run, what it reached is there to go on from.

use std::{fs, path::Path};

use animatediff::{
    config,
    dist::Comm,
    train::{
        Stage,
        clock::Pace,
        run::{Observer, Run, Summary},
        trainer::StepReport,
    },
};

use crate::{
    cli::support::{Desk, shared},
    support::{global_generator, one_thread},
};

/// Panics when samples were written.
struct Panics;

impl Observer for Panics {
    fn started(&mut self, _: &Summary) {}
    fn stepped(&mut self, _: &StepReport, _: &Pace) {}
    fn wrote(&mut self, what: &str, _: &Path) {
        assert_ne!(what, "samples", "as libtorch would");
    }
    fn note(&mut self, _: &str) {}
}

#[test]
fn a_panic_after_an_update_loses_no_update() {
    let _generator = global_generator();
    one_thread();
    let desk = Desk::new();
    let place = format!("output_dir={}", desk.path("runs").display());
    let settings = [place.as_str(), "max_train_steps=9", "validation_steps=3", "validation_data.prompts=[a]"];
    let settings = settings.map(str::to_owned);
    let config = config::load(Stage::Adapter, Some(Path::new(&shared()["TINY"])), &settings).unwrap();
    let run = Run::prepare(Stage::Adapter, config, Comm::solo()).unwrap();
    let error = run.start("run", &mut Panics).unwrap_err();
    assert!(error.to_string().contains("as libtorch would"), "{error}");
    let folder = fs::read_dir(desk.path("runs")).unwrap().next().unwrap().unwrap().path();
    assert!(folder.join("checkpoints/step-00000003/manifest.json").is_file());
    desk.ok(&format!("animatediff train adapter --resume {} --max-steps 4", folder.display()));
}
