"""Random layers of LyCORIS' kinds for the golden UNet, made and evaluated by the lycoris library's own modules."""

import names
import torch
from common import generator, randn
from lycoris.modules.locon import LoConModule
from lycoris.modules.loha import LohaModule
from lycoris.modules.lokr import LokrModule

BLOCK = "down_blocks.1.attentions.0.transformer_blocks.0"
# Path of the layer: class of the module and its settings. Widths of the golden base allow these ranks for every half of LoKr.
LAYERS = {
    f"{BLOCK}.attn1.to_q": (LohaModule, dict(lora_dim=3, alpha=1.5)),
    f"{BLOCK}.attn1.to_v": (LokrModule, dict(lora_dim=2, alpha=1.0, factor=4)),
    f"{BLOCK}.attn2.to_k": (LokrModule, dict(lora_dim=2, alpha=1.0, full_matrix=True)),
    f"{BLOCK}.ff.net.0.proj": (LokrModule, dict(lora_dim=3, alpha=1.5, decompose_both=True)),
    f"{BLOCK}.ff.net.2": (LoConModule, dict(lora_dim=4, alpha=1.0)),
    "down_blocks.1.resnets.0.conv1": (LoConModule, dict(lora_dim=3, alpha=1.5, use_tucker=True)),
    "down_blocks.1.resnets.1.conv1": (LohaModule, dict(lora_dim=3, alpha=1.5, use_tucker=True)),
    "mid_block.resnets.0.conv1": (LokrModule, dict(lora_dim=2, alpha=1.0, factor=4, use_tucker=True)),
    "mid_block.resnets.1.conv1": (LokrModule, dict(lora_dim=2, alpha=1.0, factor=4)),
    "mid_block.resnets.1.conv2": (LohaModule, dict(lora_dim=3, alpha=1.5)),
}


def kohya_name(path):
    return "lora_unet_" + path.replace(".", "_")


def build(unet, path):
    kind, settings = LAYERS[path]
    return kind(kohya_name(path), unet.get_submodule(path), **settings)


@torch.no_grad()
def files(unet):
    """Tensors of the LoRA file (half precision) and its metadata."""
    state = {}
    for path in LAYERS:
        rng, module = generator(f"lycoris {path}"), build(unet, path)
        for parameter in module.parameters():
            parameter.copy_(randn(rng, *parameter.shape, scale=0.6))
        state |= {f"{kohya_name(path)}.{key}": tensor.half() for key, tensor in module.custom_state_dict().items()}
    return state, {"ss_network_module": "lycoris.kohya"}


@torch.no_grad()
def expected(unet, state):
    """{expected.<path>: difference of the weight} from what the modules do to their input."""
    found = {}
    for path in LAYERS:
        module, layer, prefix = build(unet, path), unet.get_submodule(path), kohya_name(path) + "."
        own = {key.removeprefix(prefix): tensor.float() for key, tensor in state.items() if key.startswith(prefix)}
        module.load_state_dict(own)
        found[f"expected.{path}"] = difference(module, layer)
        check(path, module, layer, found[f"expected.{path}"])
    return found


def difference(module, layer):
    """The change of the weight with its scale applied once, as in the module's forward pass."""
    if isinstance(module, LoConModule):
        return module.get_diff_weight(shape=layer.weight.shape)[0]
    return module.get_weight(layer.weight.shape)


def check(path, module, layer, change):
    """Forward with the change must be the module's own forward."""
    side = [3, 3] if names.is_wide(layer) else []
    x = randn(generator(path), 2, layer.weight.shape[1], *side)
    before, weight = layer(x), layer.weight.data
    module.apply_to()
    ours = layer.forward(x)
    module.restore()
    layer.weight.data = weight + change
    error = (layer(x) - ours).abs().max().item()
    layer.weight.data = weight
    twice = module.get_diff_weight(shape=layer.weight.shape)[0]
    print(f"  {path}: {type(module).__name__} {tuple(change.shape)} changes the output by {(ours - before).abs().max():.2f}, "
          f"forward differs by {error:.1e}, get_diff_weight by {(twice - change).abs().max():.1e}")
    assert error < 1e-5, path
