use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use animatediff::yaml::{Layers, Origin, UserFile, load, origin, to_text};
use serde::{Deserialize, Serialize};

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Config {
    output_dir: PathBuf,
    learning_rate: f64,
    max_train_steps: u64,
    mixed_precision_training: bool,
    #[serde(default)]
    scheduler: Scheduler,
    train_data: TrainData,
    #[serde(default)]
    validation: Option<Validation>,
    #[serde(default)]
    unet_additional_kwargs: BTreeMap<String, serde_yaml::Value>,
    #[serde(default)]
    jobs: Vec<Validation>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct TrainData {
    sample_size: u32,
    sample_stride: u32,
    #[serde(default)]
    csv_path: Option<String>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Validation {
    prompts: Vec<String>,
    #[serde(default)]
    guidance_scale: f32,
}

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Scheduler {
    #[default]
    Constant,
    Linear,
}

const DEFAULTS: &str = "
output_dir: outputs
learning_rate: 1e-4
max_train_steps: 100
mixed_precision_training: true
train_data: {sample_size: 256, sample_stride: 4}
unet_additional_kwargs: {a: 1, b: 2}
";

fn try_load(text: &str, set: &[&str]) -> Result<Config, String> {
    let defaults = serde_yaml::from_str(DEFAULTS).unwrap();
    let overrides: Vec<String> = set.iter().map(|s| s.to_string()).collect();
    let file = UserFile { path: Path::new("train.yaml"), text };
    let replaced = ["unet_additional_kwargs"];
    load(Layers { defaults: Some(&defaults), file: Some(file), overrides: &overrides, replaced: &replaced })
        .map_err(|e| e.to_string())
}

fn message(text: &str, set: &[&str]) -> String {
    try_load(text, set).unwrap_err()
}

#[test]
fn layers_merge_and_the_last_wins() {
    let text = "learning_rate: 1.e-5\ntrain_data:\n  sample_size: 128\nvalidation: {prompts: [a, b]}\n";
    let config =
        try_load(text, &["train_data.sample_size=64", "validation.prompts.1='1'", "train_data.sample_size=32"]);
    let config = config.unwrap();
    assert_eq!(config.learning_rate, 1e-5);
    assert_eq!(config.train_data, TrainData { sample_size: 32, sample_stride: 4, csv_path: None });
    assert_eq!(config.validation.as_ref().unwrap().prompts, ["a", "1"]);
    let set_section = try_load("", &["train_data={sample_size: 8}", "learning_rate=1"]).unwrap();
    assert_eq!((set_section.train_data.sample_size, set_section.train_data.sample_stride), (8, 4));
    assert_eq!(set_section.learning_rate, 1.0);
}

#[test]
fn some_sections_are_replaced_whole() {
    assert_eq!(try_load("", &[]).unwrap().unet_additional_kwargs.len(), 2);
    let config = try_load("unet_additional_kwargs: {c: 3}", &[]).unwrap();
    assert_eq!(config.unet_additional_kwargs.keys().collect::<Vec<_>>(), ["c"]);
    let config = try_load("", &["unet_additional_kwargs={d: 4}"]).unwrap();
    assert_eq!(config.unet_additional_kwargs.keys().collect::<Vec<_>>(), ["d"]);
    let config = try_load("", &["unet_additional_kwargs.a=4"]).unwrap();
    assert_eq!(config.unet_additional_kwargs.len(), 2);
}

#[test]
fn text_loads_back() {
    let config = try_load("scheduler: linear\nvalidation: {prompts: ['yes', '1', \"a: b\"]}", &[]).unwrap();
    assert_eq!(try_load(&to_text(&config), &[]).unwrap(), config);
}

#[test]
fn an_optional_section_can_be_switched_off_and_comments_change_nothing() {
    assert_eq!(try_load("validation: null", &[]).unwrap().validation, None);
    assert_eq!(try_load("# nothing\n", &[]).unwrap(), try_load("{}", &[]).unwrap());
}

#[test]
fn a_slip_in_a_nested_key_names_line_and_remedy() {
    assert_eq!(
        message("# comment\nlearning_rate: 1e-4\ntrain_data:\n  # size\n  sample_sizee: 256\n", &[]),
        "train.yaml:5: unknown key `train_data.sample_sizee`; did you mean `train_data.sample_size`?"
    );
}

#[test]
fn all_mistakes_are_reported_at_once() {
    let text = "learnign_rate: 1\nmax_train_steps: ten\ntrain_data:\n  csv: x\nmixed_precision_training: yes\n";
    assert_eq!(
        message(text, &["validation.promts=[a]", "nosuch=1"]).lines().collect::<Vec<_>>(),
        [
            "train.yaml:1: unknown key `learnign_rate`; did you mean `learning_rate`?",
            "train.yaml:2: `max_train_steps`: expected a whole number from 0 up, found the text \"ten\"",
            "train.yaml:4: unknown key `train_data.csv`; known here: sample_size, sample_stride, csv_path",
            "train.yaml:5: `mixed_precision_training`: expected true or false, found the text \"yes\"; YAML 1.2 has only true and false",
            "--set validation.promts=[a]: unknown key `validation.promts`; did you mean `validation.prompts`?",
            "--set validation.promts=[a]: the key `validation.prompts` is missing",
            "--set nosuch=1: unknown key `nosuch`; known here: output_dir, learning_rate, max_train_steps, \
             mixed_precision_training, scheduler, train_data, validation, unet_additional_kwargs, jobs",
        ]
    );
}

#[test]
fn wrong_types_say_what_was_expected_and_found() {
    let cases = [
        ("learning_rate: fast", "1: `learning_rate`: expected a number, found the text \"fast\""),
        (
            "learning_rate: '1e-4'",
            "1: `learning_rate`: expected a number, found the text \"1e-4\"; take the quotes away",
        ),
        ("\nlearning_rate:", "2: `learning_rate`: expected a number, found nothing (null)"),
        ("max_train_steps: -1", "1: `max_train_steps`: expected a whole number from 0 up, found -1"),
        ("max_train_steps: 1.5", "1: `max_train_steps`: expected a whole number from 0 up, found 1.5"),
        ("train_data: 5", "1: `train_data`: expected a section of keys, found 5"),
        ("train_data:\n  # sample_size: 1\n", "1: `train_data`: expected a section of keys, found nothing (null)"),
        ("train_data: [1, 2]", "1: `train_data`: expected a section of keys, found a list"),
        ("output_dir: 5", "1: `output_dir`: expected a text, found 5"),
        (
            "scheduler: linaer",
            "1: `scheduler`: expected one of constant, linear, found `linaer`; did you mean `linear`?",
        ),
        ("validation: {guidance_scale: 1}", "1: the key `validation.prompts` is missing"),
        (
            "train_data: {\n  sample_size: x}",
            "1: `train_data.sample_size`: expected a whole number from 0 up, found the text \"x\"",
        ),
        ("jobs:\n- prompts: [a]\n- prompts: a\n", "3: `jobs.1.prompts`: expected a list, found the text \"a\""),
        ("jobs:\n- prompts: [a]\n  promts: [a]\n", "3: unknown key `jobs.0.promts`; did you mean `jobs.0.prompts`?"),
        ("sample_size: 5", "1: unknown key `sample_size`; did you mean `train_data.sample_size`?"),
    ];
    for (text, expected) in cases {
        assert_eq!(message(text, &[]), format!("train.yaml:{expected}"), "{text}");
    }
}

#[test]
fn bad_overrides_name_themselves() {
    let cases = [
        ("learning_rte=1", "unknown key `learning_rte`; did you mean `learning_rate`?"),
        ("train_date.sample_size=1", "unknown key `train_date`; did you mean `train_data`?"),
        (
            "train_data.sample_size=big",
            "`train_data.sample_size`: expected a whole number from 0 up, found the text \"big\"",
        ),
        ("learning_rate", "expected `key=value`, as in `--set train_data.sample_size=256`"),
        ("a..b=1", "`a..b` is not a dotted key"),
        ("learning_rate=[1", "the value is not valid YAML: did not find expected ',' or ']'"),
        ("learning_rate.x=1", "`learning_rate` is 0.0001, which has no key `x`"),
        ("jobs.3.prompts=[a]", "`jobs` has 1 entries, counted from 0: there is no 3"),
        ("jobs.x=1", "`jobs` is a list: expected a number after it, found `x`"),
        ("learning_rate=.nan", ".nan in the value is not finite"),
    ];
    for (set, expected) in cases {
        assert_eq!(message("jobs: [{prompts: [a]}]", &[set]), format!("--set {set}: {expected}"));
    }
}

#[test]
fn syntax_errors_and_double_keys_name_their_line() {
    let double = message("learning_rate: 1\nmax_train_steps: 5\nlearning_rate: 2\n", &[]);
    assert_eq!(double, "train.yaml:3: `learning_rate` is given twice, first on line 1");
    let nested = message("a: 1\ntrain_data:\n  sample_size: 1\n  sample_size: 2\n", &[]);
    assert_eq!(nested, "train.yaml:4: `train_data.sample_size` is given twice, first on line 3");
    let flow = message("train_data: {a: 1, a: 2}\n", &[]);
    assert_eq!(flow, "train.yaml:1: not valid YAML: train_data: duplicate entry with key \"a\"");
    let syntax = message("learning_rate: 1\ntrain_data: [1, 2\nmax_train_steps: 5\n", &[]);
    assert!(syntax.starts_with("train.yaml:3: not valid YAML: "), "{syntax}");
    let tab = message("train_data:\n\tsample_size: 5\n", &[]);
    assert!(tab.starts_with("train.yaml:2: not valid YAML: "), "{tab}");
    assert!(message("- 1\n", &[]).contains("the whole: expected a section of keys, found a list"));
}

#[test]
fn anchors_and_merge_keys_work() {
    let text = "train_data: &t {sample_size: 9}\njobs:\n- &j {prompts: [a]}\n- {<<: *j, guidance_scale: 2}\n";
    let config = try_load(text, &[]).unwrap();
    assert_eq!((config.train_data.sample_size, config.jobs[1].guidance_scale), (9, 2.0));
    assert_eq!(config.jobs[1].prompts, ["a"]);
}

#[test]
fn lines_are_found_in_any_block_style() {
    let text = "\
'output_dir': |
  max_train_steps: not a key
  x
unet_additional_kwargs: {a: [1,
  max_train_steps], # ]
  b: \"}
  \"}
validation:
    prompts:
    - first
    - - deep
      - deeper: 1
    -
      second: 2
    guidance_scale: 2
max_train_steps: 5
";
    let file = UserFile { path: Path::new("x.yaml"), text };
    let overrides = ["learning_rate=1".to_owned()];
    let layers = Layers { file: Some(file), overrides: &overrides, ..Layers::default() };
    let line = |key: &str| match origin(layers, key) {
        Origin::File { line, .. } => line.unwrap(),
        other => panic!("{key}: {other:?}"),
    };
    let cases = [
        ("output_dir", 1),
        ("unet_additional_kwargs.b", 4),
        ("validation.prompts", 9),
        ("validation.prompts.0", 10),
        ("validation.prompts.1.1.deeper", 12),
        ("validation.prompts.2.second", 14),
        ("validation.guidance_scale", 15),
        ("validation.missing", 8),
        ("max_train_steps", 16),
    ];
    for (key, expected) in cases {
        assert_eq!(line(key), expected, "{key}");
    }
    assert_eq!(origin(layers, "learning_rate").to_string(), "--set learning_rate=1");
    assert_eq!(origin(layers, "other"), Origin::Defaults);
}
