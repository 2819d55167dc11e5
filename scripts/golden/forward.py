"""Golden forward passes of the text encoder, the VAE, the 2-D UNet and the video UNet."""

import common
import torch
from common import describe, generator, load, randint, randn, save
import models


def text_encoder():
    model = models.load_text_encoder()
    rng = generator("text ids")
    vocabulary = model.config.vocab_size
    ids = randint(rng, vocabulary - 2, 3, 77)
    ids[:, 0] = vocabulary - 2
    ids[0, 9:] = vocabulary - 1
    ids[1, 1:] = vocabulary - 1
    ids[2, 76] = vocabulary - 1
    hidden = model(ids).last_hidden_state
    describe("text", hidden)
    save("text_encoder", {"in.ids": ids, "out.hidden": hidden})


def vae():
    model = models.load_vae()
    rng = generator("vae inputs")
    pixels = torch.rand(2, 3, 32, 48, generator=rng) * 2 - 1
    latents = randn(rng, 2, 4, 4, 6)
    posterior = model.encode(pixels).latent_dist
    image = model.decode(latents).sample
    describe("mean", posterior.mean)
    describe("logvar", posterior.logvar)
    describe("image", image)
    save("vae", {"in.pixels": pixels, "out.mean": posterior.mean, "out.logvar": posterior.logvar,
                 "in.latents": latents, "out.image": image})


def unet2d():
    rng = generator("unet2d inputs")
    sample, text = randn(rng, 2, 4, 8, 8), randn(rng, 2, 77, models.TEXT_WIDTH)
    odd, timesteps = randn(rng, 1, 4, 10, 6), torch.tensor([961, 37])
    adapter = load("adapter")
    tensors = {"in.sample": sample, "in.timesteps": timesteps, "in.text": text, "in.sample_odd": odd}
    plain = models.load_unet()
    tensors["out.plain"] = plain(sample, timesteps, text).sample
    tensors["out.odd"] = plain(odd, timesteps[:1], text[:1]).sample
    for name, scale in [("adapter_1", 1.0), ("adapter_half", 0.5)]:
        merged = models.merge_lora(models.load_unet(), adapter, models.image_attention, scale)
        tensors[f"out.{name}"] = merged(sample, timesteps, text).sample
        describe(f"{name} minus plain", tensors[f"out.{name}"] - tensors["out.plain"])
    describe("plain", tensors["out.plain"])
    save("unet2d", tensors)


def unet3d():
    rng = generator("unet3d inputs")
    inputs = randn(rng, 2, 4, 5, 8, 8), torch.tensor([721, 14]), randn(rng, 2, 77, models.TEXT_WIDTH)
    tensors = dict(zip(["in.sample", "in.timesteps", "in.text"], inputs))
    for version in ["v1", "v2", "v3"]:
        for norm in ["frame", "clip"]:
            name = f"out.{version}_{norm}"
            tensors[name] = models.run_video_unet(models.load_video_unet(version, norm), *inputs)
            describe(name, tensors[name])
    motion = models.load_video_unet("v2")
    models.merge_lora(motion, load("motion_lora"), models.motion_attention, 0.8)
    tensors["out.v2_frame_lora08"] = models.run_video_unet(motion, *inputs)
    adapted = models.load_video_unet("v3")
    models.merge_lora(adapted, load("adapter"), models.image_attention, 1.0)
    tensors["out.v3_frame_adapter1"] = models.run_video_unet(adapted, *inputs)
    describe("lora minus v2_frame", tensors["out.v2_frame_lora08"] - tensors["out.v2_frame"])
    describe("adapter minus v3_frame", tensors["out.v3_frame_adapter1"] - tensors["out.v3_frame"])
    describe("frame minus clip (v3)", tensors["out.v3_frame"] - tensors["out.v3_clip"])
    describe("v1 minus v3 (frame)", tensors["out.v1_frame"] - tensors["out.v3_frame"])
    save("unet3d", tensors)


@torch.no_grad()
def main():
    common.setup()
    text_encoder()
    vae()
    unet2d()
    unet3d()


if __name__ == "__main__":
    main()
