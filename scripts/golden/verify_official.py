"""Optional check of unet3d, motion_options and train_motion against the official implementation.

Usage: python verify_official.py <checkout of guoyww/AnimateDiff> <folder with diffusers 0.11.1, huggingface_hub 0.25.2, einops>
(the folder is made by `pip install --no-deps --target <folder> …`). Not part of make.sh.
"""

import importlib.util
import json
import sys

OFFICIAL, OLD_PACKAGES = sys.argv[1:3]
sys.path[:0] = [OLD_PACKAGES, OFFICIAL]
HIDDEN = ("transformers", "accelerate", "scipy", "xformers")
find_spec = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name.split(".")[0] in HIDDEN else find_spec(name, *rest)

import common
import torch
from animatediff.models import motion_module
from animatediff.models.unet import UNet3DConditionModel
from common import BASE, GOLDEN, load
from safetensors import safe_open
from safetensors.torch import load_file

MOTION = dict(num_attention_heads=8, num_transformer_block=1, attention_block_types=["Temporal_Self"] * 2,
              temporal_position_encoding=True, temporal_position_encoding_max_len=32, temporal_attention_dim_div=1)


def use_small_groups():
    """The official module fixes 32 groups and a text width of 768; the golden models have 8 and 24."""
    original = motion_module.TemporalTransformer3DModel.__init__

    def init(self, *args, **options):
        original(self, *args, **options | {"norm_num_groups": 8, "cross_attention_dim": 24})

    motion_module.TemporalTransformer3DModel.__init__ = init


def build(version):
    model = UNet3DConditionModel(
        sample_size=8, block_out_channels=(16, 32, 32, 32), norm_num_groups=8, layers_per_block=2, attention_head_dim=4,
        cross_attention_dim=24, use_motion_module=True, motion_module_resolutions=(1, 2, 4, 8), motion_module_type="Vanilla",
        motion_module_mid_block=version == "v2", motion_module_kwargs=MOTION, use_inflated_groupnorm=version != "v1",
        unet_use_cross_frame_attention=False, unet_use_temporal_attention=False)
    state = load_file(BASE / "unet" / "diffusion_pytorch_model.safetensors")
    for key, tensor in load("motion_v2").items():
        if "pos_encoder" not in key and (version == "v2" or not key.startswith("mid_block.")):
            state[key] = tensor
    model.load_state_dict(state)
    return model.eval()


def merge(model, lora, scale):
    layers = dict(model.named_modules())
    for key in lora:
        if ".down." in key:
            name = key.replace("processor.", "").replace("_lora.down.weight", "").replace("to_out", "to_out.0")
            layers[name].weight.data += scale * lora[key.replace(".down.", ".up.")] @ lora[key]
    return model


def report(name, ours, theirs):
    print(f"{name}: max difference {(ours - theirs).abs().max():.1e}")


@torch.no_grad()
def check_unet():
    golden = load("unet3d")
    run = lambda model: model(golden["in.sample"], golden["in.timesteps"], golden["in.text"]).sample
    for version in ["v1", "v2", "v3"]:
        report(version, golden[f"out.{version}_frame"], run(build(version)))
    report("motion lora", golden["out.v2_frame_lora08"], run(merge(build("v2"), load("motion_lora"), 0.8)))
    report("adapter", golden["out.v3_frame_adapter1"], run(merge(build("v3"), load("adapter"), 1.0)))


@torch.no_grad()
def check_options():
    golden = load("motion_options")
    with safe_open(GOLDEN / "motion_options.safetensors", "pt") as file:
        cases = {name: json.loads(text) for name, text in file.metadata().items()}
    for name, options in cases.items():
        module = motion_module.VanillaTemporalModule(32, **{key: options[key] for key in MOTION}).eval()
        module.load_state_dict({key.split(".w.")[1]: value for key, value in golden.items() if key.startswith(f"{name}.w.")})
        video = golden[f"{name}.in"].reshape(2, 4, 32, 3, 3).transpose(1, 2)
        out = module(video, None, golden.get(f"{name}.text")).transpose(1, 2).reshape(8, 32, 3, 3)
        report(name, golden[f"{name}.out"], out)


def check_training():
    golden = load("train_motion")
    alphas = (1 - torch.linspace(0.00085, 0.012, 1000)).cumprod(0)
    model = merge(build("v3"), load("adapter"), 1.0).requires_grad_(False)
    parameters = {name: p.requires_grad_(True) for name, p in model.named_parameters() if "motion_modules." in name}
    optimizer = torch.optim.AdamW(parameters.values(), lr=1e-3, weight_decay=1e-2)
    losses = []
    for noise, timesteps in zip(golden["in.noise"], golden["in.timesteps"]):
        alpha = alphas[timesteps].view(-1, 1, 1, 1, 1)
        noisy = alpha.sqrt() * golden["in.latents"] + (1 - alpha).sqrt() * noise
        loss = torch.nn.functional.mse_loss(model(noisy, timesteps, golden["in.text"]).sample, noise)
        optimizer.zero_grad()
        loss.backward()
        if not losses:
            for name in list(parameters)[::100]:
                report(f"grad {name}", golden[f"grad.{name}"], parameters[name].grad)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.detach())
    report("losses", golden["out.losses"], torch.stack(losses))


if __name__ == "__main__":
    common.setup()
    use_small_groups()
    check_unet()
    check_options()
    check_training()
