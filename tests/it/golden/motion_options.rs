//! The motion module alone, with every option that changes its network.

use animatediff::{
    model::unet::motion::{self, ModuleConfig, MotionModule},
    nn::{Params, Plan},
    weights::{Content, Dialect, NamedTensors, formats::Topology},
};
use tch::{Device, Kind, Tensor};

use crate::support::{Golden, OUTPUT, assert_close, table_of};

/// Where the module is put, as the formats know only whole UNets.
const PLACE: &str = "down_blocks.0.motion_modules.0";

#[test]
fn every_option() {
    let golden = Golden::load("motion_options");
    for case in 0..8 {
        check(&golden, &format!("case{case}"));
    }
}

fn check(golden: &Golden, case: &str) {
    let options = golden.json(case);
    let number = |key: &str| options[key].as_i64().unwrap();
    let module: ModuleConfig = serde_json::from_value(options.clone()).unwrap();
    let config = motion::Config { motion_module_kwargs: module, ..motion::Config::v3() };

    let x = golden.get(&format!("{case}.in"));
    let params = Params::new(tensors(golden, case, &config), Plan::frozen(), Device::Cpu, Kind::Float);
    let module =
        MotionModule::new(&(&params / PLACE), x.size()[1], number("groups"), number("cross_attention_dim"), &config);
    let (_, problems) = params.finish();
    assert!(problems.is_empty(), "{case}: {problems}");

    let crosses = golden.below(&format!("{case}.text")).into_values().next();
    let text = crosses.unwrap_or_else(|| Tensor::zeros([1], (Kind::Float, Device::Cpu)));
    let got = module.forward(&x, &module.read(&text), number("frames"));
    assert_close(&format!("{case} {}", options_in_short(&config)), &got, &golden.get(&format!("{case}.out")), OUTPUT);
}

/// The module's weights, from their official names.
fn tensors(golden: &Golden, case: &str, config: &motion::Config) -> NamedTensors {
    let official: NamedTensors = golden
        .below(&format!("{case}.w."))
        .into_iter()
        .map(|(name, tensor)| (format!("{PLACE}.{name}"), tensor))
        .collect();
    let topology = Topology::of(official.names().collect::<Vec<_>>().into_iter());
    assert_eq!(topology.attentions, config.motion_module_kwargs.attention_block_types.len(), "{case}");
    table_of(Content::MotionModule, Dialect::Official, &topology).import(official, |_| String::new()).unwrap()
}

fn options_in_short(config: &motion::Config) -> String {
    let ModuleConfig {
        num_attention_heads: heads,
        num_transformer_block: blocks,
        attention_block_types: types,
        temporal_position_encoding: positions,
        temporal_attention_dim_div: divisor,
        ..
    } = &config.motion_module_kwargs;
    format!("({heads} heads, {blocks} blocks of {types:?}, positions {positions}, width / {divisor})")
}
