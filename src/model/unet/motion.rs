//! The motion module: a transformer along time at every position of a feature map (AnimateDiff, section 4.2).
//!
//! Its options are the official `unet_additional_kwargs`; its parameter names are those of diffusers' MotionAdapter, which
//! has `attn1`, `attn2`, `norm1`, `norm2` for two attentions and `norm3` for the feed-forward. With more attentions than
//! two the names go on counting, and the feed-forward's norm comes after the last.

use std::slice;

use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use super::transformer::FeedForward;
use crate::native::kernels::channels_innermost;
use crate::nn::{Attention, Conv1d, GroupNorm, Init, LayerNorm, Linear, NormScope, Params};

/// Official `unet_additional_kwargs`. A key that is absent has the official code's default.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// ResNet norms per frame (v2, v3); `false` is v1, where their statistics span the clip.
    pub use_inflated_groupnorm: bool,
    /// Whether there are motion modules at all.
    pub use_motion_module: bool,
    /// At which downscaling factors there are modules.
    pub motion_module_resolutions: Vec<i64>,
    /// A module in the middle block too (v2).
    pub motion_module_mid_block: bool,
    /// No modules on the way down.
    pub motion_module_decoder_only: bool,
    /// What mixes the frames.
    pub motion_module_type: ModuleType,
    /// What a module is made of.
    pub motion_module_kwargs: ModuleConfig,
    /// Cross-frame attention in the spatial layers: an older experiment of the official code, never released.
    pub unet_use_cross_frame_attention: Never,
    /// Temporal attention in the spatial layers: likewise.
    pub unet_use_temporal_attention: Never,
    /// Statistics of the module's own norm: `frame` is official, `clip` is diffusers'. Ours, not an official key.
    pub motion_norm: NormScope,
}

/// The kind of motion module.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ModuleType {
    /// The temporal transformer of the paper.
    #[default]
    Vanilla,
    /// Convolutions along time in the place of its attentions, of as many parameters: what the paper compares it with
    /// (section 5.3). Ours, not an official value.
    Convolution,
}

/// An option that may only be off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Option<bool>", into = "bool")]
pub struct Never;

impl TryFrom<Option<bool>> for Never {
    type Error = &'static str;

    fn try_from(value: Option<bool>) -> Result<Never, Self::Error> {
        if value == Some(true) { Err("this option is not supported; remove it or set it to false") } else { Ok(Never) }
    }
}

impl From<Never> for bool {
    fn from(_: Never) -> bool {
        false
    }
}

/// Official `motion_module_kwargs`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ModuleConfig {
    /// Heads of every temporal attention.
    pub num_attention_heads: i64,
    /// Transformer blocks per module.
    pub num_transformer_block: i64,
    /// The attentions of a block, in order.
    pub attention_block_types: Vec<AttentionType>,
    /// Only absent or null.
    pub cross_frame_attention_mode: Option<Never>,
    /// Whether frames are told apart by sinusoids.
    pub temporal_position_encoding: bool,
    /// How many frames the module was trained for. Longer clips work (the table is computed), at unknown quality.
    pub temporal_position_encoding_max_len: i64,
    /// The inner width is the channels divided by this.
    pub temporal_attention_dim_div: i64,
    /// A new module starts as the identity.
    pub zero_initialize: bool,
}

/// What a temporal attention looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AttentionType {
    /// The same position in all frames.
    #[serde(rename = "Temporal_Self")]
    SelfAttention,
    /// The text.
    #[serde(rename = "Temporal_Cross")]
    CrossAttention,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            use_inflated_groupnorm: false,
            use_motion_module: true,
            motion_module_resolutions: vec![1, 2, 4, 8],
            motion_module_mid_block: false,
            motion_module_decoder_only: false,
            motion_module_type: ModuleType::Vanilla,
            motion_module_kwargs: ModuleConfig::default(),
            unet_use_cross_frame_attention: Never,
            unet_use_temporal_attention: Never,
            motion_norm: NormScope::Frame,
        }
    }
}

impl Default for ModuleConfig {
    fn default() -> ModuleConfig {
        ModuleConfig {
            num_attention_heads: 8,
            num_transformer_block: 1,
            attention_block_types: vec![AttentionType::SelfAttention; 2],
            cross_frame_attention_mode: None,
            temporal_position_encoding: true,
            temporal_position_encoding_max_len: 24,
            temporal_attention_dim_div: 1,
            zero_initialize: true,
        }
    }
}

impl Config {
    /// `mm_sd_v14`, `mm_sd_v15`: ResNet norms over the clip.
    pub fn v1() -> Config {
        Config::default()
    }

    /// `mm_sd_v15_v2`: a module in the middle block, norms per frame, 32 frames.
    pub fn v2() -> Config {
        Config { motion_module_mid_block: true, ..Config::v3() }
    }

    /// `v3_sd15_mm`: norms per frame, 32 frames.
    pub fn v3() -> Config {
        let motion_module_kwargs = ModuleConfig { temporal_position_encoding_max_len: 32, ..ModuleConfig::default() };
        Config { use_inflated_groupnorm: true, motion_module_kwargs, ..Config::default() }
    }

    /// Which released architecture this is, if any: `v1`, `v2` or `v3`.
    pub fn version(&self) -> Option<&'static str> {
        let like = Config { motion_norm: NormScope::Frame, ..self.clone() };
        [("v1", Config::v1()), ("v2", Config::v2()), ("v3", Config::v3())]
            .into_iter()
            .find_map(|(name, config)| (config == like).then_some(name))
    }

    /// Over what the ResNets' norms take their statistics.
    pub fn resnet_norm(&self) -> NormScope {
        if self.use_inflated_groupnorm { NormScope::Frame } else { NormScope::Clip }
    }

    /// Whether there are modules at a down block of this downscaling factor.
    pub fn in_down_block(&self, resolution: i64) -> bool {
        !self.motion_module_decoder_only && self.in_up_block(resolution)
    }

    /// Whether there are modules at an up block of this downscaling factor.
    pub fn in_up_block(&self, resolution: i64) -> bool {
        self.use_motion_module && self.motion_module_resolutions.contains(&resolution)
    }

    /// Whether there is a module in the middle block.
    pub fn in_mid_block(&self) -> bool {
        self.use_motion_module && self.motion_module_mid_block
    }
}

/// One module: norm, projection, transformer blocks along time, projection, residual.
#[derive(Debug)]
pub struct MotionModule {
    norm: GroupNorm,
    proj_in: Linear,
    transformer_blocks: Vec<TemporalBlock>,
    proj_out: Linear,
}

impl MotionModule {
    /// On `channels` channels; `groups` for its norm; `text_dim` for `Temporal_Cross` attentions.
    pub fn new(params: &Params, channels: i64, groups: i64, text_dim: i64, config: &Config) -> MotionModule {
        let module = &config.motion_module_kwargs;
        let heads = module.num_attention_heads;
        let inner = channels / heads / module.temporal_attention_dim_div * heads;
        let init = if module.zero_initialize { Init::Zeros } else { Init::FanIn(inner) };
        let block = |index| TemporalBlock::new(&(params / "transformer_blocks" / index), inner, text_dim, config);
        MotionModule {
            norm: GroupNorm::scoped(&(params / "norm"), groups, channels, 1e-6, config.motion_norm),
            proj_in: Linear::new(&(params / "proj_in"), channels, inner),
            transformer_blocks: (0..module.num_transformer_block).map(block).collect(),
            proj_out: Linear::with_init(&(params / "proj_out"), inner, channels, true, init),
        }
    }

    /// What its `Temporal_Cross` attentions look up in `text` `[B, L, D]`, in their order.
    pub fn read(&self, text: &Tensor) -> Vec<Tensor> {
        let of_text = |TemporalAttention { mixer, .. }: &TemporalAttention| match mixer {
            Mixer::Text(attention) => Some(attention.keys_values(text)),
            Mixer::Frames(_) | Mixer::Neighbours(_) => None,
        };
        self.attentions().filter_map(of_text).collect()
    }

    fn attentions(&self) -> impl Iterator<Item = &TemporalAttention> {
        self.transformer_blocks.iter().flat_map(|block| &block.attentions)
    }

    /// `x` `[B·F, C, H, W]`; `text` is what [`MotionModule::read`] gave of B rows.
    pub fn forward(&self, x: &Tensor, text: &[Tensor], frames: i64) -> Tensor {
        let (rows, channels, height, width) = x.size4().expect("[B·F, C, H, W]");
        let (clips, positions) = (rows / frames, height * width);
        let normed = self.norm.forward(x, frames);
        if self.takes_rows(&normed, frames) {
            let rows = |x: &Tensor| x.flatten(2, 3).transpose(1, 2);
            let mut h = self.proj_in.forward(&rows(&normed).contiguous());
            for block in &self.transformer_blocks {
                h = block.forward_rows(h, frames);
            }
            let out = self.proj_out.forward_onto(&h, &rows(x)).transpose(1, 2).reshape(x.size());
            // What lies with its channels innermost goes on so; the layers of training take their pictures as they come.
            return if channels_innermost(x) { out } else { out.contiguous() };
        }
        let sequences = normed.view([clips, frames, channels, positions]).permute([0, 3, 1, 2]).contiguous();
        let mut h = self.proj_in.forward(&sequences.view([clips * positions, frames, channels]));
        let mut text = text.iter();
        for block in &self.transformer_blocks {
            h = block.forward(&h, &mut text);
        }
        let h = self.proj_out.forward(&h).view([clips, positions, frames, channels]).permute([0, 2, 3, 1]);
        x + h.reshape([rows, channels, height, width])
    }

    /// Whether frames can be attended to as they lie, and no sequence needs to be gathered.
    fn takes_rows(&self, x: &Tensor, frames: i64) -> bool {
        self.attentions().all(|TemporalAttention { norm, mixer }| match mixer {
            Mixer::Frames(attention) => attention.takes_frames(x, frames, norm.features()),
            Mixer::Text(_) | Mixer::Neighbours(_) => false,
        })
    }
}

/// Attentions (or convolutions) along time, each after its norm and the frames' sinusoids, then a feed-forward.
#[derive(Debug)]
struct TemporalBlock {
    attentions: Vec<TemporalAttention>,
    ff_norm: LayerNorm,
    ff: FeedForward,
    positions: Option<Positions>,
}

#[derive(Debug)]
struct TemporalAttention {
    norm: LayerNorm,
    mixer: Mixer,
}

/// What lets frames see each other, or the text.
#[derive(Debug)]
enum Mixer {
    Frames(Attention),
    Text(Attention),
    Neighbours(Convolution),
}

/// Frames three at a time: a convolution along time, then a projection. Four times width² parameters, as an attention.
#[derive(Debug)]
struct Convolution {
    conv: Conv1d,
    to_out: Linear,
}

/// The number in the name of the feed-forward's norm: 3 as in diffusers, or the one after the last attention's.
fn feed_forward_norm(attentions: usize) -> usize {
    attentions.max(2) + 1
}

impl TemporalBlock {
    fn new(params: &Params, width: i64, text_dim: i64, config: &Config) -> TemporalBlock {
        let module = &config.motion_module_kwargs;
        let attention = |(index, &over): (usize, &AttentionType)| {
            let path = params / format!("attn{}", index + 1);
            let heads = module.num_attention_heads;
            TemporalAttention {
                norm: LayerNorm::new(&(params / format!("norm{}", index + 1)), width),
                mixer: match (over, config.motion_module_type) {
                    (AttentionType::CrossAttention, _) => {
                        Mixer::Text(Attention::new(&path, width, text_dim, width, heads))
                    }
                    (AttentionType::SelfAttention, ModuleType::Vanilla) => {
                        Mixer::Frames(Attention::over_itself(&path, width, width, heads))
                    }
                    (AttentionType::SelfAttention, ModuleType::Convolution) => {
                        Mixer::Neighbours(Convolution::new(&path, width))
                    }
                },
            }
        };
        let types = &module.attention_block_types;
        TemporalBlock {
            attentions: types.iter().enumerate().map(attention).collect(),
            ff_norm: LayerNorm::new(&(params / format!("norm{}", feed_forward_norm(types.len()))), width),
            ff: FeedForward::new(&(params / "ff"), width),
            positions: module
                .temporal_position_encoding
                .then(|| Positions::new(module.temporal_position_encoding_max_len, width, params.device())),
        }
    }

    /// `h` `[B·H·W, F, C]`; each attention to the text takes the next of `text`.
    fn forward(&self, h: &Tensor, text: &mut slice::Iter<Tensor>) -> Tensor {
        let mut h = h.shallow_clone();
        for TemporalAttention { norm, mixer } in &self.attentions {
            let normed = norm.forward(&h);
            let placed = match &self.positions {
                Some(positions) => &normed + positions.first(h.size()[1]).to_kind(normed.kind()),
                None => normed,
            };
            h = match mixer {
                Mixer::Frames(attention) => attention.forward_onto(&placed, &h),
                Mixer::Text(attention) => {
                    let text = text.next().expect("what each attention looks up in the text");
                    attention.forward_cross_onto(&placed, text, &h)
                }
                Mixer::Neighbours(convolution) => &h + convolution.forward(&placed),
            };
        }
        self.ff.forward_onto(&self.ff_norm.forward(&h), &h)
    }

    /// The same on `h` `[B·F, H·W, C]`, of a block whose attentions are all over frames.
    fn forward_rows(&self, mut h: Tensor, frames: i64) -> Tensor {
        for TemporalAttention { norm, mixer } in &self.attentions {
            let placed = match &self.positions {
                Some(positions) => norm.forward_placed(&h, &positions.first(frames).squeeze_dim(0)),
                None => norm.forward(&h),
            };
            let Mixer::Frames(attention) = mixer else { unreachable!("only attentions over frames take rows") };
            h = attention.forward_frames_onto(&placed, frames, &h);
        }
        self.ff.forward_onto(&self.ff_norm.forward(&h), &h)
    }
}

impl Convolution {
    fn new(params: &Params, width: i64) -> Convolution {
        Convolution {
            conv: Conv1d::new(&(params / "conv"), width, width, 3),
            to_out: Linear::new(&(params / "to_out" / 0), width, width),
        }
    }

    /// `[N, F, C]`, as attention takes it.
    fn forward(&self, x: &Tensor) -> Tensor {
        let mixed = self.conv.forward(&x.transpose(1, 2)).transpose(1, 2);
        self.to_out.forward(&mixed.silu())
    }
}

/// The table that tells frames apart.
#[derive(Debug)]
struct Positions(Tensor);

impl Positions {
    fn new(length: i64, width: i64, device: Device) -> Positions {
        Positions(position_encoding(length, width).to_device(device))
    }

    /// Rows for `frames` frames, computed anew when the table is shorter.
    fn first(&self, frames: i64) -> Tensor {
        let (_, length, width) = self.0.size3().expect("[1, length, width]");
        if frames <= length {
            self.0.narrow(1, 0, frames)
        } else {
            position_encoding(frames, width).to_device(self.0.device())
        }
    }
}

/// `pe[0, p, 2i] = sin(p·ω_i)`, `pe[0, p, 2i+1] = cos(p·ω_i)`, `ω_i = exp(-2i·ln(10000)/width)`: `[1, length, width]`, float32.
pub fn position_encoding(length: i64, width: i64) -> Tensor {
    let options = (Kind::Float, Device::Cpu);
    let position = Tensor::arange(length, options).unsqueeze(1);
    let omega = (Tensor::arange_start_step(0, width, 2, options) * (-(10_000f64.ln()) / width as f64)).exp();
    let angle = position * omega;
    Tensor::stack(&[angle.sin(), angle.cos()], 2).view([1, length, width])
}
