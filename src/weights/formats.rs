//! The formats that are read and written, as tables. See `docs` of each for its source.

mod legacy;
mod lora;
mod motion;

pub use legacy::{clip_text, vae};
pub use lora::{adapter, motion_lora};
pub use motion::{attention_blocks, motion_module};

use super::named::NamedTensors;

/// What a file of temporal or low-rank tensors is, by its keys: for messages when it was taken for something else.
pub fn describe(tensors: &NamedTensors) -> &'static str {
    let any = |part: &str| tensors.names().any(|name| name.contains(part));
    if any("motion_modules.") && any("_lora.") {
        "a MotionLoRA: give it with --motion-lora"
    } else if any("attentions.") && any("_lora.") {
        "a domain adapter: give it with --adapter"
    } else if any("motion_modules.") && any(".attn1.") {
        "a motion module in diffusers' names, which are not read yet"
    } else if any("motion_modules.") {
        "a motion module: give it with --motion"
    } else if any("lora_unet_") {
        "a LoRA in kohya's names, which are not read yet"
    } else if any("model.diffusion_model.") {
        "a single-file Stable Diffusion checkpoint, which is not read yet: give a diffusers folder"
    } else if any("lora_down") || any("lora_A") {
        "a LoRA in other names"
    } else {
        "something else"
    }
}
