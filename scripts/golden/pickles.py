"""Files as `torch.save` writes them, and the tensors that must be found in each; files that must be refused.

Not called `pickle.py`: Python would import it in place of its own module of that name.
"""

import collections
import io
import os
import sys
import types
import zipfile

import common
import numpy as np
import torch
from common import GOLDEN, save

PICKLES = GOLDEN / "pickle"
DTYPES = "float32 float16 bfloat16 float64 int64 int32 int16 int8 uint8 bool float8_e4m3fn float8_e5m2 uint16".split()


def write(name, value, expected, **options):
    """Save `value` as <name>.pt, and what a reader must find in it as <name>.safetensors."""
    torch.save(value, PICKLES / f"{name}.pt", **options)
    save(f"pickle/{name}", expected)


def dtypes():
    values = torch.tensor([0.0, 1.0, 2.5, 100.0])
    tensors = {name: values.to(getattr(torch, name)).reshape(2, 2) for name in DTYPES}
    tensors["scalar"] = torch.tensor(7.0)
    tensors["empty"] = torch.zeros(0, 3)
    write("dtypes", tensors, tensors)


def views():
    """Tensors that share the storage of `base`; some of them are not contiguous."""
    base = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    tensors = {
        "base": base,
        "transposed": base.T,
        "narrow": base.narrow(1, 2, 3),
        "stepped": base[1::2, ::3],
        "expanded": base[2, 1:3].unsqueeze(0).expand(5, 2),
        "scalar": base[3, 5],
        "empty": base[4:],
        "permuted": base.view(2, 2, 6).permute(2, 0, 1),
    }
    write("views", tensors, tensors)


def parameters():
    tied = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    with_state = torch.nn.Parameter(torch.tensor([3.0]))
    with_state.note = "kept"
    frozen = torch.nn.Parameter(torch.ones(2).half(), requires_grad=False)
    tensors = {"frozen": frozen, "tied": tied, "same": tied, "with_state": with_state}
    write("parameters", tensors, tensors)


def protocols():
    """The state of a module, an ordered dictionary with an attribute, under every protocol."""
    state = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2)).state_dict()
    for index, value in enumerate(state.values()):
        value.copy_(index + torch.arange(value.numel()).reshape(value.shape) / 8)
    for protocol in (2, 3, 4, 5):
        write(f"module{protocol}", state, state, pickle_protocol=protocol)


def lightning():
    """A checkpoint of a trainer that this Python does not have: its classes are made up for the moment of saving."""
    modules = ["pytorch_lightning", "pytorch_lightning.callbacks", "pytorch_lightning.callbacks.model_checkpoint"]
    sys.modules.update({name: types.ModuleType(name) for name in modules})
    callback = type("ModelCheckpoint", (), {"__module__": modules[-1]})
    sys.modules[modules[-1]].ModelCheckpoint = callback
    weight, moment, inner = torch.arange(6.0).reshape(2, 3), torch.ones(2, 3), torch.tensor([9])
    optimizer = {"state": {0: {"step": 10, "exp_avg": moment}}, "param_groups": [{"lr": 1e-4, "params": [0]}]}
    value = {
        "epoch": 3,
        "global_step": 10,
        "pytorch-lightning_version": "1.4.2",
        "state_dict": collections.OrderedDict(weight=weight),
        "callbacks": {callback: {"monitor": "loss", "best": torch.tensor(0.5), "wait": np.float64(2.0)}},
        "optimizer_states": [optimizer],
        "lr_schedulers": [],
        "hyper_parameters": {"lr": 1e-4, "name": "tiny", "deep": {"too": 1}, "flag": True, "no": None, "big": 1 << 80},
        "numpy": np.arange(3),
        "set": {1, 2},
        "size": torch.Size([2, 3]),
        "dtype": torch.float16,
        "device": torch.device("cpu"),
        "default": collections.defaultdict(dict, {"inner": inner}),
        "instance": callback(),
        "negative": -5,
    }
    found = {"state_dict.weight": weight, "optimizer_states.0.state.0.exp_avg": moment, "default.inner": inner}
    write("lightning", value, found)


def inversion():
    """A textual inversion as the first trainer of them wrote it, and a file that is one tensor."""
    token, vector = torch.tensor(265), torch.nn.Parameter(torch.arange(8.0).reshape(1, 8))
    about = {"name": "x", "step": 5, "sd_checkpoint": None, "sd_checkpoint_name": None}
    value = {"string_to_token": {"*": token}, "string_to_param": {"*": vector}, **about}
    write("inversion", value, {"string_to_token.*": token, "string_to_param.*": vector})
    write("tensor", torch.arange(3), {"tensor": torch.arange(3)})


def numpy_scalars():
    value = {"loss": np.float32(0.5), "steps": np.int64(7), "w": torch.ones(1)}
    write("numpy", value, {"w": torch.ones(1)})
    write("numpy3", value, {"w": torch.ones(1)}, pickle_protocol=3)


class Evil:
    """Runs a program when Python unpickles it."""

    def __reduce__(self):
        return os.system, ("echo this must not run",)


def layer():
    made = torch.nn.Linear(1, 1)
    torch.nn.init.ones_(made.weight)
    torch.nn.init.zeros_(made.bias)
    return made


def refused():
    torch.save({"w": torch.ones(1), "x": Evil()}, PICKLES / "evil.pt")
    torch.save({"w": torch.ones(1), "x": Evil()}, PICKLES / "evil4.pt", pickle_protocol=4)
    torch.save({"x": getattr}, PICKLES / "getattr.pt")
    torch.save({"layer": layer()}, PICKLES / "whole_module.pt")
    # Without tensors: the older form names their storages by their addresses in memory.
    torch.save({"step": 5}, PICKLES / "legacy.pt", _use_new_zipfile_serialization=False)


def repacked():
    """A program for TorchScript, and archives that PyTorch does not write."""
    program = entries(lambda file: torch.jit.save(torch.jit.script(layer()), file))
    # The debug information says where this Python's packages lie.
    pack("script", {name: data for name, data in program.items() if not name.endswith(".debug_pkl")})
    plain = entries(lambda file: torch.save({"w": torch.ones(4)}, file))
    pack("deflated", plain, zipfile.ZIP_DEFLATED)
    pack("big_endian", {name: b"big" if name.endswith("byteorder") else data for name, data in plain.items()})
    pack("missing", {name: data for name, data in plain.items() if not name.endswith("data/0")})


def entries(write_to):
    file = io.BytesIO()
    write_to(file)
    with zipfile.ZipFile(file) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def pack(name, contents, method=zipfile.ZIP_STORED):
    with zipfile.ZipFile(PICKLES / f"{name}.pt", "w", method) as archive:
        for entry, data in contents.items():
            # Its time is that of the format's beginning and not of now.
            archive.writestr(zipfile.ZipInfo(entry), data, method)


def main():
    common.setup()
    PICKLES.mkdir(exist_ok=True)
    for make in (dtypes, views, parameters, protocols, lightning, inversion, numpy_scalars, refused, repacked):
        make()
    for path in PICKLES.glob("*.pt"):
        path.chmod(0o644)


if __name__ == "__main__":
    main()
