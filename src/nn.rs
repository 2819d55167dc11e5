//! Layers, and how their parameters come to be.
//!
//! A layer is a plain struct whose fields are named as in the checkpoint, with `new(&Params, …)` and `forward`. [`Params`]
//! decides where each tensor comes from and whether it is trained; a layer never does.

mod attention;
mod conv;
mod linear;
mod norm;
mod params;
mod plan;
mod unit;

use tch::{Kind, Tensor};

pub use attention::{Attention, attend};
pub use conv::{Conv1d, Conv2d};
pub use linear::{Linear, LoraPair};
pub use norm::{GroupNorm, LayerNorm, NormScope};
pub use params::{Empty, Init, Params, Problems, Source, Store, hollow};
pub use plan::{LoraPlan, Pattern, Plan};
pub use unit::{Checkpointing, Unit};

/// A parameter in `kind`: layers compute in the kind of their input, whatever their weights are kept in.
fn in_kind(parameter: &Tensor, kind: Kind) -> Tensor {
    if parameter.kind() == kind { parameter.shallow_clone() } else { parameter.to_kind(kind) }
}
