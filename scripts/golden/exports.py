"""Loads what `animatediff convert` writes with diffusers and peft, and compares what they sample with what is expected.

    exports.py [--write] [PROGRAM]      PROGRAM: $ANIMATEDIFF, or target/release/animatediff

Two comparisons per export, both as the largest difference relative to the largest magnitude: diffusers with the export against
`expected.safetensors` (diffusers with the weights before their conversion), and against our own `sample` with those weights.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import common
import diffusers
import models
import peft
import pipelines
import safetensors
import torch
import transformers
from common import BASE, GOLDEN, REPO, load
from pipelines import error, image_pipeline, quiet, sample, video_pipeline, with_lora
from safetensors.torch import save_file

TOLERANCE = 1e-3
SCHEDULE = "{noise_scheduler_kwargs: {timestep_spacing: linspace, set_alpha_to_one: false}}\n"
REPORT = GOLDEN / "weights" / "exports.md"
V2, V3 = "$GOLD/motion_v2.safetensors", "v3.safetensors"
LORA, ADAPTER, KOHYA = "$GOLD/motion_lora.safetensors", "$GOLD/adapter.safetensors", "$GOLD/weights/kohya.safetensors"
ADAPTED = f"--motion {V3} --adapter {ADAPTER} --adapter-scale 0.7"


@dataclass
class Export:
    """One conversion, and how its result is used. `ours` are options of our own sampling with the weights before it."""

    convert: str
    loader: str
    load: Callable[[Path], diffusers.DiffusionPipeline]
    expected: str
    ours: str

    @property
    def output(self):
        return self.convert.split()[1]


# --- loaders ------------------------------------------------------------------------------------------------------

def video(version):
    return video_pipeline(models.load_motion_adapter(version))


def motion_unet(path):
    adapter = diffusers.MotionAdapter.from_pretrained(path)
    return video_pipeline(adapter, unet=diffusers.UNetMotionModel.from_unet2d(models.load_unet(), adapter))


def peft_adapter(path):
    """The adapter on the image UNet, scaled and merged by peft, below a v3 module."""
    unet = peft.PeftModel.from_pretrained(models.load_unet(), path)
    for layer in unet.modules():
        if isinstance(layer, peft.tuners.lora.LoraLayer):
            layer.set_scale("default", 0.7)
    return video_pipeline(models.load_motion_adapter("v3"), unet=unet.merge_and_unload())


def single_file(path):
    pipeline = diffusers.StableDiffusionPipeline.from_single_file(
        str(path), config=str(BASE), safety_checker=None, local_files_only=True)
    return with_our_schedule(pipeline)


def single_file_parts(path):
    """UNet and VAE by their own loaders; the text encoder of the golden base."""
    unet = diffusers.UNet2DConditionModel.from_single_file(str(path), config=str(BASE), subfolder="unet")
    vae = diffusers.AutoencoderKL.from_single_file(str(path), config=str(BASE), subfolder="vae")
    same_tensors(vae, models.load_vae())
    return image_pipeline(unet=unet.eval(), vae=vae.eval())


def folder(path):
    return with_our_schedule(diffusers.StableDiffusionPipeline.from_pretrained(path))


def base_folder(path):
    """A folder whose three models must be those of the golden base."""
    pipeline = folder(path)
    for found, expected in [(pipeline.unet, models.load_unet()), (pipeline.vae, models.load_vae()),
                            (pipeline.text_encoder, models.load_text_encoder())]:
        same_tensors(found, expected)
    return pipeline


def with_our_schedule(pipeline):
    pipeline.scheduler = pipelines.scheduler()
    return quiet(pipeline)


def same_tensors(found, expected):
    found, expected = found.state_dict(), expected.state_dict()
    assert found.keys() == expected.keys(), sorted(found.keys() ^ expected.keys())[:5]
    wrong = [key for key, tensor in expected.items() if not torch.equal(found[key], tensor)]
    assert not wrong, f"{len(wrong)} tensors differ, first {wrong[0]}"


EXPORTS = [
    Export(f"{V2} motion --to diffusers", "`MotionAdapter.from_pretrained`",
           lambda path: video_pipeline(diffusers.MotionAdapter.from_pretrained(path)), "motion_v2", f"--motion {V2}"),
    Export(f"{V2} motion --to diffusers", "`UNetMotionModel.from_unet2d`", motion_unet, "motion_v2", f"--motion {V2}"),
    Export(f"{V3} motion_v3 --to diffusers", "`MotionAdapter.from_pretrained`",
           lambda path: video_pipeline(diffusers.MotionAdapter.from_pretrained(path)), "motion_v3", f"--motion {V3}"),
    Export(f"{LORA} motion_lora.safetensors --to diffusers", "`load_lora_weights`, 0.8",
           lambda path: with_lora(video("v2"), path, 0.8), "motion_lora", f"--motion {V2} --motion-lora {LORA}:0.8"),
    Export(f"{ADAPTER} adapter.safetensors --to diffusers", "`load_lora_weights`, 0.7",
           lambda path: with_lora(video("v3"), path, 0.7), "adapter", ADAPTED),
    Export(f"{ADAPTER} adapter_kohya.safetensors --to kohya", "`load_lora_weights`, 0.7",
           lambda path: with_lora(video("v3"), path, 0.7), "adapter", ADAPTED),
    Export(f"{ADAPTER} adapter_peft --to peft", "`peft.PeftModel.from_pretrained`, 0.7", peft_adapter, "adapter", ADAPTED),
    Export(f"{KOHYA} kohya.safetensors --to diffusers", "`load_lora_weights`, 0.6",
           lambda path: with_lora(image_pipeline(), path, 0.6), "kohya", f"--lora {KOHYA}:0.6"),
    Export("$GOLD/base base.safetensors --to ldm", "`StableDiffusionPipeline.from_single_file`", single_file, "ldm", ""),
    Export("$GOLD/base base.safetensors --to ldm", "`UNet2DConditionModel.from_single_file`, `AutoencoderKL.from_single_file`",
           single_file_parts, "ldm", ""),
    Export("base.safetensors again --to diffusers --base $GOLD/base", "`StableDiffusionPipeline.from_pretrained`", base_folder, "ldm", ""),
    Export(f"$GOLD/base merged --to diffusers --merge {KOHYA}:0.6", "`StableDiffusionPipeline.from_pretrained`", folder, "kohya",
           f"--lora {KOHYA}:0.6"),
]


# --- the program --------------------------------------------------------------------------------------------------

class Desk:
    """A temporary folder in which the program runs; `$GOLD` in its arguments is tests/golden."""

    def __init__(self, program, path, golden):
        self.program, self.path, self.golden = program, path, golden
        self.converted, self.sampled = set(), {}
        (path / "inference.yaml").write_text(SCHEDULE)
        save_file({"latents": golden["in.latents"]}, path / "clip")
        save_file({"latents": golden["in.image_latents"]}, path / "image")
        save_file(models.without_mid(load("motion_v2")), path / V3)

    def run(self, *arguments):
        arguments = [argument.replace("$GOLD", str(GOLDEN)) for argument in arguments]
        done = subprocess.run([self.program, *arguments], cwd=self.path, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"`animatediff {' '.join(arguments)}` ended with {done.returncode}: {done.stderr.strip()}")

    def convert(self, line):
        if line not in self.converted:
            self.run("convert", *line.split())
            self.converted.add(line)

    def sample(self, options, frames):
        """Final latents of our own sampling, [1,4,F,8,8]."""
        if options not in self.sampled:
            start = ["--latents", "clip", "--motion-norm", "clip"] if frames > 1 else ["--latents", "image"]
            side = str(pipelines.SIDE)
            self.run("sample", "--base", "$GOLD/base", *options.split(), *start, "-L", str(frames), "-W", side, "-H", side,
                     "--steps", str(pipelines.STEPS), "--guidance-scale", str(pipelines.GUIDANCE), "--prompt", pipelines.PROMPT,
                     "--negative-prompt", pipelines.NEGATIVE, "--inference-config", "inference.yaml", "--dtype", "fp32",
                     "--save-latents", "out", "-o", "clip.gif", "--overwrite")
            self.sampled[options] = safetensors.torch.load_file(self.path / "out")["latents"]
        return self.sampled[options]


def compare(desk, export):
    """(error against what is expected, error against our own sampling)."""
    desk.convert(export.convert)
    expected = desk.golden[f"out.{export.expected}"]
    frames = expected.shape[2]
    start = desk.golden["in.latents" if frames > 1 else "in.image_latents"]
    result = sample(export.load(desk.path / export.output), start)
    return error(result, expected), error(result, desk.sample(export.ours, frames))


# --- the table ----------------------------------------------------------------------------------------------------

HEADER = ["| `animatediff convert` | Loaded by | Expected | Against expected | Against our sampling | |", "|---|---|---|---|---|---|"]


def row(export, errors, reason=""):
    shown = " | ".join(f"{value:.1e}" for value in errors) if errors else "– | –"
    verdict = "ok" if passed(errors) else f"failed {reason}".strip()
    return f"| `{export.convert}` | {export.loader} | `{export.expected}` | {shown} | {verdict} |"


def passed(errors):
    return errors is not None and max(errors) <= TOLERANCE


def check(desk, export):
    """(row of the table, whether it passed)."""
    try:
        errors, reason = compare(desk, export), ""
    except Exception as problem:  # whatever a loader raises is a result
        errors, reason = None, f"({type(problem).__name__})"
        traceback.print_exc(limit=-3)
    line = row(export, errors, reason)
    print(line, flush=True)
    return line, passed(errors)


def report(program, lines):
    version = subprocess.run([program, "--version"], capture_output=True, text=True).stdout.strip()
    libraries = ", ".join(
        f"{library.__name__} {library.__version__}" for library in [torch, diffusers, transformers, peft, safetensors])
    config = pipelines.SETTINGS["config"]
    text = f"""# Exports in the hands of other programs

Written by `scripts/golden/exports.py --write` with {version} and {libraries}.

Every export of the golden models (`$GOLD` is tests/golden) is loaded by the loader named and sampled with {config["steps"]} steps,
guidance {config["guidance"]}, {config["frames"]} frames (base and kohya's LoRA: one) of {config["side"]}x{config["side"]} pixels.
The errors are the largest difference of the final latents relative to their largest magnitude; at most {TOLERANCE:.0e} passes.
Expected: `out.<name>` of `expected.safetensors`, diffusers with the weights before their conversion.

"""
    REPORT.write_text(text + "\n".join([*HEADER, *lines]) + "\n")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    program = os.environ.get("ANIMATEDIFF", REPO / "target" / "release" / "animatediff")
    parser.add_argument("program", nargs="?", default=program)
    parser.add_argument("--write", action="store_true", help=f"write the table to {REPORT.relative_to(REPO)}")
    return parser.parse_args()


def main():
    given = arguments()
    program = Path(given.program).resolve()
    common.setup()
    print(*HEADER, sep="\n")
    with tempfile.TemporaryDirectory() as path:
        desk = Desk(program, Path(path), load("weights/expected"))
        results = [check(desk, export) for export in EXPORTS]
    if given.write:
        report(program, [line for line, _ in results])
    failed = sum(not good for _, good in results)
    print(f"{len(results) - failed} of {len(results)} exports work")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
