//! Attention in chunks of the batch: what CUDA's kernels cannot take in one piece must come out the same.

use animatediff::nn::attend;
use tch::{Device, Kind, Tensor};

#[test]
fn large_batches_go_in_chunks_and_nothing_changes() {
    let (batch, heads, length, width) = (9_000, 8, 3, 4);
    let random = |seed| {
        let shape = [batch, heads, length, width];
        let values = Tensor::arange(batch * heads * length * width, (Kind::Float, Device::Cpu));
        (values * f64::from(seed)).sin().view(shape)
    };
    let (q, k, v) = (random(3), random(5), random(7));
    assert!(batch * heads > 65_535, "the batch must be too large for one piece");
    let scores = q.matmul(&k.transpose(-2, -1)) / (width as f64).sqrt();
    let expected = scores.softmax(-1, Kind::Float).matmul(&v);
    let got = attend(&q, &k, &v, false);
    assert_eq!(got.size(), expected.size());
    let error = (got - expected).abs().max().double_value(&[]);
    assert!(error < 1e-6, "off by {error}");
}
