//! Properties of the mapping tables: no name is lost, none is guessed.

use animatediff::{
    nn::Source,
    weights::{Content, Dialect, NamedTensors, Table, formats::Topology, map::Row},
};
use proptest::prelude::*;
use tch::{Kind, Tensor};

use crate::support::{Keys, keys, motion_keys, pair_keys, table, table_of};

/// Where a module or a spatial transformer may be.
fn places() -> impl Strategy<Value = String> {
    prop_oneof![
        (0..20u32).prop_map(|block| format!("down_blocks.{block}")),
        (0..20u32).prop_map(|block| format!("up_blocks.{block}")),
        Just("mid_block".to_owned()),
    ]
}

fn one_of(options: &'static [&'static str]) -> impl Strategy<Value = &'static str> {
    proptest::sample::select(options)
}

/// Names in an official motion module whose blocks have `attentions` attentions.
fn motion_names(attentions: usize) -> impl Strategy<Value = String> {
    let weight = one_of(&["weight", "bias"]);
    let within = prop_oneof![
        (0..attentions, one_of(&["to_q", "to_k", "to_v", "to_out.0"]))
            .prop_map(|(i, p)| format!("attention_blocks.{i}.{p}")),
        (0..attentions).prop_map(|i| format!("norms.{i}")),
        one_of(&["ff_norm", "ff.net.0.proj", "ff.net.2"]).prop_map(String::from),
    ];
    let within = (0..12u32, within).prop_map(|(block, part)| format!("transformer_blocks.{block}.{part}"));
    let part = prop_oneof![4 => within, 1 => one_of(&["norm", "proj_in", "proj_out"]).prop_map(String::from)];
    (places(), 0..12u32, part, weight).prop_map(|(place, module, part, weight)| {
        format!("{place}.motion_modules.{module}.temporal_transformer.{part}.{weight}")
    })
}

const PROJECTIONS: &[&str] = &["to_q", "to_k", "to_v", "to_out"];
const FACTORS: &[&str] = &["down", "up"];

fn motion_lora_names(attentions: usize) -> impl Strategy<Value = String> {
    (places(), 0..12u32, 0..12u32, 0..attentions, one_of(PROJECTIONS), one_of(FACTORS)).prop_map(
        |(place, module, block, attention, projection, factor)| {
            format!(
                "{place}.motion_modules.{module}.temporal_transformer.transformer_blocks.{block}.\
                 attention_blocks.{attention}.processor.{projection}_lora.{factor}.weight"
            )
        },
    )
}

fn adapter_names() -> impl Strategy<Value = String> {
    (places(), 0..12u32, 0..12u32, 1..3u32, one_of(PROJECTIONS), one_of(FACTORS)).prop_map(
        |(place, transformer, block, attention, projection, factor)| {
            format!(
                "{place}.attentions.{transformer}.transformer_blocks.{block}.\
                 attn{attention}.processor.{projection}_lora.{factor}.weight"
            )
        },
    )
}

fn motion_table(attentions: usize) -> Table {
    table_of(Content::MotionModule, Dialect::Official, &Topology { attentions, ..Topology::default() })
}

fn low_rank_table(attentions: usize) -> Table {
    table_of(Content::LowRank, Dialect::Official, &Topology { attentions, ..Topology::default() })
}

fn back(table: &Table, theirs: &str) -> Option<String> {
    table.export_name(&table.import_name(theirs)??)
}

/// A random part of `names`.
fn some_of(names: Vec<String>) -> impl Strategy<Value = Vec<String>> {
    let most = names.len().min(60);
    proptest::sample::subsequence(names, 1..=most)
}

/// Every format, by the names of a published file of Stable Diffusion's size or, where there is none, what ours are in it.
fn every_format() -> Vec<(Content, Dialect, Vec<String>)> {
    let files = |file: &str| keys(file).into_keys().collect::<Vec<_>>();
    let pairs = |keys: &Keys| pair_keys(keys, 8).into_keys().collect::<Vec<_>>();
    let pairs: Vec<String> = [pairs(&motion_keys(true)), pairs(&keys("unet.txt"))].concat();
    let in_other = |content, from, to, names: &[String]| {
        let (from, to) = (table(content, from), table(content, to));
        let ours = names.iter().filter_map(|name| from.import_name(name).unwrap());
        ours.map(|ours| to.export_name(&ours).unwrap()).collect::<Vec<_>>()
    };
    let module = motion_keys(true).into_keys().collect::<Vec<_>>();
    use {Content::*, Dialect::*};
    vec![
        (UNet, Diffusers, files("unet.txt")),
        (TextEncoder, Diffusers, files("text_encoder.txt")),
        (MotionModule, Diffusers, in_other(MotionModule, Official, Diffusers, &module)),
        (LowRank, Diffusers, in_other(LowRank, Official, Diffusers, &pairs)),
        (LowRank, Kohya, in_other(LowRank, Official, Kohya, &pairs)),
        (MotionModule, Official, module),
        (LowRank, Official, pairs),
        (Checkpoint, Ldm, files("checkpoint_ldm.txt")),
        (ControlNet, Ldm, files("controlnet_ldm.txt")),
        (ControlNet, Diffusers, files("controlnet.txt")),
        (SparseCtrl, Official, files("sparse_rgb.txt")),
        (SparseCtrl, Official, files("sparse_scribble.txt")),
        (LowRank, Kohya, files("lora_kohya.txt")),
    ]
}

proptest! {
    /// Any part of any format's names comes back the same, whichever way it takes.
    #[test]
    fn every_table_round_trips(
        (content, dialect, names) in proptest::sample::select(every_format())
            .prop_flat_map(|(content, dialect, names)| (Just(content), Just(dialect), some_of(names)))
    ) {
        let table = table(content, dialect);
        for name in names {
            match table.import_name(&name) {
                None => prop_assert!(false, "{content:?} {dialect}: {name} is unknown"),
                Some(None) => {}
                Some(Some(ours)) => {
                    prop_assert_eq!(table.export_name(&ours), Some(name));
                }
            }
        }
    }

    #[test]
    fn motion_modules_go_both_ways((attentions, name) in (1..6usize).prop_flat_map(|n| (Just(n), motion_names(n)))) {
        prop_assert_eq!(back(&motion_table(attentions), &name), Some(name));
    }

    #[test]
    fn motion_loras_go_both_ways((attentions, name) in (1..6usize).prop_flat_map(|n| (Just(n), motion_lora_names(n)))) {
        prop_assert_eq!(back(&low_rank_table(attentions), &name), Some(name));
    }

    #[test]
    fn adapters_go_both_ways(name in adapter_names()) {
        prop_assert_eq!(back(&low_rank_table(2), &name), Some(name));
    }

    #[test]
    fn two_names_never_become_one(names in proptest::collection::btree_set(motion_names(3), 2..40)) {
        let table = motion_table(3);
        let ours: std::collections::BTreeSet<_> = names.iter().map(|name| table.import_name(name).unwrap()).collect();
        prop_assert_eq!(ours.len(), names.len());
    }

    /// A name with another piece, or one more, is unknown: nothing is guessed from the rest.
    #[test]
    fn damaged_names_are_unknown(
        (table, name) in prop_oneof![
            motion_names(2).prop_map(|name| (motion_table(2), name)),
            motion_lora_names(2).prop_map(|name| (low_rank_table(2), name)),
        ],
        at in any::<prop::sample::Index>(),
        junk in "[A-Z]{1,4}",
    ) {
        let mut pieces: Vec<&str> = name.split('.').collect();
        let at = at.index(pieces.len());
        pieces[at] = &junk;
        prop_assert_eq!(table.import_name(&pieces.join(".")), None);
        prop_assert_eq!(table.import_name(&format!("{name}.{junk}")), None);
    }

    /// The engine itself: whatever fills a row's placeholders on one side fills them on the other.
    #[test]
    fn placeholders_carry_over(first in 0..1000u32, second in 0..1000u32, text in "[a-z.]{1,12}") {
        let table = Table::new("test", vec![Row::copy("a.{}.b.{}.{*}", "{}/{}/{*}")]);
        let (theirs, ours) = (format!("a.{first}.b.{second}.{text}"), format!("{first}/{second}/{text}"));
        prop_assert_eq!(table.import_name(&theirs), Some(Some(ours.clone())));
        prop_assert_eq!(table.export_name(&ours), Some(theirs));
    }

    /// Importing moves tensors and changes none.
    #[test]
    fn values_travel_with_their_names(names in proptest::collection::btree_set(motion_names(2), 1..20)) {
        let table = motion_table(2);
        let theirs = names.iter().enumerate().map(|(i, name)| (name.clone(), Tensor::from(i as i64)));
        let mut ours = table.import(theirs.collect(), |_| String::new()).unwrap();
        for (i, name) in names.iter().enumerate() {
            let name = table.import_name(name).unwrap().unwrap();
            prop_assert_eq!(ours.take(&name).unwrap().int64_value(&[]), i as i64);
        }
        prop_assert!(ours.left().is_empty());
    }
}

#[test]
fn the_first_row_that_matches_decides() {
    let rows = vec![Row::drop("a.{}.x"), Row::copy("a.{}.{*}", "b.{}.{*}"), Row::conv1x1("w.{*}", "m.{*}")];
    let table = Table::new("test", rows);
    let cases = [
        ("a.1.x", Some(None)),
        ("a.1.y", Some(Some("b.1.y"))),
        ("a.x.y", None),
        ("a..y", None),
        ("a.1.", None),
        ("w.1", Some(Some("m.1"))),
        ("", None),
    ];
    for (theirs, want) in cases {
        let want: Option<Option<String>> = want.map(|name| name.map(String::from));
        assert_eq!(table.import_name(theirs), want, "{theirs:?}");
    }
    assert_eq!(table.export_name("b.1.x"), Some("a.1.x".into()));
}

#[test]
fn squeezing_takes_only_the_axes_of_a_1x1_convolution() {
    let table = Table::new("test", vec![Row::conv1x1("{*}", "{*}")]);
    let shapes: [(&[i64], &[i64]); 4] =
        [(&[6, 4, 1, 1], &[6, 4]), (&[6, 4], &[6, 4]), (&[6], &[6]), (&[6, 4, 3, 3], &[6, 4, 3, 3])];
    for (theirs, ours) in shapes {
        let tensor = Tensor::zeros(theirs, (Kind::Float, tch::Device::Cpu));
        let tensors = NamedTensors::from_iter([("w".to_owned(), tensor)]);
        assert_eq!(table.import(tensors, |_| String::new()).unwrap().shape("w").unwrap(), ours);
    }
}
