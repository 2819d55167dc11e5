//! The formats that are read and written, as tables. See `docs` of each for its source.

mod legacy;
mod lora;
mod motion;

pub use legacy::{clip_text, unwrapped, vae};
pub use lora::{adapter, motion_lora};
pub use motion::{attention_blocks, motion_module};

use super::named::NamedTensors;

/// What files are by the keys that all their kind have, and the next step. The first row whose parts all occur is it.
const KINDS: [(&[&str], &str, &str); 8] = [
    (&["lora_unet_"], "a LoRA in kohya's names", "these are not read yet"),
    (&[".lora_A."], "a LoRA in PEFT's names", "these are not read yet"),
    (&["motion_modules.", "_lora."], "a MotionLoRA", "give it with --motion-lora"),
    (&["attentions.", "_lora."], "a domain adapter", "give it with --adapter"),
    (&["motion_modules.", ".attn1."], "a motion module in diffusers' names", "these are not read yet"),
    (&["motion_modules."], "a motion module", "give it with --motion"),
    (&["model.diffusion_model."], "a single-file checkpoint", "give a diffusers folder instead"),
    (&["resnets."], "an image model without motion modules", "give its diffusers folder with --base"),
];

/// The end of a message about a file that was taken for `taken_for`: what it is instead, with the next step.
pub fn looks_like(taken_for: &str) -> impl Fn(&NamedTensors) -> String {
    move |tensors| {
        let any = |part: &&str| tensors.names().any(|name| name.contains(part));
        match KINDS.iter().find(|(parts, ..)| parts.iter().all(any)) {
            Some((_, kind, step)) if *kind != taken_for => format!("; it looks like {kind}: {step}"),
            _ => {
                let file = tensors.names().find_map(|name| tensors.origin_of(name)).unwrap_or_default();
                format!("; `animatediff inspect {file}` shows what it holds")
            }
        }
    }
}
