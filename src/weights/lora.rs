//! Low-rank deltas as arithmetic on names: `W += scale · up · down`, before a model exists.

use std::collections::BTreeMap;

use tch::{Kind, Tensor};

use super::{
    error::{PairShapes, WeightsError},
    named::NamedTensors,
};
use crate::nn::Source;

const DOWN: &str = ".lora_A.weight";
const UP: &str = ".lora_B.weight";

/// The low-rank pairs of one file, by the path of the layer they belong to.
#[derive(Debug, Default)]
pub struct Lora {
    pairs: BTreeMap<String, Pair>,
    origin: String,
}

/// `down` `[rank, in]` and `up` `[out, rank]`.
#[derive(Debug)]
pub struct Pair {
    /// First factor.
    pub down: Tensor,
    /// Second factor.
    pub up: Tensor,
}

impl Lora {
    /// Pairs up `<path>.lora_A.weight` and `<path>.lora_B.weight`; all values must be finite.
    pub fn from_tensors(mut tensors: NamedTensors, origin: &str) -> Result<Lora, WeightsError> {
        let mut pairs = BTreeMap::new();
        let names: Vec<String> = tensors.names().map(String::from).collect();
        for name in &names {
            let Some(path) = name.strip_suffix(DOWN).or_else(|| name.strip_suffix(UP)) else { continue };
            if pairs.contains_key(path) {
                continue;
            }
            let half = || WeightsError::HalfPair { origin: origin.into(), path: path.into() };
            let mut factor = |suffix| tensors.take(&format!("{path}{suffix}")).map(|t| t.to_kind(Kind::Float));
            let down = factor(DOWN).ok_or_else(half)?;
            let up = factor(UP).ok_or_else(half)?;
            for (tensor, suffix) in [(&down, DOWN), (&up, UP)] {
                if !tensor.sum(Kind::Float).double_value(&[]).is_finite() {
                    return Err(WeightsError::NotFinite { origin: origin.into(), name: format!("{path}{suffix}") });
                }
            }
            pairs.insert(path.to_owned(), Pair { down, up });
        }
        Ok(Lora { pairs, origin: origin.into() })
    }

    /// Where it was read.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Layers it changes.
    pub fn len(&self) -> usize {
        self.pairs.len()
    }

    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// The rank, when all pairs have the same.
    pub fn rank(&self) -> Option<i64> {
        let mut ranks = self.pairs.values().map(|pair| pair.down.size()[0]);
        let first = ranks.next()?;
        ranks.all(|rank| rank == first).then_some(first)
    }

    /// The same with every delta multiplied by `factor`.
    pub fn scaled(mut self, factor: f64) -> Lora {
        for pair in self.pairs.values_mut() {
            pair.up = &pair.up * factor;
        }
        self
    }

    /// Its factors under `<path>.lora_A.weight` and `<path>.lora_B.weight`, to start training from.
    pub fn into_tensors(self) -> NamedTensors {
        let factors =
            |(path, pair): (String, Pair)| [(format!("{path}{DOWN}"), pair.down), (format!("{path}{UP}"), pair.up)];
        self.pairs.into_iter().flat_map(factors).collect()
    }

    /// Adds `scale · up · down` to each layer's weight, in float32. At scale 0 nothing changes, but the fit is still checked.
    pub fn merge_into(&self, tensors: &mut NamedTensors, scale: f64) -> Result<(), WeightsError> {
        self.check_fit(tensors)?;
        if scale == 0.0 {
            return Ok(());
        }
        for (path, pair) in &self.pairs {
            let name = format!("{path}.weight");
            let weight = tensors.get(&name).expect("checked above").to_kind(Kind::Float);
            let delta = pair.up.matmul(&pair.down) * scale;
            tensors.insert(name, &weight + delta.view_as(&weight));
        }
        Ok(())
    }

    /// Whether every pair has a layer of its shape among `tensors`.
    pub fn check_fit(&self, tensors: &NamedTensors) -> Result<(), WeightsError> {
        let shape = |path: &str| tensors.shape(&format!("{path}.weight"));
        let lost: Vec<&String> = self.pairs.keys().filter(|path| shape(path).is_none()).collect();
        if let Some(first) = lost.first() {
            let hint = if first.starts_with("mid_block.motion_modules") {
                "; a MotionLoRA made for a v2 motion module fits no v1 or v3 module: give a v2 module with --motion"
            } else if first.contains("motion_modules") && !tensors.names().any(|name| name.contains("motion_modules")) {
                "; a MotionLoRA needs a motion module: give one with --motion"
            } else {
                ""
            };
            return Err(WeightsError::NoTarget {
                origin: self.origin.clone(),
                count: lost.len(),
                total: self.pairs.len(),
                first: (*first).clone(),
                hint: hint.into(),
            });
        }
        for (path, pair) in &self.pairs {
            let weight = shape(path).expect("checked above");
            let (up, down) = (pair.up.size(), pair.down.size());
            let fits = up.len() == 2
                && down.len() == 2
                && up[1] == down[0]
                && up[0] == weight[0]
                && down[1] == weight[1..].iter().product::<i64>();
            if !fits {
                let shapes = Box::new(PairShapes { up, down, weight });
                return Err(WeightsError::PairShape { origin: self.origin.clone(), path: path.clone(), shapes });
            }
        }
        Ok(())
    }
}
