//! That training teaches: from the bundled base and a motion module that was trained for a short while, a few dozen updates
//! lower the loss on clips of combinations that are held out. Golden values cannot tell: with the captions of other clips, or
//! with most of the module frozen, every number is as exact, and nothing is learned.

use std::path::Path;

use crate::cli::support::Desk;

/// Updates of four clips.
const UPDATES: usize = 40;

/// By how much the loss has to fall, as a share of what it was.
const MARGIN: f64 = 0.01;

#[test]
fn a_few_dozen_updates_teach_what_was_held_out_and_only_with_the_right_captions() {
    let desk = Desk::new();
    desk.ok("animatediff data shapes seen --clips 160 --frames 16 --veil 0 --seed 11");
    desk.ok("animatediff data shapes held --clips 48 --frames 16 --veil 0 --split held-out --seed 12");
    desk.write("shuffled.csv", shuffled(&String::from_utf8(desk.bytes("seen/clips.csv")).unwrap()));
    let before = held_out_loss(&desk, &bundled("data/shapes-motion/motion_module.safetensors"));
    let after = |captions: &str, rest: &str| {
        let run = desk.train(&format!(
            "{} --csv {captions} --set train_data.video_folder=seen/videos --max-steps {UPDATES} --set learning_rate=5.0e-4 {rest}",
            settings(&bundled("data/shapes-motion/motion_module.safetensors"))
        ));
        held_out_loss(&desk, &run.export.display().to_string())
    };
    let gain = |after: f64| 1.0 - after / before;
    let right = gain(after("seen/clips.csv", ""));
    let wrong = gain(after("shuffled.csv", ""));
    let frozen = gain(after("seen/clips.csv", "--set 'trainable_modules=[motion_modules.*.proj_out.bias]'"));
    println!(
        "loss before {before:.4}; lower by {right:.4}, with captions of other clips {wrong:.4}, frozen {frozen:.4}"
    );
    assert!(right >= MARGIN, "the loss of {before:.4} fell by {right:.4} of it only");
    assert!(wrong < right - MARGIN && wrong < MARGIN / 2.0, "captions of other clips teach as well: {wrong:.4}");
    assert!(frozen < right - MARGIN / 2.0 && frozen < MARGIN, "the biases alone learn as well: {frozen:.4}");
}

/// The loss on 48 clips, always at the same timesteps and with the same noise.
fn held_out_loss(desk: &Desk, module: &str) -> f64 {
    let told = desk.ok(&format!(
        "animatediff train {} --csv held/clips.csv --set train_data.video_folder=held/videos --set train_batch_size=48 --dry-run",
        settings(module)
    ));
    let number = told.split("loss on the next clips: ").nth(1).and_then(|rest| rest.split(';').next()).unwrap();
    number.parse().unwrap()
}

fn settings(module: &str) -> String {
    let base = bundled("data/shapes-base");
    format!(
        "motion -c $CONFIGS/shapes/motion.yaml --base {base} --motion {module} -o runs --set checkpointing_steps=-1 \
         --set train_data.prefetch=48 --set lr_scheduler=constant --set lr_warmup_steps=0"
    )
}

fn bundled(path: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path).display().to_string()
}

/// The table with every caption moved on by a third of the rows.
fn shuffled(table: &str) -> String {
    let rows: Vec<(&str, &str)> = table.lines().skip(1).map(|row| row.rsplit_once(',').unwrap()).collect();
    let caption = |index: usize| rows[(index + rows.len() / 3) % rows.len()].1;
    let lines = rows.iter().enumerate().map(|(index, (clip, _))| format!("{clip},{}\n", caption(index)));
    table.lines().take(1).map(|head| format!("{head}\n")).chain(lines).collect()
}
