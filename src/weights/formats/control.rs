//! ControlNet in diffusers' names, and SparseCtrl in the official and diffusers' names.
//!
//! Both have the UNet's way down in its own names, an encoder of the condition, and a convolution at every exit.

use super::{
    motion,
    parts::{LEAVES, MotionLayer, image_parameters},
    topology::Topology,
};
use crate::weights::map::{Row, Table};

/// Layers that only ControlNets have; the last is what SparseCtrl for RGB has instead of the others before it.
const OWN: [&str; 6] = [
    "controlnet_cond_embedding.conv_in",
    "controlnet_cond_embedding.blocks.{}",
    "controlnet_cond_embedding.conv_out",
    "controlnet_down_blocks.{}",
    "controlnet_mid_block",
    "controlnet_cond_embedding",
];

/// A ControlNet in diffusers' names.
pub fn controlnet() -> Table {
    Table::new("ControlNet (diffusers)", rows(&OWN[..5]))
}

/// A SparseCtrl encoder in the official names.
pub fn sparse_official(topology: &Topology) -> Table {
    sparse("SparseCtrl (official)", topology, |layer| &layer.official)
}

/// The same in diffusers' (SparseControlNetModel).
pub fn sparse_diffusers(topology: &Topology) -> Table {
    sparse("SparseCtrl (diffusers)", topology, |layer| &layer.ours)
}

fn sparse(name: &'static str, topology: &Topology, theirs: fn(&MotionLayer) -> &String) -> Table {
    let mut rows = rows(&OWN);
    rows.extend(motion::rows(topology.attentions, theirs));
    rows.extend(
        ["down_blocks.{}.motion_modules.{}.{*}.pos_encoder.pe", "down_blocks.{}.motion_modules.{}.{*}.pos_embed.pe"]
            .map(Row::drop),
    );
    Table::new(name, rows)
}

fn rows(own: &[&str]) -> Vec<Row> {
    let down = image_parameters().into_iter().filter(|path| {
        !path.starts_with("up_blocks.") && !path.starts_with("conv_out") && !path.starts_with("conv_norm_out")
    });
    let layers = down.chain(own.iter().map(|path| (*path).to_owned()));
    layers.flat_map(|path| LEAVES.map(|leaf| Row::copy(format!("{path}.{leaf}"), format!("{path}.{leaf}")))).collect()
}
