"""Textual-inversion files in three formats, and the text encoder's states with each as diffusers loads it."""

import torch
from common import generator, randn, sort_metadata
from models import TEXT_WIDTH
from pipelines import image_pipeline
from safetensors.torch import save_file

PROMPTS = {"embedding_a1111.pt": "a photo in embedding_a1111 style, a red circle",
           "embedding_a1111.safetensors": "embedding_a1111, a red circle moving to the left",
           "embedding_diffusers.safetensors": "a photo of <cat-toy> on a white background"}
TOKENS = {"embedding_a1111.pt": "embedding_a1111", "embedding_a1111.safetensors": "embedding_a1111",
          "embedding_diffusers.safetensors": "<cat-toy>"}


def vectors(name, count):
    return randn(generator(name), count, TEXT_WIDTH)


def write_files(folder):
    torch.save({
        "string_to_token": {"*": 265}, "string_to_param": {"*": torch.nn.Parameter(vectors("a1111 pt", 2))},
        "name": "name-in-training", "step": 1000, "sd_checkpoint": "81761151", "sd_checkpoint_name": "v1-5-pruned-emaonly",
    }, folder / "embedding_a1111.pt")
    save_file({"emb_params": vectors("a1111 safetensors", 2)}, folder / "embedding_a1111.safetensors")
    cat = {"<cat-toy>": vectors("diffusers embedding", 1)}
    save_file(cat, folder / "embedding_diffusers.safetensors", metadata={"format": "pt"})
    for name in PROMPTS:
        (folder / name).chmod(0o644)
    sort_metadata(folder / "embedding_diffusers.safetensors")


@torch.no_grad()
def states(path, token, prompt):
    """Token ids and the text encoder's last states for `prompt`, with the file at `path` loaded."""
    pipeline = image_pipeline()
    pipeline.load_textual_inversion(str(path.parent), weight_name=path.name, token=token)
    hidden, _ = pipeline.encode_prompt(prompt, "cpu", 1, do_classifier_free_guidance=False)
    text = pipeline.maybe_convert_prompt(prompt, pipeline.tokenizer)
    ids = pipeline.tokenizer(text, padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids
    print(f"  {path.name}: `{text}`, first ids {ids[0, :14].tolist()}")
    return {"ids": ids, "hidden": hidden}


def write_embeddings(folder):
    """Writes the files; returns `embedding.<file>.{ids,hidden}` and the metadata `embedding_prompts`."""
    write_files(folder)
    found = {f"embedding.{name}.{key}": tensor for name, prompt in PROMPTS.items()
             for key, tensor in states(folder / name, TOKENS[name], prompt).items()}
    return found, {"embedding_prompts": PROMPTS}
