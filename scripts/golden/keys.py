"""Writes tests/golden/keys: names and shapes of full-size files, from models without memory and from the naming rules."""

import common
import models
import names
import torch
from common import GOLDEN
from diffusers import AutoencoderKL, ControlNetModel, MotionAdapter, UNet2DConditionModel

LORA_RANK = 8
UNET = dict(cross_attention_dim=768, attention_head_dim=8)
VAE = models.VAE_CONFIG | dict(sample_size=512, block_out_channels=(128, 256, 512, 512), norm_num_groups=32)


def full_text_encoder():
    from transformers import CLIPTextConfig, CLIPTextModel

    return CLIPTextModel(CLIPTextConfig(
        vocab_size=49408, hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12, projection_dim=768))


def write(name, shapes):
    path = GOLDEN / "keys" / f"{name}.txt"
    path.write_text("".join(f"{key} {list(shape)}\n" for key, shape in shapes.items()))
    path.chmod(0o644)
    print(f"{path.name}: {len(shapes)} tensors")


def shapes(state):
    return {key: tensor.shape for key, tensor in state.items()}


def controlnet_ldm(state):
    return {names.rename(key, names.controlnet_path, "control_model."): tensor.shape for key, tensor in state.items()}


def checkpoint_ldm(unet, text_encoder):
    text = {"embeddings.position_ids": torch.empty(1, 77)} | text_encoder.state_dict()
    return shapes(names.ldm_state(unet.state_dict(), AutoencoderKL(**VAE).state_dict(), text))


def lora_kohya(*targets):
    found = {}
    for model in targets:
        for name, path in names.kohya_layers(model).items():
            down, up = names.lora_shapes(model.get_submodule(path), LORA_RANK)
            found |= {f"{name}.alpha": (), f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up}
    return found


def main():
    common.setup()
    with torch.device("meta"):
        unet, text_encoder = UNet2DConditionModel(**UNET), full_text_encoder()
        controlnet = ControlNetModel(**UNET).state_dict()
        write("controlnet", shapes(controlnet))
        write("controlnet_ldm", controlnet_ldm(controlnet))
        write("checkpoint_ldm", checkpoint_ldm(unet, text_encoder))
        write("motion_adapter_v3", shapes(MotionAdapter(use_motion_mid_block=False).state_dict()))
        write("lora_kohya", lora_kohya(text_encoder, unet))


if __name__ == "__main__":
    main()
