//! Facts about the published models that hold without their weights: sizes, names, tables of numbers, identities.
//!
//! `tests/golden/keys` lists names and shapes of the published files. Full-size networks are built from tensors of one number,
//! expanded to their shapes, which take no memory.

use std::{collections::BTreeMap, fs};

use animatediff::{
    assemble::{Motion, UNetParts, count},
    diffusion::{BetaSchedule, Config, Ddim, NoiseSchedule},
    model::{
        clip::{self, TextEncoder},
        unet::{
            self, UNet,
            motion::{self, position_encoding},
            time::sinusoids,
        },
        vae::{self, Vae},
    },
    nn::{NormScope, Params, Pattern, Plan},
    tokenizer::Tokenizer,
    train::timestep_bias::{Strategy, TimestepBias},
    weights::{
        Content::{LowRank, MotionModule, TextEncoder as Text, Vae as Autoencoder},
        Dialect::{Diffusers, Official},
        Lora, NamedTensors, Table,
    },
};
use tch::{Device, Kind, Tensor};

use crate::support::{
    Keys, assert_close, base, global_generator, golden_path, hollow, keys, motion, motion_keys, one_thread, pair_keys,
    position_keys, table,
};

const CPU: (Kind, Device) = (Kind::Float, Device::Cpu);

// ---- Names and shapes --------------------------------------------------------------------------------------------------

fn import(table: &Table, keys: Keys) -> NamedTensors {
    table.import(hollow(keys), |_| String::new()).unwrap()
}

/// Parameters and tensors of a network that takes each of `tensors`, whole and of that shape, and misses none.
fn built<M>(what: &str, tensors: NamedTensors, new: impl FnOnce(&Params) -> M) -> (i64, usize) {
    one_thread();
    let params = Params::new(tensors, Plan::frozen(), Device::Cpu, Kind::Float);
    new(&params);
    let (store, problems) = params.finish();
    assert!(problems.is_empty(), "{what}: {problems}");
    count(&store)
}

/// Parameters and tensors of a UNet with this motion module, less those of the image layers.
fn motion_size(config: &motion::Config) -> (i64, usize) {
    let mut tensors = hollow(keys("unet.txt"));
    tensors.extend(import(&table(MotionModule, Official), motion_keys(config.motion_module_mid_block)));
    let new = |params: &Params| UNet::new(params, &unet::Config::default(), Some(config));
    let (parameters, tensors) = built(config.version().unwrap(), tensors, new);
    (parameters - 859_520_964, tensors - 686)
}

#[test]
fn image_model_has_the_published_names_and_sizes() {
    let unet = built("UNet", hollow(keys("unet.txt")), |params| UNet::new(params, &unet::Config::default(), None));
    assert_eq!(unet, (859_520_964, 686));

    let vae = import(&table(Autoencoder, Diffusers), keys("vae.txt"));
    let vae = built("VAE", vae, |params| Vae::new(params, &vae::Config::default()));
    assert_eq!(vae, (83_653_863, 248));

    let text = import(&table(Text, Diffusers), keys("text_encoder.txt"));
    let text = built("text encoder", text, |params| TextEncoder::new(params, &clip::Config::default()));
    assert_eq!(text, (123_060_480, 196));
}

#[test]
fn motion_modules_have_the_published_names_and_sizes() {
    assert_eq!(motion_size(&motion::Config::v1()), (417_137_600, 520));
    assert_eq!(motion_size(&motion::Config::v2()), (453_209_280, 546));
    assert_eq!(motion_size(&motion::Config::v3()), (417_137_600, 520));
}

#[test]
fn names_go_to_ours_and_back() {
    let with_positions = |mid, frames| {
        let module = motion_keys(mid);
        position_keys(&module, frames).into_iter().chain(module).collect()
    };
    let motion_lora = pair_keys(&motion_keys(true), 64);
    let adapter = pair_keys(&keys("unet.txt"), 128);
    let mut text = keys("text_encoder.txt");
    text.insert("text_model.embeddings.position_ids".into(), vec![1, 77]);
    // The table, names, how many there are, and how many of them are computed and left out.
    let cases: [(&str, Table, Keys, usize, usize); 6] = [
        ("v1 and v3 module", table(MotionModule, Official), with_positions(false, 24), 560, 40),
        ("v2 module", table(MotionModule, Official), with_positions(true, 32), 588, 42),
        ("MotionLoRA", table(LowRank, Official), motion_lora, 336, 0),
        ("adapter", table(LowRank, Official), adapter, 256, 0),
        ("VAE, older names", table(Autoencoder, Diffusers), keys("vae.txt"), 248, 0),
        ("text encoder", table(Text, Diffusers), text, 197, 1),
    ];
    for (what, table, keys, total, left_out) in cases {
        assert_eq!(keys.len(), total, "{what}");
        let there =
            |theirs: &String| table.import_name(theirs).unwrap_or_else(|| panic!("{what}: {theirs} is unknown"));
        let ours: BTreeMap<&String, String> = keys.keys().filter_map(|name| Some((name, there(name)?))).collect();
        assert_eq!(ours.len(), total - left_out, "{what}");
        for (theirs, ours) in ours {
            // Where there are two spellings, the newer one is written.
            let back = table.export_name(&ours).unwrap();
            assert!(back == *theirs || what == "VAE, older names" && back == ours, "{what}: {theirs}, back {back}");
        }
    }
}

#[test]
fn the_newest_text_encoders_drop_a_level_of_names() {
    let names = keys("text_encoder.txt");
    let (old, new) = (import(&table(Text, Diffusers), names.clone()), {
        let short = |(name, shape): (String, _)| (name.trim_start_matches("text_model.").to_owned(), shape);
        import(&table(Text, Diffusers), names.into_iter().map(short).collect())
    });
    assert!(old.names().eq(new.names()));
}

#[test]
fn low_rank_files_fit_their_models() {
    let module = import(&table(MotionModule, Official), motion_keys(true));
    // File, its pairs, parameters, the model it is for.
    let cases = [
        ("MotionLoRA", table(LowRank, Official), pair_keys(&motion_keys(true), 64), 19_333_120, module),
        ("adapter", table(LowRank, Official), pair_keys(&keys("unet.txt"), 128), 25_509_888, hollow(keys("unet.txt"))),
    ];
    for (what, table, pairs, parameters, mut model) in cases {
        let (tensors, size): (usize, i64) = (pairs.len(), pairs.values().map(|shape| shape[0] * shape[1]).sum());
        assert_eq!(size, parameters, "{what}");
        let lora = Lora::from_tensors(import(&table, pairs).split_off("unet."), what).unwrap();
        assert_eq!(lora.len(), tensors / 2, "{what}: pairs");
        // At scale 0 the fit is checked and nothing is computed.
        lora.merge_into(&mut model, 0.0).unwrap();
    }
}

// ---- Identities of the networks ----------------------------------------------------------------------------------------

/// Latents, timesteps and text for two clips; numbers that need no generator.
fn inputs(frames: i64) -> (Tensor, Tensor, Tensor) {
    let waves = |shape: &[i64]| (Tensor::arange(shape.iter().product::<i64>(), CPU) * 0.7).sin().view(shape) * 1.4;
    (waves(&[2, 4, frames, 8, 8]), Tensor::from_slice(&[801i64, 40]), waves(&[2, 77, 24]))
}

#[test]
fn a_new_motion_module_changes_nothing() {
    let _lock = global_generator();
    let base = base();
    let (pictures, _) = UNetParts::new(&base).build(Plan::frozen(), Device::Cpu, Kind::Float).unwrap();
    let versions = [
        ("v1", motion::Config::v1(), &[1][..]),
        ("v2", motion::Config::v2(), &[1, 2, 7]),
        ("v3", motion::Config::v3(), &[1, 16, 40]),
    ];
    for (version, config, clip_lengths) in versions {
        let parts = UNetParts { motion: Some(Motion::fresh(config)), ..UNetParts::new(&base) };
        let fresh = Plan { fresh: vec![Pattern::new("motion_modules.")], ..Plan::frozen() };
        let (video, _) = parts.build(fresh, Device::Cpu, Kind::Float).unwrap();
        for &frames in clip_lengths {
            let (latents, timesteps, text) = inputs(frames);
            let per_frame = (0..frames).map(|f| pictures.forward(&latents.narrow(2, f, 1), &timesteps, &text));
            let want = Tensor::cat(&per_frame.collect::<Vec<_>>(), 2);
            let got = video.forward(&latents, &timesteps, &text);
            assert_close(&format!("{version}, {frames} frames"), &got, &want, 1e-5);
        }
    }
}

#[test]
fn norms_over_one_frame_are_the_same_in_all_versions() {
    let base = base();
    let (latents, timesteps, text) = inputs(1);
    let run = |version, scope| {
        let parts = UNetParts { motion: Some(motion(version, scope)), ..UNetParts::new(&base) };
        parts.build(Plan::frozen(), Device::Cpu, Kind::Float).unwrap().0.forward(&latents, &timesteps, &text)
    };
    let want = run("v3", NormScope::Frame);
    assert_close("v1, frame", &run("v1", NormScope::Frame), &want, 1e-6);
    assert_close("v1, clip", &run("v1", NormScope::Clip), &want, 1e-6);
    assert_close("v3, clip", &run("v3", NormScope::Clip), &want, 1e-6);
}

// ---- Tables of numbers -------------------------------------------------------------------------------------------------

#[test]
fn position_encodings() {
    let values = |width: i64, row: i64, columns: &[i64]| -> Vec<f64> {
        let table = position_encoding(24, width);
        columns.iter().map(|&column| table.double_value(&[0, row, column])).collect()
    };
    let want = [0.841471, 0.540302, 0.809947, 0.586504, 0.777858, 0.628439];
    assert_values("320 wide, row 1", &values(320, 1, &[0, 1, 2, 3, 4, 5]), &want);
    assert_values("320 wide, row 23", &values(320, 23, &[0, 1, 318, 319]), &[-0.846220, -0.532833, 0.002436, 0.999997]);
    assert_values("1280 wide, row 5", &values(1280, 5, &[0, 1, 2, 3]), &[-0.958924, 0.283662, -0.976726, 0.214491]);
    assert_eq!(position_encoding(40, 320).narrow(1, 0, 24), position_encoding(24, 320), "longer tables begin alike");
}

#[test]
fn timestep_sinusoids() {
    let table = sinusoids(&Tensor::from_slice(&[961i64]), 320, true, 0);
    let values: Vec<f64> =
        [0, 1, 2, 159, 160, 161, 319].iter().map(|&column| table.double_value(&[0, column])).collect();
    let want = [0.946897, -0.778970, -0.396915, 0.994823, -0.321537, 0.627061, 0.101619];
    for (got, want) in values.iter().zip(want) {
        // Float32 angles of up to 961 radians are good to about 3e-5.
        assert!((got - want).abs() < 1e-4, "{values:?} instead of {want:?}");
    }
}

#[test]
fn noise_levels() {
    // Betas, their end, then ᾱ at 0, 1, 499 and 999, and σ = √((1-ᾱ)/ᾱ) at 0 and 999.
    let cases = [
        (BetaSchedule::Linear, 0.012, [0.99915, 0.99828957, 0.16181215, 0.00157896], [0.0291672, 25.146115]),
        (BetaSchedule::ScaledLinear, 0.012, [0.99915, 0.99829603, 0.27766965, 0.00466010], [0.0291672, 14.614641]),
        (BetaSchedule::ScaledLinear, 0.020, [0.99915, 0.99829416, 0.17014563, 0.00023001], [0.0291672, 65.928658]),
    ];
    for (beta_schedule, beta_end, alphas, sigmas) in cases {
        let schedule = NoiseSchedule::new(&Config { beta_schedule, beta_end, ..Config::default() });
        let what = format!("{beta_schedule:?} to {beta_end}");
        let alpha = |t| schedule.alpha_cumprod(t);
        let sigma = |t| ((1.0 - alpha(t)) / alpha(t)).sqrt();
        assert_values(&what, &[0, 1, 499, 999].map(alpha), &alphas);
        for (got, want) in [0, 999].map(sigma).iter().zip(sigmas) {
            assert!((got / want - 1.0).abs() < 1e-4, "{what}: σ {got} instead of {want}");
        }
    }
}

#[test]
fn the_favoured_end_of_the_schedule_is_drawn_as_often_as_it_says() {
    let _mine = global_generator();
    tch::manual_seed(5);
    let share_of_last_half = |strategy, multiplier| {
        let drawn = TimestepBias { strategy, multiplier, portion: 0.5 }.draw(1000, 20_000);
        assert!(drawn.min().int64_value(&[]) >= 0 && drawn.max().int64_value(&[]) < 1000);
        drawn.ge(500).to_kind(Kind::Double).mean(Kind::Double).double_value(&[])
    };
    for (strategy, multiplier, expected) in [
        (Strategy::None, 9.0, 0.5),
        (Strategy::Later, 4.0, 0.8),
        (Strategy::Earlier, 4.0, 0.2),
        (Strategy::Earlier, 1.0, 0.5),
    ] {
        let share = share_of_last_half(strategy, multiplier);
        assert!((share - expected).abs() < 0.02, "{strategy:?} x{multiplier}: {share}");
    }
}

#[test]
fn ddim_visits_the_official_timesteps() {
    let schedule = NoiseSchedule::new(&Config::default());
    let want: Vec<i64> = (0..25).rev().map(|step| 40 * step + 1).collect();
    assert_eq!((want[0], want[1], want[24]), (961, 921, 1));
    assert_eq!(Ddim::new(&schedule, 25).timesteps(), want);
}

#[test]
fn ddim_of_the_true_noise_moves_along_it() {
    let waves = |rate: f64| (Tensor::arange(96, CPU) * rate).sin();
    let (clean, noise) = (waves(0.7), waves(1.3));
    let schedule = NoiseSchedule::new(&Config::default());
    let at = |t: i64| {
        let alpha = schedule.alpha_cumprod(t);
        &clean * alpha.sqrt() + &noise * (1.0 - alpha).sqrt()
    };
    let ddim = Ddim::new(&schedule, 25);
    for &t in ddim.timesteps() {
        assert_close(&format!("step from {t}"), &ddim.step(&at(t), &noise, t), &at(t - 40), 1e-6);
    }
    let end = ddim.sample(at(961), |_, _| noise.shallow_clone(), |_| Ok::<(), ()>(())).unwrap();
    assert_close("25 steps", &end, &clean, 1e-5);
}

/// An empty prompt is the start, then ends; here with a vocabulary of the published size, whose merges do not matter.
#[test]
fn empty_prompt() {
    let tiny = serde_json::from_str::<BTreeMap<String, u32>>(
        &fs::read_to_string(golden_path("base/tokenizer/vocab.json")).unwrap(),
    );
    let mut vocabulary: BTreeMap<String, u32> = tiny.unwrap().into_iter().filter(|(_, id)| *id < 512).collect();
    vocabulary.extend((512..49_406).map(|id| (format!("token {id}"), id)));
    vocabulary.extend([("<|startoftext|>".into(), 49_406), ("<|endoftext|>".into(), 49_407)]);
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("vocab.json"), serde_json::to_string(&vocabulary).unwrap()).unwrap();
    fs::write(dir.path().join("merges.txt"), "#version: 0.2\n").unwrap();
    let ids = Tokenizer::open(dir.path()).unwrap().encode("");
    assert_eq!(ids[0], 49_406);
    assert_eq!(ids[1..], [49_407; 76]);
}

/// Within half a unit of the last of six decimals.
fn assert_values(what: &str, got: &[f64], want: &[f64]) {
    for (got, want) in got.iter().zip(want) {
        assert!((got - want).abs() < 1e-6, "{what}: {got} instead of {want}");
    }
}
