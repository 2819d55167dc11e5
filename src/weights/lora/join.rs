//! Several low-rank files as one: exactly, by laying their pairs side by side, or at a lower rank.

use std::rc::Rc;

use tch::{Kind, Tensor};

use super::{Delta, Lora};
use crate::weights::error::WeightsError;

impl Lora {
    /// The sum of `parts`, each at its scale: pairs whose rank is the sum of the ranks.
    ///
    /// # Errors
    /// When a delta is no pair, or two of one layer differ in size.
    pub fn sum(parts: &[(&Lora, f64)]) -> Result<Lora, WeightsError> {
        let origin = parts.iter().map(|(lora, _)| lora.origin.as_str()).collect::<Vec<_>>().join(" + ");
        let mut sum = Lora { origin, ..Lora::default() };
        let mut paths: Vec<&String> = parts.iter().flat_map(|(lora, _)| lora.deltas.keys()).collect();
        paths.sort();
        paths.dedup();
        for path in paths {
            let (mut downs, mut ups) = (Vec::new(), Vec::new());
            for (lora, scale) in parts {
                let Some(delta) = lora.deltas.get(path) else { continue };
                let no_pair = || {
                    let form = delta.form().name();
                    WeightsError::NoPair { origin: lora.origin.clone(), path: path.clone(), form }
                };
                let (down, up) = delta.pair().ok_or_else(no_pair)?;
                downs.push(down);
                ups.push(up * *scale);
            }
            let same = |tensors: &[Tensor], axes: fn(&[i64]) -> Vec<i64>| {
                tensors.iter().all(|tensor| axes(&tensor.size()) == axes(&tensors[0].size()))
            };
            let rest = |size: &[i64]| size[1..].to_vec();
            let but_rank = |size: &[i64]| [&size[..1], &size[2..]].concat();
            if !same(&downs, rest) || !same(&ups, but_rank) {
                return Err(WeightsError::OtherSizes { origin: sum.origin, path: path.clone() });
            }
            let delta = Delta::of_pair(Tensor::cat(&downs, 0), Tensor::cat(&ups, 1));
            sum.deltas.insert(path.clone(), Rc::new(delta));
        }
        Ok(sum)
    }

    /// The nearest of rank `rank` in every layer, by singular values; and how far it is from the exact one, as a part of its
    /// norm, over all layers together.
    ///
    /// # Errors
    /// When a delta is no pair.
    pub fn compressed(&self, rank: i64) -> Result<(Lora, f64), WeightsError> {
        let mut nearest = Lora { origin: self.origin.clone(), ..Lora::default() };
        let (mut lost, mut whole) = (0.0, 0.0);
        for (path, delta) in &self.deltas {
            let no_pair = || {
                let form = delta.form().name();
                WeightsError::NoPair { origin: self.origin.clone(), path: path.clone(), form }
            };
            let (down, up) = delta.pair().ok_or_else(no_pair)?;
            let (down_size, up_size) = (down.size(), up.size());
            let matrix = |tensor: &Tensor| tensor.flatten(1, -1).to_kind(Kind::Double);
            // The product is never formed: with up = QR and downᵀ = PS its singular values are those of R Sᵀ.
            let (q, r) = Tensor::linalg_qr(&matrix(&up), "reduced");
            let (p, s) = Tensor::linalg_qr(&matrix(&down).transpose(0, 1), "reduced");
            let (u, values, v) = r.matmul(&s.transpose(0, 1)).svd(true, true);
            let kept = rank.min(values.size()[0]);
            let energy = |values: &Tensor| values.square().sum(Kind::Double).double_value(&[]);
            whole += energy(&values);
            lost += energy(&values.narrow(0, kept, values.size()[0] - kept));
            // Both factors get half of each singular value, so that neither overflows in half precision.
            let root = values.narrow(0, 0, kept).sqrt();
            let up = q.matmul(&u.narrow(1, 0, kept)) * &root;
            let down = root.unsqueeze(1) * v.narrow(1, 0, kept).transpose(0, 1).matmul(&p.transpose(0, 1));
            let shaped = |tensor: Tensor, size: Vec<i64>| tensor.to_kind(Kind::Float).reshape(size);
            let down = shaped(down, [&[kept], &down_size[1..]].concat());
            let up = shaped(up, [&[up_size[0], kept], &up_size[2..]].concat());
            nearest.deltas.insert(path.clone(), Rc::new(Delta::of_pair(down, up)));
        }
        let error = if whole > 0.0 { (lost / whole).sqrt() } else { 0.0 };
        Ok((nearest, error))
    }
}
