"""Names that other programs give to the layers: kohya's LoRA files and LDM checkpoints, derived from torch module names."""

import re

from torch import nn

TRANSFORMER = {"Transformer2DModel", "CLIPAttention", "CLIPMLP"}
CONVOLUTIONAL = {"ResnetBlock2D", "Downsample2D", "Upsample2D"}


# --- kohya --------------------------------------------------------------------------------------------------------

def published(model, path):
    """Path of a layer as in published files: new transformers versions have no `text_model.` level in the text encoder."""
    text = type(model).__name__ == "CLIPTextModel" and not path.startswith("text_model.")
    return f"text_model.{path}" if text else path


def kohya_layers(model):
    """{kohya's name: path in `model`} of the layers that a LoRA with convolutions changes."""
    prefix = "lora_te_" if type(model).__name__ == "CLIPTextModel" else "lora_unet_"
    layers = [path for path, layer in model.named_modules() if isinstance(layer, (nn.Linear, nn.Conv2d))]
    paths = [path for path in layers if is_target(model, path)]
    return {prefix + published(model, path).replace(".", "_"): path for path in paths}


def is_target(model, path):
    parts = path.split(".")
    owners = {type(model.get_submodule(".".join(parts[:end]))).__name__ for end in range(1, len(parts))}
    return bool(owners & (TRANSFORMER | CONVOLUTIONAL))


def is_wide(layer):
    """A convolution with a window; the others get the rank of the linear layers."""
    return isinstance(layer, nn.Conv2d) and layer.kernel_size != (1, 1)


def lora_shapes(layer, rank):
    """Shapes of `lora_down.weight` and `lora_up.weight`."""
    if isinstance(layer, nn.Conv2d):
        return (rank, layer.in_channels, *layer.kernel_size), (layer.out_channels, rank, 1, 1)
    return (rank, layer.in_features), (layer.out_features, rank)


# --- LDM ----------------------------------------------------------------------------------------------------------

UNET_TOP = {"time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2", "conv_in": "input_blocks.0.0",
            "conv_norm_out": "out.0", "conv_out": "out.2"}
UNET_RESNET = {"norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0",
               "conv2": "out_layers.3", "conv_shortcut": "skip_connection"}
HINT = {"conv_in": 0, **{f"blocks.{index}": 2 * index + 2 for index in range(6)}, "conv_out": 14}
VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
LEVELS, LAYERS = 4, 3


def unet_path(path):
    """LDM path of a UNet layer (no weight or bias at the end); block 0 of the up side has no attention."""
    if path in UNET_TOP:
        return UNET_TOP[path]
    if path.startswith("mid_block."):
        _, kind, index, rest = path.split(".", 3)
        return f"middle_block.{1 if kind == 'attentions' else 2 * int(index)}.{inner(kind, rest)}"
    side, block, kind, index, rest = path.split(".", 4)
    block, layer = int(block), LAYERS - 1 if kind.endswith("samplers") else int(index)
    if side == "down_blocks":
        return f"input_blocks.{1 + LAYERS * block + layer}.{int(kind == 'attentions')}.{inner(kind, rest)}"
    slot = {"resnets": 0, "attentions": 1, "upsamplers": 1 if block == 0 else 2}[kind]
    return f"output_blocks.{LAYERS * block + layer}.{slot}.{inner(kind, rest)}"


def inner(kind, rest):
    return {"resnets": UNET_RESNET.get(rest), "downsamplers": "op"}.get(kind, rest)


def controlnet_path(path):
    head, _, rest = path.partition(".")
    if head == "controlnet_cond_embedding":
        return f"input_hint_block.{HINT[rest]}"
    if head == "controlnet_down_blocks":
        return f"zero_convs.{rest}.0"
    return "middle_block_out.0" if head == "controlnet_mid_block" else unet_path(path)


def vae_path(path):
    """LDM path of a VAE layer; LDM counts the up levels from the finest."""
    path = path.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
    path = re.sub(r"mid_block\.resnets\.(\d)", lambda found: f"mid.block_{int(found[1]) + 1}", path)
    if found := re.fullmatch(r"(.+)\.mid_block\.attentions\.0\.(.+)", path):
        return f"{found[1]}.mid.attn_1.{VAE_ATTENTION[found[2]]}"
    path = re.sub(r"up_blocks\.(\d)", lambda found: f"up.{LEVELS - 1 - int(found[1])}", path).replace("down_blocks", "down")
    path = path.replace("downsamplers.0", "downsample").replace("upsamplers.0", "upsample")
    return path.replace(".resnets.", ".block.")


def rename(key, rule, prefix):
    """The name of a tensor: `rule` for its layer, the last part as it is."""
    path, _, leaf = key.rpartition(".")
    return f"{prefix}{rule(path)}.{leaf}"


def ldm_state(unet, vae, text_encoder):
    """A whole checkpoint from three state dicts of diffusers (the text encoder's with or without `text_model.`)."""
    state = {rename(key, unet_path, "model.diffusion_model."): tensor for key, tensor in unet.items()}
    for key, tensor in vae.items():
        attention = re.search(r"\.attentions\.0\.to_\w+(\.0)?\.weight$", key)
        state[rename(key, vae_path, "first_stage_model.")] = tensor[:, :, None, None] if attention else tensor
    for key, tensor in text_encoder.items():
        state[f"cond_stage_model.transformer.text_model.{key.removeprefix('text_model.')}"] = tensor
    return state
