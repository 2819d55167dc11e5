//! The formats that are read and written, as tables. See `docs` of each for its source.

mod legacy;
mod lora;
mod motion;

pub use legacy::{clip_text, unwrapped, vae};
pub use lora::{adapter, motion_lora};
pub use motion::{attention_blocks, motion_module};

use super::named::NamedTensors;

/// A kind of file, told by the parts that some of its keys have.
struct FileKind {
    parts: &'static [&'static str],
    name: &'static str,
    /// What to do with it.
    step: &'static str,
}

/// The first whose parts all occur is it.
const KINDS: [FileKind; 10] = {
    const fn kind(parts: &'static [&'static str], name: &'static str, step: &'static str) -> FileKind {
        FileKind { parts, name, step }
    }
    [
        kind(&["lora_unet_"], "a LoRA in kohya's names", "these are not read yet"),
        kind(&[".lora_A."], "a LoRA in PEFT's names", "these are not read yet"),
        kind(&["motion_modules.", "_lora."], "a MotionLoRA", "give it with --motion-lora"),
        kind(&["attentions.", "_lora."], "a domain adapter", "give it with --adapter"),
        kind(&["motion_modules.", ".attn1."], "a motion module in diffusers' names", "these are not read yet"),
        kind(&["motion_modules."], "a motion module", "give it with --motion"),
        kind(&["model.diffusion_model."], "a single-file checkpoint", "give a diffusers folder instead"),
        kind(&["post_quant_conv."], "a VAE", "give its diffusers folder with --base"),
        kind(&["token_embedding."], "a text encoder", "give its diffusers folder with --base"),
        kind(&["resnets."], "an image model without motion modules", "give its diffusers folder with --base"),
    ]
};

/// What a file is by its keys, if they tell.
pub fn kind(tensors: &NamedTensors) -> Option<&'static str> {
    find(tensors).map(|kind| kind.name)
}

fn find(tensors: &NamedTensors) -> Option<&'static FileKind> {
    let any = |part: &&str| tensors.names().any(|name| name.contains(part));
    KINDS.iter().find(|kind| kind.parts.iter().all(any))
}

/// The end of a message about a file that was taken for `taken_for`: what it is instead, with the next step.
pub fn looks_like(taken_for: &str) -> impl Fn(&NamedTensors) -> String {
    move |tensors| match find(tensors) {
        Some(FileKind { name, step, .. }) if *name != taken_for => format!("; it looks like {name}: {step}"),
        _ => {
            let file = tensors.names().find_map(|name| tensors.origin_of(name)).unwrap_or_default();
            format!("; `animatediff inspect {file}` shows what it holds")
        }
    }
}
