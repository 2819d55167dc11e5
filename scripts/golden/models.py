"""The tiny random models, official key names, LoRA pairs and the GroupNorm-scope variants."""

import common
import torch
from common import BASE, fill_norm, load, randn, randomise
from diffusers import AutoencoderKL, MotionAdapter, UNet2DConditionModel, UNetMotionModel
from torch import nn

CHANNELS = (16, 32, 32, 32)
GROUPS = 8
TEXT_WIDTH = 24
LORA_RANK = 4
PE_LENGTH = 32
LATENT_SCALE = 0.18215

UNET_CONFIG = dict(
    sample_size=8, in_channels=4, out_channels=4, block_out_channels=CHANNELS, norm_num_groups=GROUPS, layers_per_block=2,
    down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    attention_head_dim=4, cross_attention_dim=TEXT_WIDTH)

VAE_CONFIG = dict(
    sample_size=64, in_channels=3, out_channels=3, latent_channels=4, block_out_channels=(8, 16, 16, 16), norm_num_groups=4,
    layers_per_block=2, scaling_factor=LATENT_SCALE,
    down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4)


def motion_config(mid):
    return dict(
        block_out_channels=CHANNELS, motion_layers_per_block=2, motion_num_attention_heads=8, motion_norm_num_groups=GROUPS,
        motion_max_seq_length=PE_LENGTH, use_motion_mid_block=mid)


# --- official key names -------------------------------------------------------------------------------------------

OFFICIAL_TO_DIFFUSERS = [
    (".norms.0", ".norm1"), (".norms.1", ".norm2"), (".ff_norm", ".norm3"),
    (".attention_blocks.0", ".attn1"), (".attention_blocks.1", ".attn2"), (".temporal_transformer", "")]


def to_diffusers_key(key):
    for official, name in OFFICIAL_TO_DIFFUSERS:
        key = key.replace(official, name)
    return key


def to_official_key(key):
    """Name of a motion-module tensor of diffusers in official files."""
    head, number, tail = split_motion_key(key)
    if tail.startswith("transformer_blocks."):
        for official, name in OFFICIAL_TO_DIFFUSERS[:5]:
            tail = tail.replace(name, official)
    return f"{head}.motion_modules.{number}.temporal_transformer.{tail}"


def split_motion_key(key):
    head, rest = key.split(".motion_modules.")
    number, tail = rest.split(".", 1)
    return head, number, tail


def official_motion_state(state):
    """Motion tensors of a diffusers state dict under official names, with one position table per attention block."""
    official = {}
    for key, tensor in state.items():
        if "motion_modules." not in key:
            continue
        if "pos_embed" in key:
            block = to_official_key(key).split(".pos_embed")[0]
            for index in range(2):
                official[f"{block}.attention_blocks.{index}.pos_encoder.pe"] = tensor
        else:
            official[to_official_key(key)] = tensor
    return official


def diffusers_motion_state(official):
    return {to_diffusers_key(key): tensor for key, tensor in official.items() if "pos_encoder" not in key}


def without_mid(official):
    return {key: tensor for key, tensor in official.items() if not key.startswith("mid_block.")}


# --- random models ------------------------------------------------------------------------------------------------

def random_unet():
    return randomise(UNet2DConditionModel(**UNET_CONFIG), common.generator("unet"))


def random_vae():
    return randomise(AutoencoderKL(**VAE_CONFIG), common.generator("vae"))


def random_motion():
    """Official state of a v2 motion module; its output projection is not zero, so the module is visible."""
    adapter = randomise(MotionAdapter(**motion_config(mid=True)), common.generator("motion"))
    return official_motion_state(adapter.state_dict())


# --- loading ------------------------------------------------------------------------------------------------------

def load_unet():
    return UNet2DConditionModel.from_pretrained(BASE / "unet").eval()


def load_vae():
    return AutoencoderKL.from_pretrained(BASE / "vae").eval()


def load_text_encoder():
    from transformers import CLIPTextModel

    return CLIPTextModel.from_pretrained(BASE / "text_encoder").eval()


def load_motion_adapter(version):
    official = load("motion_v2") if version == "v2" else without_mid(load("motion_v2"))
    adapter = MotionAdapter(**motion_config(mid=version == "v2"))
    missing, unexpected = adapter.load_state_dict(diffusers_motion_state(official), strict=False)
    assert not unexpected and all("pos_embed" in key for key in missing), (missing, unexpected)
    return adapter.eval()


def load_video_unet(version, norm="frame", unet=None):
    """UNetMotionModel of a version; `norm` is the scope of the motion modules' GroupNorm (frame or clip)."""
    model = UNetMotionModel.from_unet2d(unet or load_unet(), load_motion_adapter(version)).eval()
    if norm == "frame":
        motion_norm_per_frame(model)
    if version == "v1":
        image_norm_across_frames(model)
    return model


def run_video_unet(model, sample, timesteps, text):
    """Forward of [B,4,F,H,W] with one text row per video."""
    frames = sample.shape[2]
    for layer in model.modules():
        if isinstance(layer, AcrossFramesNorm):
            layer.frames = frames
    return model(sample, timesteps, text.repeat_interleave(frames, dim=0)).sample


# --- GroupNorm scopes ---------------------------------------------------------------------------------------------

class PerFrameNorm(nn.Module):
    """GroupNorm on [B,C,F,H,W] with separate statistics for every frame."""

    def __init__(self, norm):
        super().__init__()
        self.weight, self.bias, self.groups, self.eps = norm.weight, norm.bias, norm.num_groups, norm.eps

    def forward(self, x):
        batch, channels, frames, height, width = x.shape
        folded = x.transpose(1, 2).reshape(batch * frames, channels, height, width)
        folded = nn.functional.group_norm(folded, self.groups, self.weight, self.bias, self.eps)
        return folded.reshape(batch, frames, channels, height, width).transpose(1, 2)


class AcrossFramesNorm(nn.Module):
    """GroupNorm on folded [B*F,C,H,W] with statistics shared by the frames of a video."""

    def __init__(self, norm):
        super().__init__()
        self.weight, self.bias, self.groups, self.eps = norm.weight, norm.bias, norm.num_groups, norm.eps
        self.frames = None

    def forward(self, x):
        rows, channels, height, width = x.shape
        video = x.reshape(rows // self.frames, self.frames, channels, height, width).transpose(1, 2)
        video = nn.functional.group_norm(video, self.groups, self.weight, self.bias, self.eps)
        return video.transpose(1, 2).reshape(rows, channels, height, width)


def replace_module(model, name, wrap):
    parent, _, leaf = name.rpartition(".")
    owner = model.get_submodule(parent)
    setattr(owner, leaf, wrap(getattr(owner, leaf)))


def norm_names(model, wanted):
    return [name for name, layer in model.named_modules() if isinstance(layer, nn.GroupNorm) and wanted(name)]


def motion_norm_per_frame(model):
    names = norm_names(model, lambda name: "motion_modules." in name)
    for name in names:
        replace_module(model, name, PerFrameNorm)
    return names


def image_norm_across_frames(model):
    names = norm_names(model, lambda name: ".resnets." in name or name == "conv_norm_out")
    for name in names:
        replace_module(model, name, AcrossFramesNorm)
    return names


# --- LoRA ---------------------------------------------------------------------------------------------------------

PROJECTIONS = {"to_q_lora": "to_q", "to_k_lora": "to_k", "to_v_lora": "to_v", "to_out_lora": "to_out.0"}


def lora_pair_names(model, official_attention):
    """(layer name in the diffusers model, official name up to .down/.up) for the projections of selected attentions."""
    names = []
    for name, layer in model.named_modules():
        attention = official_attention(name, layer)
        if attention is not None:
            names += [(f"{name}.{target}", f"{attention}.processor.{lora}") for lora, target in PROJECTIONS.items()]
    return names


def is_attention(layer):
    return hasattr(layer, "to_q") and hasattr(layer, "to_out")


def image_attention(name, layer):
    return name if is_attention(layer) and ".attentions." in name else None


def motion_attention(name, layer):
    return to_official_key(name) if is_attention(layer) and ".motion_modules." in name else None


def random_lora(model, selector, rng):
    """Official LoRA state; the up factor is not zero."""
    state = {}
    for target, official in lora_pair_names(model, selector):
        outputs, inputs = model.get_submodule(target).weight.shape
        state[f"{official}.down.weight"] = randn(rng, LORA_RANK, inputs, scale=inputs ** -0.5)
        state[f"{official}.up.weight"] = randn(rng, outputs, LORA_RANK, scale=0.5 * LORA_RANK ** -0.5)
    return state


def merge_lora(model, state, selector, scale):
    """W += scale * up @ down on every selected projection; no division by the rank."""
    for target, official in lora_pair_names(model, selector):
        delta = state[f"{official}.up.weight"] @ state[f"{official}.down.weight"]
        model.get_submodule(target).weight.data += scale * delta
    return model


class LoraLinear(nn.Module):
    """A frozen Linear with a trainable side branch: y = W x + b + up(down(x))."""

    def __init__(self, linear, down, up):
        super().__init__()
        self.linear = linear
        self.down = nn.Parameter(down.clone())
        self.up = nn.Parameter(up.clone())

    def forward(self, x):
        return self.linear(x) + (x @ self.down.T) @ self.up.T


def attach_lora(model, state, selector):
    """Freeze the model, add trainable pairs at scale 1; returns {official tensor name: parameter}."""
    model.requires_grad_(False)
    parameters = {}
    for target, official in lora_pair_names(model, selector):
        down, up = state[f"{official}.down.weight"], state[f"{official}.up.weight"]
        replace_module(model, target, lambda linear: LoraLinear(linear, down, up))
        branch = model.get_submodule(target)
        parameters[f"{official}.down.weight"] = branch.down
        parameters[f"{official}.up.weight"] = branch.up
    return parameters
