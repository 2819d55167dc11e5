"""Writes the random base model folder, the motion module, the domain adapter and the Motion-LoRA."""

import json

import common
import models
from common import BASE, generator, randomise, save
from safetensors.torch import load_file, save_file

MODEL_INDEX = {
    "_class_name": "StableDiffusionPipeline", "_diffusers_version": "0.42.1",
    "feature_extractor": [None, None], "image_encoder": [None, None], "safety_checker": [None, None],
    "requires_safety_checker": False,
    "scheduler": ["diffusers", "PNDMScheduler"], "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"], "unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"]}


def write_json(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2) + "\n")


def text_config():
    from transformers import CLIPTextConfig

    vocabulary = json.loads((BASE / "tokenizer" / "vocab.json").read_text(encoding="utf-8"))
    # The special ids are the misleading ones of the published SD1.5 folder, on purpose.
    return CLIPTextConfig(
        vocab_size=len(vocabulary), hidden_size=models.TEXT_WIDTH, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=77, hidden_act="quick_gelu", projection_dim=models.TEXT_WIDTH,
        bos_token_id=0, eos_token_id=2, pad_token_id=1)


def write_text_encoder():
    from transformers import CLIPTextModel

    model = randomise(CLIPTextModel(text_config()), generator("text_encoder"))
    model.save_pretrained(BASE / "text_encoder", safe_serialization=True)
    use_published_names(BASE / "text_encoder" / "model.safetensors")


def use_published_names(path):
    """Published folders name every tensor `text_model.…`; new transformers versions may leave that out."""
    state = load_file(path)
    named = {key if key.startswith("text_model.") else f"text_model.{key}": tensor for key, tensor in state.items()}
    named.pop("text_model.embeddings.position_ids", None)
    save_file(named, path, metadata={"format": "pt"})


def write_scheduler():
    from diffusers import PNDMScheduler

    PNDMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", num_train_timesteps=1000, skip_prk_steps=True,
        steps_offset=1, set_alpha_to_one=False).save_pretrained(BASE / "scheduler")
    path = BASE / "scheduler" / "scheduler_config.json"
    write_json(path, json.loads(path.read_text()) | {"clip_sample": False})


def write_lora_files():
    unet = models.load_unet()
    save("adapter", models.random_lora(unet, models.image_attention, generator("adapter")))
    video = models.load_video_unet("v2")
    save("motion_lora", models.random_lora(video, models.motion_attention, generator("motion_lora")))


def main():
    common.setup()
    write_json(BASE / "model_index.json", MODEL_INDEX)
    models.random_unet().save_pretrained(BASE / "unet")
    models.random_vae().save_pretrained(BASE / "vae")
    write_text_encoder()
    write_scheduler()
    save("motion_v2", models.random_motion())
    write_lora_files()
    for path in BASE.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)


if __name__ == "__main__":
    main()
