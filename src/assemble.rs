//! From files to networks: read → map → merge → build → report.
//!
//! The one place that knows both which files a model is made of and which networks they fill.

mod base;
mod error;
pub mod expected;
pub mod folder;
pub mod infer;
mod motion;
mod outline;
mod pool;

pub use base::{Base, BaseFiles, SCHEDULER, TextExtras, configs_metadata, read_unet};
pub use error::AssembleError;
pub use motion::{
    ARCHITECTURE_KEY, GROUPS_KEY, InferenceConfig, Motion, SCHEDULE_KEY, adapter_tables, position_tables, read_adapter,
    read_lora, read_motion_lora, released,
};
pub use outline::{as_tensors, outline};
pub use pool::Pool;

use tch::{Device, Kind};

use crate::{
    model::unet::UNet,
    nn::{Params, Plan, Source, Store},
    weights::{Lora, NamedTensors},
};

/// What a UNet is put together from.
pub struct UNetParts<'a> {
    /// The image model.
    pub base: &'a Base,
    /// The motion module; its tensors may be missing when the plan trains it from the start.
    pub motion: Option<Motion>,
    /// Low-rank deltas merged at a fixed scale, in order.
    pub merged: Vec<(Lora, f64)>,
    /// Tensors that replace those of the base (an earlier fine-tuning), by our names.
    pub replaced: Option<NamedTensors>,
    /// Values for what the plan adds: the pairs that a LoRA training goes on from.
    pub added: Option<Lora>,
}

impl<'a> UNetParts<'a> {
    /// The image model alone.
    pub fn new(base: &'a Base) -> UNetParts<'a> {
        UNetParts { base, motion: None, merged: Vec::new(), replaced: None, added: None }
    }

    /// Builds the network: what matches `plan` is trained in float32, the rest is frozen in `frozen_kind`.
    pub fn build(self, plan: Plan, device: Device, frozen_kind: Kind) -> Result<(UNet, Store), AssembleError> {
        let mut tensors = self.base.unet_tensors()?;
        let motion_config = self.motion.as_ref().map(|motion| motion.config.clone());
        let motion_file = self.motion.as_ref().and_then(Motion::origin);
        for part in [self.motion.map(|motion| motion.tensors), self.replaced].into_iter().flatten() {
            tensors.extend(part);
        }
        for (lora, scale) in &self.merged {
            lora.merge_into(&mut tensors, *scale)?;
        }
        let given = self.added.as_ref().map(|added| (added.origin().to_owned(), 2 * added.len()));
        if let Some(added) = self.added {
            added.check_fit(&tensors)?;
            tensors.extend(added.into_tensors()?);
        }
        let config = &self.base.unet;
        if let Some(motion) = &motion_config {
            motion::check_fit(motion, config)?;
        }
        let home = |missing: &str| match missing.contains("motion_modules.") {
            true => motion_file,
            false => Some(self.base.unet_home()),
        };
        let (unet, store) = build("the UNet", tensors, home, plan, device, frozen_kind, |params| {
            UNet::new(params, config, motion_config.as_ref())
        })?;
        match given {
            Some((file, found)) if found != store.trained.len() => {
                Err(AssembleError::Incomplete { file, found, wanted: store.trained.len() })
            }
            _ => Ok((unet, store)),
        }
    }
}

/// Builds one network and turns whatever was wrong with its weights into an error; `home` is where a missing tensor of that
/// name should have been.
fn build<M>(
    what: &'static str,
    tensors: impl Source + 'static,
    home: impl FnOnce(&str) -> Option<String>,
    plan: Plan,
    device: Device,
    frozen_kind: Kind,
    new: impl FnOnce(&Params) -> M,
) -> Result<(M, Store), AssembleError> {
    let params = Params::new(tensors, plan, device, frozen_kind);
    let model = new(&params);
    let (store, mut problems) = params.finish();
    if problems.is_empty() {
        return Ok((model, store));
    }
    if let (None, Some(missing)) = (&problems.origin, problems.missing.first()) {
        problems.origin = home(missing);
    }
    Err(AssembleError::Weights { what, problems: Box::new(problems) })
}

/// A network with random weights, frozen: for `init`, tests and benchmarks.
pub fn random<M>(new: impl FnOnce(&Params) -> M) -> (M, Store) {
    let params = Params::new(crate::nn::Empty, Plan::random(), Device::Cpu, Kind::Float);
    let model = new(&params);
    let (store, problems) = params.finish();
    assert!(problems.is_empty(), "a random model has no file to be wrong: {problems}");
    (model, store)
}

/// Parameters and tensors of a built model.
pub fn count(store: &Store) -> (i64, usize) {
    let tensors = store.frozen.values().chain(store.trained.values());
    tensors.fold((0, 0), |(parameters, count), tensor| (parameters + tensor.numel() as i64, count + 1))
}
