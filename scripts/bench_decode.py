#!/usr/bin/env python3
"""Reading training clips with decord and PyAV, beside `animatediff bench data` on the same files, frames and sizes.

Each video is read at evenly spread starts; 16 frames, 4 apart, become a float tensor `[F, 3, 256, 256]` in -1..1: shorter side
resized (bilinear, antialiased), middle cropped. All run in turn, several rounds, one core each, after one round each to warm up.
Files whose header does not tell the number of frames, or that are too short for the frames and the stride, are refused. The folder
has to hold .mp4, .mkv, .webm and .mov and no other videos, which `bench data` would read as well.

  pip install torch numpy decord av
  scripts/bench_decode.py --videos clips/ --program target/release/animatediff

Two ways of resizing are timed for each library: `torch` (of the float frames, as the official dataset does) and `swscale` (in the
decoder's own conversion, in bytes: faster and not the same pixels). Prints one JSON line per reader and the ratios of medians.
"""

import argparse, json, os, pathlib, statistics, subprocess, sys, time

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--videos", type=pathlib.Path, required=True)
parser.add_argument("--program", help="the animatediff to compare with")
parser.add_argument("--frames", type=int, default=16)
parser.add_argument("--stride", type=int, default=4)
parser.add_argument("--size", type=int, default=256)
parser.add_argument("--starts", type=int, default=3)
parser.add_argument("--repeat", type=int, default=5)
parser.add_argument("--readers", default="decord-torch,decord-swscale,pyav-torch,pyav-swscale")
args = parser.parse_args()
if min(args.frames, args.stride, args.size, args.starts, args.repeat) < 1:
    parser.error("--frames, --stride, --size, --starts and --repeat: at least 1 is expected")
if not args.videos.is_dir():
    parser.error(f"--videos {args.videos}: no such folder")

os.environ["OMP_NUM_THREADS"] = "1"
import av, decord, numpy, torch
import torch.nn.functional as functional

torch.set_num_threads(1)
av.logging.set_level(av.logging.PANIC)
FILES = sorted(str(path) for path in args.videos.iterdir() if path.suffix in (".mp4", ".mkv", ".webm", ".mov"))
if not FILES:
    parser.error(f"--videos {args.videos}: no .mp4, .mkv, .webm or .mov in it")


def measures(path):
    """Width and height, which swscale has to be told beforehand; `bench data` finds them in the file that it opens anyway."""
    with av.open(path) as container:
        stream = container.streams.video[0]
        needed = (args.frames - 1) * args.stride + 1
        if stream.frames < needed:
            parser.error(f"{path}: {stream.frames} frames by its header, and {needed} are needed; take it out")
        return stream.width, stream.height


SIZES = {path: measures(path) for path in FILES}


def chosen(available, k):
    """Frame numbers of clip `k`: what `animatediff bench data` takes."""
    length = min(available, (args.frames - 1) * args.stride + 1)
    start = (2 * k + 1) * (available - length + 1) // (2 * args.starts)
    return numpy.linspace(start, start + length - 1, args.frames, dtype=int).tolist()


def covering(width, height):
    """The size whose shorter side is `args.size`."""
    if width <= height:
        return args.size, int(args.size * height / width)
    return int(args.size * width / height), args.size


def crop(frames):
    top, left = round((frames.shape[-2] - args.size) / 2), round((frames.shape[-1] - args.size) / 2)
    return (frames[..., top : top + args.size, left : left + args.size] - 0.5) / 0.5


def with_torch(frames):
    """`[F, H, W, 3]` bytes of full size to the model's floats."""
    frames = frames.permute(0, 3, 1, 2).contiguous().float() / 255.0
    width, height = covering(frames.shape[-1], frames.shape[-2])
    return crop(functional.interpolate(frames, (height, width), mode="bilinear", antialias=True))


def cropped(frames):
    """`[F, H, W, 3]` bytes of the size that covers the crop, to the model's floats."""
    top, left = round((frames.shape[1] - args.size) / 2), round((frames.shape[2] - args.size) / 2)
    frames = frames[:, top : top + args.size, left : left + args.size].permute(0, 3, 1, 2)
    return (frames.float() / 255.0 - 0.5) / 0.5


def decord_torch(path, k):
    reader = decord.VideoReader(path, ctx=decord.cpu(0), num_threads=1)
    return with_torch(torch.from_numpy(reader.get_batch(chosen(len(reader), k)).asnumpy()))


def decord_swscale(path, k):
    width, height = covering(*SIZES[path])
    reader = decord.VideoReader(path, ctx=decord.cpu(0), num_threads=1, width=width, height=height)
    return cropped(torch.from_numpy(reader.get_batch(chosen(len(reader), k)).asnumpy()))


def pyav_frames(path, k, convert):
    """Seeks to the key frame before the first frame and decodes to the last. The files' rate has to be constant."""
    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        rate, base = stream.average_rate, stream.time_base
        wanted = chosen(stream.frames, k)
        stamp = lambda index: (stream.start_time or 0) + round(index / rate / base)
        container.seek(stamp(wanted[0]), stream=stream)
        stamps, frames = {stamp(index) for index in wanted}, []
        for frame in container.decode(stream):
            if frame.pts in stamps:
                frames.append(convert(frame))
                if len(frames) == len(stamps):
                    break
    assert len(frames) == args.frames, f"{path}: {len(frames)} frames found"
    return torch.from_numpy(numpy.stack(frames))


def pyav_torch(path, k):
    return with_torch(pyav_frames(path, k, lambda frame: frame.to_ndarray(format="rgb24")))


def pyav_swscale(path, k):
    size = lambda frame: dict(zip(("width", "height"), covering(frame.width, frame.height)))
    return cropped(pyav_frames(path, k, lambda frame: frame.reformat(format="rgb24", **size(frame)).to_ndarray()))


def one_round(reader):
    start = time.perf_counter()
    for path in FILES:
        for k in range(args.starts):
            pixels = reader(path, k)
            assert pixels.shape == (args.frames, 3, args.size, args.size) and pixels.dtype == torch.float32
    return len(FILES) * args.starts / (time.perf_counter() - start)


def ours():
    command = [args.program, "bench", "data", "--videos", args.videos, "--frames", args.frames, "--stride", args.stride]
    command += ["--size", args.size, "--starts", args.starts, "--threads", 1, "--warmup", 0, "--repeat", 1, "--json"]
    output = subprocess.run([str(word) for word in command], check=True, stdout=subprocess.PIPE).stdout
    return json.loads(output)["clips_per_s_per_core"]


known = {"decord-torch": decord_torch, "decord-swscale": decord_swscale, "pyav-torch": pyav_torch, "pyav-swscale": pyav_swscale}
unknown = [name for name in args.readers.split(",") if name and name not in known]
if unknown:
    parser.error(f"--readers {unknown[0]}: one of {', '.join(known)} is expected")
readers = {name: known[name] for name in args.readers.split(",") if name}
turns = {name: (lambda reader=reader: one_round(reader)) for name, reader in readers.items()}
if args.program:
    turns["animatediff"] = ours
for turn in turns.values():
    turn()
rates = {name: [] for name in turns}
for number in range(args.repeat):
    for name, turn in turns.items():
        rates[name].append(turn())
    print(f"round {number + 1} of {args.repeat}", file=sys.stderr)
medians = {name: statistics.median(all) for name, all in rates.items()}
for name, all in rates.items():
    print(json.dumps({"reader": name, "clips_per_s_per_core": round(medians[name], 3), "min": round(min(all), 3), "max": round(max(all), 3)}))
if args.program:
    mine = medians.pop("animatediff")
    print(json.dumps({"animatediff_against": {name: round(mine / value, 3) for name, value in medians.items()}}))
