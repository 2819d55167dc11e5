use animatediff::train::lr::{Kind, Schedule};
use serde::Deserialize;

#[derive(Deserialize)]
struct Golden {
    name: Kind,
    warmup: i64,
    total: i64,
    base_lr: f64,
    num_cycles: Option<f64>,
    power: Option<f64>,
    values: Vec<f64>,
}

#[test]
fn every_schedule_gives_diffusers_rates() {
    let text = std::fs::read_to_string("tests/golden/lr_schedules.json").unwrap();
    let golden: Vec<Golden> = serde_json::from_str(&text).unwrap();
    let mut kinds = Vec::new();
    for golden in &golden {
        let mut schedule = Schedule::new(golden.name, golden.warmup, golden.total);
        schedule.cycles = golden.num_cycles.unwrap_or(schedule.cycles);
        schedule.power = golden.power.unwrap_or(schedule.power);
        for (step, &expected) in golden.values.iter().enumerate() {
            let got = schedule.lr(golden.base_lr, step as i64);
            assert!((got - expected).abs() <= 1e-15, "{:?} at {step}: {got} and not {expected}", golden.name);
        }
        kinds.push(golden.name);
    }
    for kind in [
        Kind::Constant,
        Kind::ConstantWithWarmup,
        Kind::Linear,
        Kind::Cosine,
        Kind::CosineWithRestarts,
        Kind::Polynomial,
    ] {
        assert!(kinds.contains(&kind), "{kind:?} has no golden values");
    }
}

#[test]
fn what_a_schedule_would_not_do_is_refused() {
    let refusal = |kind, warmup| Schedule::new(kind, warmup, 50).check(1e-3).unwrap_err();
    assert_eq!(
        refusal(Kind::Constant, 10),
        "`constant` has no warm-up, and 10 steps are asked for; use `constant_with_warmup`"
    );
    assert_eq!(refusal(Kind::Linear, 60), "the warm-up of 60 steps is longer than the training, 50");
    assert!(Schedule::new(Kind::Polynomial, 0, 50).check(1e-8).unwrap_err().contains("1e-8"));
    assert!(Schedule::new(Kind::Cosine, 10, 50).check(1e-3).is_ok());
}
