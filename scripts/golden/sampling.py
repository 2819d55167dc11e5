"""Whole text-to-video samplings: the official recipe and diffusers' own pipeline."""

import common
import models
import torch
from captions import BAD
from common import BASE, describe, generator, randn, save
from diffusers import AnimateDiffPipeline
from schedules import ddim
from tokenizer import load_tokenizer

PROMPTS = ["a red circle moving to the left on a white background", "zoom in, beautiful mountain lake at sunset, 8k uhd, it's cinematic"]
NEGATIVE = ["", ", ".join(BAD[:6])]
STEPS, GUIDANCE, FRAMES, SIDE = 5, 7.5, 4, 64


def encode(tokenizer, model, texts):
    ids = tokenizer(texts, padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids
    return model(ids).last_hidden_state


def official(latents):
    """v3 module, per-frame motion norm, leading timesteps, final alpha 1."""
    encoder, tokenizer = models.load_text_encoder(), load_tokenizer(BASE / "tokenizer")
    text = torch.cat([encode(tokenizer, encoder, NEGATIVE), encode(tokenizer, encoder, PROMPTS)])
    unet = models.load_video_unet("v3")
    scheduler = ddim(timestep_spacing="leading", set_alpha_to_one=True)
    scheduler.set_timesteps(STEPS)
    for t in scheduler.timesteps:
        both = models.run_video_unet(unet, torch.cat([latents, latents]), t.repeat(2 * len(latents)), text)
        without, conditioned = both.chunk(2)
        latents = scheduler.step(without + GUIDANCE * (conditioned - without), t, latents).prev_sample
    return text, latents


def decode(latents):
    """Frames in [0,1], [B,3,F,H,W]."""
    batch, channels, frames, height, width = latents.shape
    folded = latents.transpose(1, 2).reshape(-1, channels, height, width) / models.LATENT_SCALE
    images = (models.load_vae().decode(folded).sample / 2 + 0.5).clamp(0, 1)
    return images.reshape(batch, frames, *images.shape[1:]).transpose(1, 2)


def diffusers_pipeline(latents):
    """The unmodified pipeline: motion norm over the clip, linspace timesteps, final alpha of timestep 0."""
    pipeline = AnimateDiffPipeline(
        vae=models.load_vae(), text_encoder=models.load_text_encoder(), tokenizer=load_tokenizer(BASE / "tokenizer"),
        unet=models.load_unet(), motion_adapter=models.load_motion_adapter("v3"),
        scheduler=ddim(timestep_spacing="linspace", set_alpha_to_one=False))
    pipeline.set_progress_bar_config(disable=True)
    return pipeline(
        prompt=PROMPTS, negative_prompt=NEGATIVE, num_frames=FRAMES, height=SIDE, width=SIDE, num_inference_steps=STEPS,
        guidance_scale=GUIDANCE, latents=latents.clone(), output_type="latent").frames


@torch.no_grad()
def main():
    common.setup()
    latents = randn(generator("sampling"), len(PROMPTS), 4, FRAMES, SIDE // 8, SIDE // 8)
    text, result = official(latents)
    video = decode(result)
    other = diffusers_pipeline(latents)
    describe("official latents", result)
    describe("official video", video)
    describe("diffusers latents", other)
    metadata = {"prompts": PROMPTS, "negative_prompts": NEGATIVE, "config": {"steps": STEPS, "guidance": GUIDANCE, "version": "v3"}}
    save("sampling", {"in.latents": latents, "in.text": text, "out.official_latents": result, "out.official_video": video,
                      "out.diffusers_latents": other}, metadata)


if __name__ == "__main__":
    main()
