//! Multi-head attention with diffusers' parameter names.

use tch::Tensor;

use super::{linear::Linear, params::Params};
use crate::native::kernels::{attend_frames, fits_attend_frames};

/// CUDA's attention kernels put batch × heads on a grid axis of at most 65,535 blocks.
const MAX_BATCH_HEADS: i64 = 65_535;

/// `to_q`, `to_k`, `to_v` without bias, `to_out.0` with bias; scale `head_dim^-0.5`.
#[derive(Debug)]
pub struct Attention {
    projections: Projections,
    to_out: Linear,
    heads: i64,
}

#[derive(Debug)]
enum Projections {
    Apart {
        to_q: Linear,
        to_k: Linear,
        to_v: Linear,
    },
    /// Of one input: query, key and value side by side.
    Joined(Linear),
}

impl Attention {
    /// Self-attention of `dim` features; `inner_dim` is heads × head width.
    pub fn over_itself(params: &Params, dim: i64, inner_dim: i64, heads: i64) -> Attention {
        if !params.packs() {
            return Attention::new(params, dim, dim, inner_dim, heads);
        }
        let parts = ["to_q", "to_k", "to_v"].map(|name| params / name);
        Attention {
            projections: Projections::Joined(Linear::joined(params, &parts, dim, inner_dim)),
            to_out: Linear::new(&(params / "to_out" / 0), inner_dim, dim),
            heads,
        }
    }

    /// Queries from `query_dim` features, keys and values from `context_dim`; `inner_dim` is heads × head width.
    pub fn new(params: &Params, query_dim: i64, context_dim: i64, inner_dim: i64, heads: i64) -> Attention {
        Attention {
            projections: Projections::Apart {
                to_q: Linear::without_bias(&(params / "to_q"), query_dim, inner_dim),
                to_k: Linear::without_bias(&(params / "to_k"), context_dim, inner_dim),
                to_v: Linear::without_bias(&(params / "to_v"), context_dim, inner_dim),
            },
            to_out: Linear::new(&(params / "to_out" / 0), inner_dim, query_dim),
            heads,
        }
    }

    /// Self-attention over the middle axis of `x` `[N, L, C]`, added to `onto`.
    pub fn forward_onto(&self, x: &Tensor, onto: &Tensor) -> Tensor {
        self.attend_onto(self.project(x), onto)
    }

    /// What queries look up in `context` `[M, S, D]`: keys and values side by side, `[M, S, 2·C]`. Not of self-attention.
    pub fn keys_values(&self, context: &Tensor) -> Tensor {
        let (_, to_k, to_v) = self.apart();
        Tensor::cat(&[to_k.forward(context), to_v.forward(context)], 2)
    }

    /// Attention of `x` `[N, L, C]` to what `keys_values` gave of a context of M rows, where M divides N, added to `onto`: row n
    /// looks at context row n / (N/M), so that the frames of a clip share one projected text.
    pub fn forward_cross_onto(&self, x: &Tensor, keys_values: &Tensor, onto: &Tensor) -> Tensor {
        let (to_q, ..) = self.apart();
        let [k, v] = pieces(keys_values);
        self.attend_onto([to_q.forward(x), k, v], onto)
    }

    /// From query `[N, L, C]`, key and value `[M, S, C]` on.
    fn attend_onto(&self, [q, k, v]: [Tensor; 3], onto: &Tensor) -> Tensor {
        let (rows, length, width) = q.size3().expect("[N, L, C]");
        let split = |y: &Tensor| y.view([k.size()[0], -1, self.heads, width / self.heads]).transpose(1, 2);
        let attended = attend(&split(&q), &split(&k), &split(&v), false).transpose(1, 2).reshape([rows, length, width]);
        self.to_out.forward_onto(&attended, onto)
    }

    /// Self-attention over the frames of each position of `x` `[B·F, P, C]`, added to `onto`. See
    /// [`Attention::takes_frames`].
    pub fn forward_frames_onto(&self, x: &Tensor, frames: i64, onto: &Tensor) -> Tensor {
        let qkv = match &self.projections {
            Projections::Joined(joined) => joined.forward(x),
            Projections::Apart { .. } => Tensor::cat(&self.project(x), 2),
        };
        self.to_out.forward_onto(&attend_frames(&qkv, frames, self.heads), onto)
    }

    /// Whether frames can be attended to as they lie in `x`, whose last axis has `width` features.
    pub fn takes_frames(&self, x: &Tensor, frames: i64, width: i64) -> bool {
        fits_attend_frames(x, frames, width / self.heads)
    }

    /// Query, key and value of self-attention.
    fn project(&self, x: &Tensor) -> [Tensor; 3] {
        match &self.projections {
            Projections::Apart { to_q, to_k, to_v } => [to_q, to_k, to_v].map(|part| part.forward(x)),
            Projections::Joined(joined) => pieces(&joined.forward(x)),
        }
    }

    fn apart(&self) -> (&Linear, &Linear, &Linear) {
        match &self.projections {
            Projections::Apart { to_q, to_k, to_v } => (to_q, to_k, to_v),
            Projections::Joined(_) => unreachable!("projections are joined where there is one input"),
        }
    }
}

/// What lies side by side in the last axis of `x` `[N, L, parts·C]`.
fn pieces<const PARTS: usize>(x: &Tensor) -> [Tensor; PARTS] {
    let mut parts = x.chunk(PARTS as i64, 2).into_iter();
    std::array::from_fn(|_| parts.next().expect("the last axis is whole parts"))
}

/// Scaled dot-product attention of `[N, heads, L, d]`, in chunks of the batch that CUDA's kernels accept.
pub fn attend(q: &Tensor, k: &Tensor, v: &Tensor, causal: bool) -> Tensor {
    let attend = |q: &Tensor, k: &Tensor, v: &Tensor| {
        Tensor::scaled_dot_product_attention(q, k, v, None::<&Tensor>, 0.0, causal, None, false)
    };
    let chunk = MAX_BATCH_HEADS / q.size()[1];
    if q.size()[0] <= chunk {
        return attend(q, k, v);
    }
    let parts: Vec<Tensor> =
        triples(q.split(chunk, 0), k.split(chunk, 0), v.split(chunk, 0)).map(|(q, k, v)| attend(&q, &k, &v)).collect();
    Tensor::cat(&parts, 0)
}

fn triples(q: Vec<Tensor>, k: Vec<Tensor>, v: Vec<Tensor>) -> impl Iterator<Item = (Tensor, Tensor, Tensor)> {
    q.into_iter().zip(k).zip(v).map(|((q, k), v)| (q, k, v))
}
