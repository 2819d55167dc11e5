//! Low-rank deltas as arithmetic on names: `W += scale · ΔW`, before a model exists.

mod delta;
mod file;
mod join;
mod settings;

use std::{collections::BTreeMap, rc::Rc};

use tch::{Kind, Tensor};

pub use delta::{Delta, Form};
pub use file::LoraFile;

use super::{
    error::{PairShapes, WeightsError},
    named::NamedTensors,
};
use crate::nn::Source;

const DOWN: &str = "lora_A.weight";
const UP: &str = "lora_B.weight";

/// The deltas of one file for one network, by the path of the layer they belong to.
#[derive(Clone, Debug, Default)]
pub struct Lora {
    deltas: BTreeMap<String, Rc<Delta>>,
    origin: String,
}

impl Lora {
    /// Puts together `<path>.lora_A.weight` with `<path>.lora_B.weight`, and LyCORIS' other forms, each with its `<path>.alpha`;
    /// all values must be finite.
    pub fn from_tensors(mut tensors: NamedTensors, origin: &str) -> Result<Lora, WeightsError> {
        let mut factors = BTreeMap::<String, BTreeMap<&'static str, Tensor>>::new();
        let names: Vec<String> = tensors.names().map(String::from).collect();
        for name in &names {
            let Some((path, factor)) = delta::split_name(name) else { continue };
            let tensor = tensors.take(name).expect("it is listed");
            if matches!(tensor.kind(), Kind::ComplexHalf | Kind::ComplexFloat | Kind::ComplexDouble | Kind::Bool) {
                let reason = format!("its `{factor}` is {:?}, and numbers are expected", tensor.kind());
                return Err(WeightsError::Factor { origin: origin.into(), path: path.into(), reason });
            }
            let tensor = tensor.to_kind(Kind::Float);
            if !tensor.sum(Kind::Float).double_value(&[]).is_finite() {
                return Err(WeightsError::NotFinite { origin: origin.into(), name: name.clone() });
            }
            factors.entry(path.to_owned()).or_default().insert(factor, tensor);
        }
        let deltas = factors.into_iter().map(|(path, factors)| {
            let delta = Delta::new(factors, origin, &path)?;
            Ok((path, Rc::new(delta)))
        });
        Ok(Lora { deltas: deltas.collect::<Result<_, WeightsError>>()?, origin: origin.into() })
    }

    /// Where it was read.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Layers it changes.
    pub fn len(&self) -> usize {
        self.deltas.len()
    }

    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        self.deltas.is_empty()
    }

    /// Its deltas by layer.
    pub fn deltas(&self) -> impl Iterator<Item = (&str, &Delta)> {
        self.deltas.iter().map(|(path, delta)| (path.as_str(), delta.as_ref()))
    }

    /// The rank, when all are pairs of the same.
    pub fn rank(&self) -> Option<i64> {
        let mut ranks = self.deltas.values().map(|delta| delta.rank());
        let first = ranks.next()??;
        ranks.all(|rank| rank == Some(first)).then_some(first)
    }

    /// The same with every delta multiplied by `factor`.
    pub fn scaled(mut self, factor: f64) -> Lora {
        for delta in self.deltas.values_mut() {
            *delta = Rc::new(delta.scaled(factor));
        }
        self
    }

    /// The same with the scales that `scale` gives for a path and a rank, where it gives one.
    pub(super) fn rescaled(mut self, scale: impl Fn(&str, i64) -> Option<f64>) -> Lora {
        for (path, delta) in &mut self.deltas {
            if let Some(scale) = delta.rank().and_then(|rank| scale(path, rank)) {
                *delta = Rc::new(delta.scaled(scale / delta.scale()));
            }
        }
        self
    }

    /// The same at a scale of 1: alpha left out.
    pub fn without_scale(mut self) -> Lora {
        for delta in self.deltas.values_mut() {
            *delta = Rc::new(delta.scaled(1.0 / delta.scale()));
        }
        self
    }

    /// Its factors under `<path>.lora_A.weight` and `<path>.lora_B.weight`, the scale folded into the second.
    ///
    /// # Errors
    /// When a delta is of another form than a pair.
    pub fn into_tensors(self) -> Result<NamedTensors, WeightsError> {
        let mut tensors = NamedTensors::new();
        for (path, delta) in &self.deltas {
            let Some((down, up)) = delta.pair() else {
                let form = delta.form().name();
                return Err(WeightsError::NoPair { origin: self.origin, path: path.clone(), form });
            };
            tensors.insert(format!("{path}.{DOWN}"), down);
            tensors.insert(format!("{path}.{UP}"), up);
        }
        Ok(tensors)
    }

    /// Adds `scale` times the delta to each layer's weight, in float32, when the weight is read. At scale 0 nothing changes,
    /// but the fit is still checked.
    pub fn merge_into(&self, tensors: &mut NamedTensors, scale: f64) -> Result<(), WeightsError> {
        self.check_fit(tensors)?;
        if scale == 0.0 {
            return Ok(());
        }
        for (path, delta) in &self.deltas {
            let delta = Rc::clone(delta);
            tensors.change(&format!("{path}.weight"), move |weight| {
                let change = delta.product() * (scale * delta.scale());
                &weight + change.view_as(&weight)
            });
        }
        Ok(())
    }

    /// Whether every delta has a layer of its shape among `tensors`.
    pub fn check_fit(&self, tensors: &NamedTensors) -> Result<(), WeightsError> {
        let shape = |path: &str| tensors.shape(&format!("{path}.weight"));
        let lost: Vec<&String> = self.deltas.keys().filter(|path| shape(path).is_none()).collect();
        if let Some(first) = lost.first() {
            return Err(WeightsError::NoTarget {
                origin: self.origin.clone(),
                count: lost.len(),
                total: self.deltas.len(),
                first: (*first).clone(),
                hint: hint(first, tensors).into(),
            });
        }
        for (path, delta) in &self.deltas {
            let weight = shape(path).expect("checked above");
            let rows = weight.first().copied().unwrap_or(0);
            let columns = weight.iter().skip(1).product::<i64>();
            if delta.form().size() == Some((rows, columns)) {
                continue;
            }
            let (origin, path) = (self.origin.clone(), path.clone());
            return Err(match delta.form() {
                Form::Pair { down, up, .. } => {
                    let shapes = Box::new(PairShapes { up: up.size(), down: down.size(), weight });
                    WeightsError::PairShape { origin, path, shapes }
                }
                form => WeightsError::FormShape { origin, path, form: form.name(), weight },
            });
        }
        Ok(())
    }
}

/// Why a layer may be missing, and what to do.
fn hint(layer: &str, tensors: &NamedTensors) -> &'static str {
    if layer.starts_with("mid_block.motion_modules") {
        "; a MotionLoRA made for a v2 motion module fits no v1 or v3 module: give a v2 module with --motion"
    } else if layer.contains("motion_modules") && !tensors.names().any(|name| name.contains("motion_modules")) {
        "; a MotionLoRA needs a motion module: give one with --motion"
    } else {
        ""
    }
}
