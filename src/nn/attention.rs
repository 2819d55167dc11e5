//! Multi-head attention with diffusers' parameter names.

use tch::Tensor;

use super::{linear::Linear, params::Params};

/// CUDA's attention kernels put batch × heads on a grid axis of at most 65,535 blocks.
const MAX_BATCH_HEADS: i64 = 65_535;

/// `to_q`, `to_k`, `to_v` without bias, `to_out.0` with bias; scale `head_dim^-0.5`.
#[derive(Debug)]
pub struct Attention {
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    to_out: Linear,
    heads: i64,
}

impl Attention {
    /// Queries from `query_dim` features, keys and values from `context_dim`; `inner_dim` is heads × head width.
    pub fn new(params: &Params, query_dim: i64, context_dim: i64, inner_dim: i64, heads: i64) -> Attention {
        Attention {
            to_q: Linear::without_bias(&(params / "to_q"), query_dim, inner_dim),
            to_k: Linear::without_bias(&(params / "to_k"), context_dim, inner_dim),
            to_v: Linear::without_bias(&(params / "to_v"), context_dim, inner_dim),
            to_out: Linear::new(&(params / "to_out" / 0), inner_dim, query_dim),
            heads,
        }
    }

    /// Self-attention over the middle axis of `[N, L, C]`.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        self.forward_cross(x, x)
    }

    /// Attention of `x` `[N, L, C]` to `context` `[M, S, D]`, where M divides N: row n looks at context row n / (N/M), so
    /// that the frames of a clip share one projected text.
    pub fn forward_cross(&self, x: &Tensor, context: &Tensor) -> Tensor {
        let split = |y: Tensor| y.view([context.size()[0], -1, self.heads, y.size()[2] / self.heads]).transpose(1, 2);
        let (q, k, v) =
            (split(self.to_q.forward(x)), split(self.to_k.forward(context)), split(self.to_v.forward(context)));
        let (rows, length) = (x.size()[0], x.size()[1]);
        let attended = attend(&q, &k, &v, false).transpose(1, 2).reshape([rows, length, -1]);
        self.to_out.forward(&attended)
    }
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
