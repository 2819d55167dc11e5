//! `bench` from end to end, at the smallest size.

use animatediff::device::Precision;
use serde_json::Value;
use tch::Device;

use super::support::Desk;

fn report(line: &str) -> Value {
    serde_json::from_str(&Desk::new().ok(line)).expect("one JSON object")
}

#[track_caller]
fn positive(report: &Value, fields: &[&str]) {
    for field in fields {
        assert!(report[field].as_f64().is_some_and(|value| value > 0.0), "{field}: {report}");
    }
}

const STEPS: [&str; 5] = ["step_s_median", "step_s_min", "step_s_max", "step_tflop", "total_s"];
const PROCESS: [&str; 4] = ["peak_mem_gib", "peak_rss_gib", "threads", "time_to_first_step_s"];

#[test]
fn sample_reports_every_step() {
    let report = report(
        "animatediff bench sample --scale tiny --size 32 --frames 2 --steps 3 --batch 2 --dtype fp32 --device cpu --json",
    );
    positive(&report, &STEPS);
    positive(&report, &PROCESS);
    positive(&report, &["decode_s", "text_s", "build_s", "warmup_s", "cpu_per_wall"]);
    let told = ["peer", "mode", "device", "dtype", "scale", "motion"].map(|field| report[field].as_str().unwrap());
    assert_eq!(told, ["animatediff", "sample", "cpu", "fp32", "tiny", "v3"]);
    assert_eq!((&report["frames"], &report["batch"], &report["cfg"]), (&2.into(), &2.into(), &true.into()));
    assert_eq!(report["finite"], true);
}

#[test]
fn updates_are_measured_and_learn_something() {
    let report = report(
        "animatediff bench train-motion --size 32 --frames 2 --steps 2 --dtype fp32 --device cpu --tag here --json",
    );
    positive(&report, &STEPS);
    positive(&report, &PROCESS);
    positive(&report, &["trainable_m", "loss_first", "loss_last"]);
    assert_eq!((&report["tag"], &report["grad_ckpt"]), (&"here".into(), &"none".into()));
}

#[test]
fn auto_is_what_the_commands_take_it_for() {
    let told = |line: &str| {
        report(&format!("animatediff bench {line} --size 32 --frames 1 --steps 1 --device cpu --json"))["dtype"].clone()
    };
    assert_eq!(told("sample"), Precision::of(Precision::Auto.for_sampling(Device::Cpu)).to_string());
    assert_eq!(told("train-motion"), "fp32");
    assert_eq!(told("train-motion --dtype fp16"), "fp16");
}

/// The same losses, whatever is computed again.
#[test]
fn updates_are_the_same_with_less_memory() {
    let line =
        "animatediff bench train-motion --size 32 --frames 2 --steps 2 --dtype fp32 --device cpu --json --grad-ckpt";
    let [none, full] = ["none", "full"].map(|name| report(&format!("{line} {name}")));
    assert_eq!((&none["loss_first"], &none["loss_last"]), (&full["loss_first"], &full["loss_last"]));
    let small = report(&format!("{line} none --adam8bit"));
    assert_eq!((&small["adamw"], &small["loss_first"]), (&"8bit".into(), &none["loss_first"]));
    assert_eq!((&none["grad_ckpt"], &full["grad_ckpt"]), (&"none".into(), &"full".into()));
}

#[test]
fn decoding_is_measured_by_the_frame() {
    let report =
        report("animatediff bench vae-decode --size 32 --frames 3 --decode-chunk 2 --repeat 2 --device cpu --json");
    positive(&report, &["total_s", "frame_s", "tflop", "tflop_per_s", "build_s"]);
    positive(&report, &PROCESS);
    let (total, frame) = (report["total_s"].as_f64().unwrap(), report["frame_s"].as_f64().unwrap());
    assert!((total / 3.0 - frame).abs() < 2e-4, "{report}");
}

/// The second run finds the weights that the first one wrote, and says how long three processes took.
#[test]
fn startup_measures_fresh_processes_on_files() {
    let desk = Desk::new();
    let line = "animatediff bench startup --size 32 --frames 2 --device cpu --dtype fp32 --weights-dir weights --json";
    let first: Value = serde_json::from_str(&desk.ok(line)).unwrap();
    positive(&first, &["load_s", "time_to_first_step_s", "time_to_clip_s", "weights_bytes", "step_s_median"]);
    let written = desk.path("weights/tiny-fp32-v3-seed-0/unet/diffusion_pytorch_model.safetensors");
    let when = std::fs::metadata(&written).unwrap().modified().unwrap();
    let second: Value = serde_json::from_str(&desk.ok(&format!("{line} --repeat 3"))).unwrap();
    assert_eq!(std::fs::metadata(&written).unwrap().modified().unwrap(), when);
    desk.ok(&format!("{line} --seed 1"));
    assert_ne!(
        std::fs::read(desk.path("weights/tiny-fp32-v3-seed-1/unet/diffusion_pytorch_model.safetensors")).unwrap(),
        std::fs::read(&written).unwrap()
    );
    let all: Vec<f64> = serde_json::from_value(second["time_to_first_step_all_s"].clone()).unwrap();
    assert_eq!((all.len(), &second["runs"]), (3, &3.into()));
    assert_eq!(second["time_to_first_step_s"], all[1]);
}

#[test]
fn text_is_for_people() {
    let text = Desk::new().ok("animatediff bench vae-decode --size 32 --frames 1 --device cpu");
    assert!(text.lines().any(|line| line.starts_with("total_s ")), "{text}");
}

#[test]
fn what_cannot_be_measured_is_refused() {
    let desk = Desk::new();
    desk.refused("animatediff bench sample --size 30", &["--size 30", "multiple of 8"]);
    desk.refused("animatediff bench sample --frames 0", &["--frames 0"]);
    desk.refused("animatediff bench vae-decode --decode-chunk 0", &["--decode-chunk 0"]);
    desk.refused("animatediff bench vae-decode --threads 0", &["--threads 0"]);
    for (line, flag) in [("vae-decode --no-cfg", "--no-cfg"), ("train-motion --repeat 2", "--repeat")] {
        let done = desk.run(&format!("animatediff bench {line}"));
        assert!(done.code == Some(2) && done.stderr.contains(flag), "{}", done.stderr);
    }
}
