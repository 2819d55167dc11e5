"""Losses and gradients of the four kinds of training."""

import common
import models
import torch
from common import generator, load, randint, randn, save
from schedules import ddim
from torch.nn.functional import mse_loss

STEPS = 10


def inputs(name, latent_shape, batch):
    rng = generator(name)
    return {
        "in.latents": randn(rng, *latent_shape),
        "in.noise": randn(rng, STEPS, *latent_shape),
        "in.timesteps": randint(rng, 1000, STEPS, batch),
        "in.text": randn(rng, batch, 77, models.TEXT_WIDTH)}


def train(forward, parameters, data, betas, lr):
    """Ten AdamW steps. Returns the losses (each before its update) and the unclipped gradients of step 0."""
    scheduler = ddim(beta_schedule=betas)
    optimizer = torch.optim.AdamW(parameters.values(), lr=lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-2, foreach=False)
    losses, gradients, norms = [], {}, []
    for noise, timesteps in zip(data["in.noise"], data["in.timesteps"]):
        noisy = scheduler.add_noise(data["in.latents"], noise, timesteps)
        loss = mse_loss(forward(noisy, timesteps, data["in.text"]), noise)
        optimizer.zero_grad()
        loss.backward()
        if not losses:
            gradients = {key: parameter.grad.clone() for key, parameter in parameters.items()}
        norms.append(torch.nn.utils.clip_grad_norm_(parameters.values(), 1.0, foreach=False))
        optimizer.step()
        losses.append(loss.detach())
    print("  losses", [round(value.item(), 4) for value in losses])
    return torch.stack(losses), gradients, torch.stack(norms)


def write(name, forward, parameters, data, betas, lr=1e-3, chosen=None):
    losses, gradients, norms = train(forward, parameters, data, betas, lr)
    kept = {f"grad.{key}": value for key, value in gradients.items() if chosen is None or key in chosen}
    metadata = {"config": {"betas": betas, "lr": lr, "adam_betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 1e-2, "max_grad_norm": 1.0}}
    save(name, data | {"out.loss": losses[:1].reshape(()), "out.losses": losses, "out.grad_norms": norms} | kept, metadata)


def motion():
    """Motion module of v3 inside the frozen base with the merged adapter."""
    unet = models.merge_lora(models.load_unet(), load("adapter"), models.image_attention, 1.0)
    model = models.load_video_unet("v3", unet=unet).requires_grad_(False)
    parameters = {}
    for key, parameter in model.named_parameters():
        if "motion_modules." in key:
            parameters[models.to_official_key(key)] = parameter.requires_grad_(True)
    data = inputs("train motion", (2, 4, 4, 8, 8), 2)
    write("train_motion", lambda *args: models.run_video_unet(model, *args), parameters, data, "linear", lr=1e-4)


def adapter():
    """Domain adapter as runtime LoRA on the 2-D UNet."""
    model = models.load_unet()
    parameters = models.attach_lora(model, load("adapter"), models.image_attention)
    data = inputs("train adapter", (4, 4, 8, 8), 4)
    write("train_adapter", lambda *args: model(*args).sample, parameters, data, "scaled_linear")


def motion_lora():
    """Motion-LoRA on the frozen v2 module."""
    model = models.load_video_unet("v2")
    parameters = models.attach_lora(model, load("motion_lora"), models.motion_attention)
    data = inputs("train motion lora", (2, 4, 4, 8, 8), 2)
    write("train_motionlora", lambda *args: models.run_video_unet(model, *args), parameters, data, "linear")


IMAGE_GRADIENTS = """conv_in.weight conv_in.bias time_embedding.linear_1.weight time_embedding.linear_2.bias
down_blocks.0.resnets.0.norm1.weight down_blocks.0.resnets.1.time_emb_proj.weight
down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.weight down_blocks.0.downsamplers.0.conv.weight
down_blocks.1.resnets.0.conv_shortcut.weight down_blocks.1.attentions.1.norm.bias
down_blocks.2.attentions.0.transformer_blocks.0.attn2.to_k.weight down_blocks.3.resnets.1.norm2.bias
mid_block.attentions.0.proj_in.weight mid_block.resnets.1.conv2.bias
up_blocks.0.upsamplers.0.conv.bias up_blocks.1.attentions.2.transformer_blocks.0.ff.net.0.proj.weight
up_blocks.2.attentions.0.transformer_blocks.0.norm3.weight up_blocks.3.attentions.2.transformer_blocks.0.attn2.to_out.0.bias
conv_norm_out.weight conv_out.weight""".split()


def image():
    """Whole 2-D UNet."""
    model = models.load_unet()
    parameters = dict(model.named_parameters())
    assert len(IMAGE_GRADIENTS) == 20 and all(name in parameters for name in IMAGE_GRADIENTS)
    data = inputs("train image", (4, 4, 8, 8), 4)
    write("train_image", lambda *args: model(*args).sample, parameters, data, "scaled_linear", lr=1e-4, chosen=IMAGE_GRADIENTS)


def main():
    common.setup()
    motion()
    adapter()
    motion_lora()
    image()


if __name__ == "__main__":
    main()
