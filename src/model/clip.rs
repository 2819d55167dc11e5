//! CLIP's text encoder.

use serde::{Deserialize, Serialize};
use tch::Tensor;

use crate::native::Shared;
use crate::nn::{Init, LayerNorm, Linear, Params, attend};

/// `text_encoder/config.json`, with ViT-L/14's values as defaults. The legacy token ids in that file are not read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// Number of tokens.
    pub vocab_size: i64,
    /// Width of the states.
    pub hidden_size: i64,
    /// Width within the feed-forward layers.
    pub intermediate_size: i64,
    /// Layers.
    pub num_hidden_layers: i64,
    /// Heads.
    pub num_attention_heads: i64,
    /// Tokens per prompt.
    pub max_position_embeddings: i64,
    /// Activation of the feed-forward layers.
    pub hidden_act: Activation,
}

/// The activation of CLIP's feed-forward layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// `x · sigmoid(1.702 x)`: OpenAI's weights.
    QuickGelu,
    /// The exact GELU: OpenCLIP's.
    Gelu,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            vocab_size: 49_408,
            hidden_size: 768,
            intermediate_size: 3072,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            max_position_embeddings: 77,
            hidden_act: Activation::QuickGelu,
        }
    }
}

impl Config {
    /// A small one: two layers of four heads.
    pub fn two_layers(vocab_size: i64, hidden_size: i64) -> Config {
        Config {
            vocab_size,
            hidden_size,
            intermediate_size: 2 * hidden_size,
            num_hidden_layers: 2,
            num_attention_heads: 4,
            ..Config::default()
        }
    }

    /// What cannot be built, and why.
    pub fn check(&self) -> Result<(), String> {
        let (width, heads) = (self.hidden_size, self.num_attention_heads);
        if heads < 1 || width < 1 || width % heads != 0 {
            return Err(format!("`num_attention_heads: {heads}` does not divide `hidden_size: {width}`"));
        }
        if [self.vocab_size, self.intermediate_size, self.num_hidden_layers, self.max_position_embeddings]
            .iter()
            .any(|&size| size < 1)
        {
            return Err(
                "`vocab_size`, `intermediate_size`, `num_hidden_layers` and `max_position_embeddings` must be above 0"
                    .into(),
            );
        }
        Ok(())
    }
}

/// Token ids to the states that Stable Diffusion 1.x is conditioned on: the last layer's, normed.
#[derive(Debug)]
pub struct TextEncoder {
    token_embedding: Tensor,
    position_embedding: Tensor,
    layers: Vec<Layer>,
    final_layer_norm: LayerNorm,
}

// SAFETY: tensors that only libtorch reads, and locks around the forms of weights.
unsafe impl Shared for TextEncoder {}

impl TextEncoder {
    /// Builds `text_model` below `params`.
    pub fn new(params: &Params, config: &Config) -> TextEncoder {
        let params = &(params / "text_model");
        let embedding = |name: &str, rows: i64| {
            let path = params / "embeddings" / name;
            path.tensor("weight", &[rows, config.hidden_size], Init::Normal(0.02))
        };
        let layer = |index: i64| Layer::new(&(params / "encoder" / "layers" / index), config);
        TextEncoder {
            token_embedding: embedding("token_embedding", config.vocab_size),
            position_embedding: embedding("position_embedding", config.max_position_embeddings),
            layers: (0..config.num_hidden_layers).map(layer).collect(),
            final_layer_norm: LayerNorm::new(&(params / "final_layer_norm"), config.hidden_size),
        }
    }

    /// `ids` `[B, L]` int64 to `[B, L, hidden]`; L is at most `max_position_embeddings`.
    pub fn forward(&self, ids: &Tensor) -> Tensor {
        let length = ids.size()[1];
        let tokens = Tensor::embedding(&self.token_embedding, ids, -1, false, false);
        let mut h = tokens + self.position_embedding.narrow(0, 0, length);
        for layer in &self.layers {
            h = layer.forward(&h);
        }
        self.final_layer_norm.forward(&h)
    }
}

/// Pre-norm, causal.
#[derive(Debug)]
struct Layer {
    layer_norm1: LayerNorm,
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    out_proj: Linear,
    layer_norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    heads: i64,
    activation: Activation,
}

impl Layer {
    fn new(params: &Params, config: &Config) -> Layer {
        let width = config.hidden_size;
        let project = |name: &str| Linear::new(&(params / "self_attn" / name), width, width);
        Layer {
            layer_norm1: LayerNorm::new(&(params / "layer_norm1"), width),
            q_proj: project("q_proj"),
            k_proj: project("k_proj"),
            v_proj: project("v_proj"),
            out_proj: project("out_proj"),
            layer_norm2: LayerNorm::new(&(params / "layer_norm2"), width),
            fc1: Linear::new(&(params / "mlp" / "fc1"), width, config.intermediate_size),
            fc2: Linear::new(&(params / "mlp" / "fc2"), config.intermediate_size, width),
            heads: config.num_attention_heads,
            activation: config.hidden_act,
        }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let x = x + self.attention(&self.layer_norm1.forward(x));
        let inner = self.fc1.forward(&self.layer_norm2.forward(&x));
        let inner = match self.activation {
            Activation::QuickGelu => &inner * (&inner * 1.702).sigmoid(),
            Activation::Gelu => inner.gelu("none"),
        };
        x + self.fc2.forward(&inner)
    }

    fn attention(&self, x: &Tensor) -> Tensor {
        let (rows, length, width) = x.size3().expect("[B, L, C]");
        let split =
            |layer: &Linear| layer.forward(x).view([rows, length, self.heads, width / self.heads]).transpose(1, 2);
        let attended = attend(&split(&self.q_proj), &split(&self.k_proj), &split(&self.v_proj), true);
        self.out_proj.forward(&attended.transpose(1, 2).reshape([rows, length, width]))
    }
}
