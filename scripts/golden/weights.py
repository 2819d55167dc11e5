"""Writes tests/golden/weights: files in the formats of other programs, and what diffusers samples with them."""

import json

import common
import lycoris_layers
import models
import names
import pipelines
import torch
from common import GOLDEN, generator, load, randn, save, sort_metadata
from embeddings import write_embeddings
from peft import LoraConfig
from pipelines import error, image_pipeline, merge_kohya, merge_diffusers, sample, video_pipeline, with_lora
from safetensors.torch import load_file, save_file

FOLDER = GOLDEN / "weights"
RANK, ALPHA, CONV_RANK, CONV_ALPHA = 4, 2.0, 2, 1.5
UNET_LORA = dict(r=4, lora_alpha=6, target_modules=["to_q", "to_k", "to_v", "to_out.0"])
TEXT_LORA = dict(r=2, lora_alpha=3, target_modules=["q_proj", "k_proj", "v_proj", "out_proj"])
LDM_LAYERS = ["input_blocks_1_1_transformer_blocks_0_attn1_to_q", "input_blocks_1_1_proj_in", "input_blocks_4_0_skip_connection",
              "input_blocks_5_0_in_layers_2", "input_blocks_6_0_op", "input_blocks_11_0_emb_layers_1",
              "middle_block_0_out_layers_3", "middle_block_1_transformer_blocks_0_ff_net_0_proj",
              "middle_block_2_in_layers_2", "output_blocks_0_0_in_layers_2", "output_blocks_2_1_conv", "output_blocks_5_2_conv",
              "output_blocks_3_1_transformer_blocks_0_attn2_to_k", "output_blocks_11_1_transformer_blocks_0_attn1_to_out_0"]


def write(name, tensors, metadata=None):
    """One file of tests/golden/weights; unlike `save` the metadata is plain text."""
    path = FOLDER / f"{name}.safetensors"
    save_file({key: tensor.detach().clone().contiguous() for key, tensor in tensors.items()}, path, metadata=metadata)
    path.chmod(0o644)
    sort_metadata(path)
    print(f"{path.name}: {len(tensors)} tensors, {path.stat().st_size / 1024:.0f} KiB")


def read(name):
    return load_file(FOLDER / f"{name}.safetensors")


# --- files --------------------------------------------------------------------------------------------------------

def kohya_layer(layer, rng):
    """The three tensors of a layer, half precision."""
    rank, alpha = (CONV_RANK, CONV_ALPHA) if names.is_wide(layer) else (RANK, ALPHA)
    down, up = names.lora_shapes(layer, rank)
    fan_in = torch.Size(down[1:]).numel()
    tensors = {"alpha": torch.tensor(alpha), "lora_down.weight": randn(rng, *down, scale=fan_in ** -0.5),
               "lora_up.weight": randn(rng, *up, scale=0.7 * rank ** -0.5)}
    return {key: tensor.half() for key, tensor in tensors.items()}


def write_kohya():
    rng, state = generator("kohya"), {}
    for model in (models.load_text_encoder(), models.load_unet()):
        for name, path in names.kohya_layers(model).items():
            state |= {f"{name}.{key}": tensor for key, tensor in kohya_layer(model.get_submodule(path), rng).items()}
    metadata = {"ss_network_module": "networks.lora", "ss_network_dim": str(RANK), "ss_network_alpha": str(ALPHA),
                "ss_network_args": json.dumps({"conv_dim": str(CONV_RANK), "conv_alpha": str(CONV_ALPHA)})}
    write("kohya", state, metadata)
    write("kohya_ldm", ldm_part(state), metadata)


def ldm_names():
    """{name of a layer as LDM calls it: kohya's name} for the layers of the smaller file."""
    layers = names.kohya_layers(models.load_unet())
    both = {names.unet_path(path).replace(".", "_"): name for name, path in layers.items()}
    return {f"lora_unet_{layer}": both[layer] for layer in LDM_LAYERS}


def ldm_part(state):
    found = {name: name for name in text_names(state)}
    return {f"{ldm}{key.removeprefix(name)}": tensor for ldm, name in (found | ldm_names()).items()
            for key, tensor in state.items() if key.startswith(f"{name}.")}


def kohya_part():
    """The layers of `kohya_ldm` under kohya's usual names."""
    state = read("kohya")
    wanted = [*text_names(state), *ldm_names().values()]
    return {key: tensor for key, tensor in state.items() if key.split(".")[0] in wanted}


def text_names(state):
    """Layers of the text encoder in the smaller file; diffusers drops attention layers of a file that has no `out_proj`."""
    wanted = ("layers_0_self_attn_q_proj", "layers_0_self_attn_out_proj", "layers_1_mlp_fc1")
    return list(dict.fromkeys(key.split(".")[0] for key in state if any(name in key for name in wanted)))


def randomised_adapter(model, settings, rng):
    """State and settings of a peft adapter added to `model`."""
    from peft.utils import get_peft_model_state_dict

    model.add_adapter(LoraConfig(**settings), adapter_name="default")
    for key, parameter in model.named_parameters():
        if ".lora_" in key:
            scale = parameter.shape[1] ** -0.5 * (1 if ".lora_A." in key else 0.4)
            parameter.data.copy_(randn(rng, *parameter.shape, scale=scale).half())
    config = model.peft_config["default"].to_dict() | {"base_model_name_or_path": None}
    config["target_modules"] = sorted(config["target_modules"])
    state = get_peft_model_state_dict(model, adapter_name="default")
    return {key: tensor.half() for key, tensor in state.items()}, config


def write_diffusers_lora():
    """A peft adapter as it is; then as diffusers' training scripts convert it, without settings, for an older text encoder."""
    from diffusers.utils import convert_state_dict_to_diffusers

    pipeline, rng = image_pipeline(), generator("diffusers_lora")
    unet, unet_config = randomised_adapter(pipeline.unet, UNET_LORA, rng)
    text, text_config = randomised_adapter(pipeline.text_encoder, TEXT_LORA, rng)
    save_lora(pipeline, "diffusers_lora", unet, text,
              unet_lora_adapter_metadata=unet_config, text_encoder_lora_adapter_metadata=text_config)
    text = {f"text_model.{key}": tensor for key, tensor in text.items()}
    save_lora(pipeline, "diffusers_lora_script", convert_state_dict_to_diffusers(unet), convert_state_dict_to_diffusers(text))


def save_lora(pipeline, name, unet, text, **metadata):
    pipeline.save_lora_weights(
        FOLDER, unet_lora_layers=unet, text_encoder_lora_layers=text, weight_name=f"{name}.safetensors", **metadata)
    finish(FOLDER / f"{name}.safetensors")


def hub_names(official):
    """Official LoRA tensors as the diffusers copies on the hub name them."""
    return {f"unet.{models.to_diffusers_key(key)}": tensor for key, tensor in official.items()}


def write_motion_adapter():
    models.load_motion_adapter("v3").half().save_pretrained(FOLDER / "motion_adapter")
    finish(FOLDER / "motion_adapter" / "diffusion_pytorch_model.safetensors")


def finish(path):
    """Bytes that do not depend on the run, for files that a library wrote."""
    path.chmod(0o644)
    sort_metadata(path)
    print(f"{path.name}: {len(load_file(path))} tensors, {path.stat().st_size / 1024:.0f} KiB")


# --- what diffusers makes of them ---------------------------------------------------------------------------------

def load_saved_adapter(own_tables=True):
    """The saved folder; its position tables have half precision too, which is visible."""
    from diffusers import MotionAdapter

    adapter = MotionAdapter.from_pretrained(FOLDER / "motion_adapter", torch_dtype=torch.float32)
    if not own_tables:
        exact = models.load_motion_adapter("v3").state_dict()
        adapter.load_state_dict({key: table for key, table in exact.items() if "pos_embed" in key}, strict=False)
    return adapter


def video(version):
    return video_pipeline(models.load_motion_adapter(version))


def merged_official(pipeline, file, selector, scale):
    models.merge_lora(pipeline.unet, load(file), selector, scale)
    return pipeline


def merged_half(pipeline, scale):
    state = {key: tensor.half().float() for key, tensor in load("motion_lora").items()}
    models.merge_lora(pipeline.unet, state, models.motion_attention, scale)
    return pipeline


def cases():
    """{name: (what diffusers loads, the same weights changed by the plain rules or None, scale)}."""
    lora_files = ["kohya", "diffusers_lora", "diffusers_lora_script", "old_diffusers_motion_lora"]
    file = {name: FOLDER / f"{name}.safetensors" for name in lora_files}
    adapter, motion = hub_names(load("adapter")), hub_names(load("motion_lora"))
    return {
        "ldm": (image_pipeline, None, None),
        "motion_v2": (lambda: video("v2"), None, None),
        "motion_v3": (lambda: video("v3"), None, None),
        "motion_adapter": (lambda: video_pipeline(load_saved_adapter()), None, None),
        "motion_adapter_exact_pe": (lambda: video_pipeline(load_saved_adapter(own_tables=False)), None, None),
        "motion_lora": (lambda: with_lora(video("v2"), motion, 0.8),
                        lambda: merged_official(video("v2"), "motion_lora", models.motion_attention, 0.8), 0.8),
        "old_diffusers_motion_lora": (lambda: with_lora(video("v2"), file["old_diffusers_motion_lora"], 0.8),
                                      lambda: merged_half(video("v2"), 0.8), 0.8),
        "adapter": (lambda: with_lora(video("v3"), adapter, 0.7),
                    lambda: merged_official(video("v3"), "adapter", models.image_attention, 0.7), 0.7),
        "kohya": (lambda: with_lora(image_pipeline(), file["kohya"], 0.6),
                  lambda: merge_kohya(image_pipeline(), read("kohya"), 0.6), 0.6),
        "kohya_motion": (lambda: with_lora(video("v3"), file["kohya"], 0.6),
                         lambda: merge_kohya(video("v3"), read("kohya"), 0.6), 0.6),
        "kohya_ldm": (lambda: with_lora(image_pipeline(), kohya_part(), 0.9),
                      lambda: merge_kohya(image_pipeline(), kohya_part(), 0.9), 0.9),
        "diffusers_lora": (lambda: with_lora(image_pipeline(), file["diffusers_lora"], 0.8),
                           lambda: merge_diffusers(image_pipeline(), file["diffusers_lora"], 0.8), 0.8),
        "diffusers_lora_script": (lambda: with_lora(image_pipeline(), file["diffusers_lora_script"], 0.8),
                                  lambda: merge_diffusers(image_pipeline(), file["diffusers_lora_script"], 0.8), 0.8),
        "diffusers_lora_motion": (lambda: with_lora(video("v3"), file["diffusers_lora"], 0.8),
                                  lambda: merge_diffusers(video("v3"), file["diffusers_lora"], 0.8), 0.8),
    }


def samplings():
    rng = generator("weights")
    clip, image = randn(rng, 1, 4, pipelines.FRAMES, 8, 8), randn(rng, 1, 4, 1, 8, 8)
    tensors, scales, plain = {"in.latents": clip, "in.image_latents": image}, {}, {}
    for name, (loaded, merged, scale) in cases().items():
        pipeline = loaded()
        start = clip if hasattr(pipeline, "motion_adapter") else image
        result = tensors[f"out.{name}"] = sample(pipeline, start)
        plain[start.shape[2]] = plain.get(start.shape[2], result)
        scales |= {name: scale} if scale else {}
        check(name, result, sample(merged(), start) if merged else None, plain[start.shape[2]])
    return tensors, {"scales": scales}


def check(name, result, merged, plain):
    """A loaded file must do what its plain merge does, and be visible."""
    difference = f", from its plain merge {error(result, merged):.1e}" if merged is not None else ""
    print(f"  {name}: std {result.std():.2f}, from the first of its kind {error(result, plain):.1e}{difference}")
    assert merged is None or error(result, merged) < 1e-4, name


def main():
    common.setup()
    FOLDER.mkdir(exist_ok=True)
    write_kohya()
    write_diffusers_lora()
    write("old_diffusers_motion_lora", {key: tensor.half() for key, tensor in hub_names(load("motion_lora")).items()})
    write_motion_adapter()
    write("lycoris", *lycoris_layers.files(models.load_unet()))
    write("lycoris_expected", lycoris_layers.expected(models.load_unet(), read("lycoris")))
    tensors, metadata = samplings()
    texts, prompts = write_embeddings(FOLDER)
    save("weights/expected", tensors | texts, pipelines.SETTINGS | metadata | prompts)


if __name__ == "__main__":
    main()
