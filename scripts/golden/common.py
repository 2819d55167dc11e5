"""Paths, seeds and small helpers shared by all golden-value scripts."""

import json
import math
import os
import zlib
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from safetensors.torch import load_file, save_file

REPO = Path(__file__).resolve().parents[2]
GOLDEN = REPO / "tests" / "golden"
BASE = GOLDEN / "base"
TOKENIZER_DATA = REPO / "data" / "tokenizer"


def setup():
    """Make everything that follows deterministic float32 CPU arithmetic."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.set_default_dtype(torch.float32)
    GOLDEN.mkdir(parents=True, exist_ok=True)


def generator(name):
    """A random generator whose stream depends only on `name`."""
    return torch.Generator().manual_seed(zlib.crc32(name.encode()))


def randn(rng, *shape, scale=1.0):
    return torch.randn(*shape, generator=rng) * scale


def randint(rng, high, *shape):
    return torch.randint(0, high, shape, generator=rng)


def save(name, tensors, metadata=None):
    """Write `tensors` to tests/golden/<name>.safetensors; values of `metadata` become JSON strings."""
    path = GOLDEN / f"{name}.safetensors"
    plain = {key: value.detach().clone().contiguous() for key, value in tensors.items()}
    text = {key: json.dumps(value) for key, value in (metadata or {}).items()}
    save_file(plain, path, metadata=text or None)
    path.chmod(0o644)
    sort_metadata(path)
    for key, value in plain.items():
        if value.is_floating_point() and not torch.isfinite(value.double()).all():
            raise ValueError(f"{name}: {key} is not finite")
    print(f"{path.name}: {len(plain)} tensors, {path.stat().st_size / 1024:.0f} KiB")


def sort_metadata(path):
    """safetensors writes metadata in random order; sorting it makes the file reproducible."""
    content = path.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    if "__metadata__" in header:
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[end:])


def load(name):
    return load_file(GOLDEN / f"{name}.safetensors")


def describe(name, tensor):
    """Print spread of an output, to see that it is neither constant nor exploding."""
    print(f"  {name}: {tuple(tensor.shape)} mean {tensor.mean():.3f} std {tensor.std():.3f} max {tensor.abs().max():.3f}")


NORMS = (torch.nn.GroupNorm, torch.nn.LayerNorm)
LINEARS = (torch.nn.Linear, torch.nn.Conv2d)


def randomise(module, rng, gain=1.0):
    """Fill every parameter with visible, asymmetric random values (norms near 1, biases non-zero)."""
    for name, layer in module.named_modules():
        if isinstance(layer, NORMS):
            fill_norm(layer, rng)
        elif isinstance(layer, LINEARS):
            # Sharper queries and keys make attention depend visibly on its input.
            sharp = 1.6 if name.endswith(("to_q", "to_k", "q_proj", "k_proj")) else 1.0
            fill_linear(layer, rng, gain * sharp)
        elif isinstance(layer, torch.nn.Embedding):
            layer.weight.data.copy_(randn(rng, *layer.weight.shape))
    return module.eval()


def fill_norm(layer, rng):
    layer.weight.data.copy_(1 + randn(rng, *layer.weight.shape, scale=0.2))
    layer.bias.data.copy_(randn(rng, *layer.bias.shape, scale=0.2))


def fill_linear(layer, rng, gain):
    fan_in = layer.weight[0].numel()
    layer.weight.data.copy_(randn(rng, *layer.weight.shape, scale=gain / math.sqrt(fan_in)))
    if layer.bias is not None:
        layer.bias.data.copy_(randn(rng, *layer.bias.shape, scale=0.1))
