"""diffusers' pipelines of the golden base with the settings of `sampling.py`, plain merging of LoRA files, and error measures."""

import json
import re

import models
import names
import torch
from captions import BAD
from common import BASE
from diffusers import AnimateDiffPipeline, StableDiffusionPipeline
from safetensors import safe_open
from sampling import GUIDANCE, PROMPTS, SIDE
from schedules import ddim
from tokenizer import load_tokenizer

PROMPT, NEGATIVE, STEPS, FRAMES = PROMPTS[1], ", ".join(BAD[:6]), 3, 4
SETTINGS = {"prompts": [PROMPT], "negative_prompts": [NEGATIVE],
            "config": {"steps": STEPS, "guidance": GUIDANCE, "frames": FRAMES, "side": SIDE, "motion_norm": "clip",
                       "noise_scheduler_kwargs": {"timestep_spacing": "linspace", "set_alpha_to_one": False}}}


# --- pipelines ----------------------------------------------------------------------------------------------------

def scheduler():
    return ddim(timestep_spacing="linspace", set_alpha_to_one=False)


def parts():
    return dict(vae=models.load_vae(), text_encoder=models.load_text_encoder(), tokenizer=load_tokenizer(BASE / "tokenizer"),
                unet=models.load_unet(), scheduler=scheduler())


def image_pipeline(**changes):
    return quiet(StableDiffusionPipeline(
        **(parts() | changes), safety_checker=None, feature_extractor=None, requires_safety_checker=False))


def video_pipeline(adapter, **changes):
    return quiet(AnimateDiffPipeline(**(parts() | changes), motion_adapter=adapter))


def quiet(pipeline):
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@torch.no_grad()
def sample(pipeline, latents):
    """Final latents [1,4,F,8,8] for starting ones of the same shape; an image has F = 1."""
    settings = dict(prompt=PROMPT, negative_prompt=NEGATIVE, height=SIDE, width=SIDE, num_inference_steps=STEPS,
                    guidance_scale=GUIDANCE, output_type="latent")
    if isinstance(pipeline, AnimateDiffPipeline):
        return pipeline(**settings, latents=latents.clone(), num_frames=latents.shape[2]).frames
    return pipeline(**settings, latents=latents[:, :, 0].clone()).images[:, :, None]


def with_lora(pipeline, lora, scale, **options):
    """`lora` through diffusers' own loader (a file or a dict), at `scale` in every model it changes."""
    source = lora if isinstance(lora, dict) else str(lora)
    pipeline.load_lora_weights(source, adapter_name="lora", **options)
    pipeline.set_adapters("lora", scale)
    return pipeline


# --- merging by the rules of the formats --------------------------------------------------------------------------

def delta(up, down):
    """up @ down of linear layers and convolutions, [out, in] or [out, in, kh, kw]."""
    product = up.flatten(1).float() @ down.flatten(1).float()
    return product.reshape(up.shape[0], *down.shape[1:])


@torch.no_grad()
def merge_kohya(pipeline, state, scale):
    """W += scale * alpha / rank * up @ down; every layer of the file must be found."""
    left = set(state)
    for model in (pipeline.unet, pipeline.text_encoder):
        for name, path in names.kohya_layers(model).items():
            if f"{name}.alpha" in state:
                down, up = state[f"{name}.lora_down.weight"], state[f"{name}.lora_up.weight"]
                ratio = state[f"{name}.alpha"].item() / down.shape[0]
                model.get_submodule(path).weight.data += scale * ratio * delta(up, down)
                left -= {f"{name}.alpha", f"{name}.lora_down.weight", f"{name}.lora_up.weight"}
    assert not left, sorted(left)[:5]
    return pipeline


@torch.no_grad()
def merge_diffusers(pipeline, path, scale):
    """A LoRA file of diffusers; without settings of its own in the metadata alpha is the rank."""
    with safe_open(path, "pt") as file:
        settings = json.loads((file.metadata() or {}).get("lora_adapter_metadata", "{}"))
        state = {key: file.get_tensor(key) for key in file.keys()}
    for key, down in state.items():
        if not (found := re.fullmatch(r"(\w+)\.(.+?)\.(lora_A|lora\.down|lora_linear_layer\.down)\.weight", key)):
            continue
        model, layer, kind = getattr(pipeline, found[1]), found[2], found[3]
        layer = layer if hasattr(model, "text_model") else layer.removeprefix("text_model.")
        ratio = settings[f"{found[1]}.lora_alpha"] / settings[f"{found[1]}.r"] if settings else 1
        up = state[key.replace(kind, "lora_B" if kind == "lora_A" else kind.replace("down", "up"))]
        model.get_submodule(layer).weight.data += scale * ratio * delta(up, down)
    return pipeline


def error(found, expected):
    """Largest difference relative to the largest magnitude expected."""
    return ((found - expected).abs().max() / expected.abs().max()).item()
