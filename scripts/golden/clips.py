"""Small H.264 clips whose frames lean on one another in different ways: for `tests/it/video.rs`, which reads parts of them and compares
with the whole. Needs PyAV (`pip install av`). Run from anywhere: `scripts/golden/clips.py`."""

import pathlib

import av
import numpy

OUT = pathlib.Path(__file__).parents[2] / "tests/clips"
CLIPS = {
    "pyramid": {"bf": "4", "x264-params": "b-pyramid=normal:b-adapt=0:ref=4"},
    "strict_pyramid": {"bf": "5", "x264-params": "b-pyramid=strict:b-adapt=0:weightp=2"},
    "flat": {"bf": "3", "x264-params": "b-pyramid=none:b-adapt=0:direct=temporal"},
    "open_groups": {"bf": "3", "x264-params": "open-gop=1:b-pyramid=normal:b-adapt=0"},
    "interlaced": {"bf": "3", "x264-params": "tff=1:b-pyramid=normal:b-adapt=0"},
    "slices": {"bf": "2", "x264-params": "slices=4:b-adapt=0:intra-refresh=1"},
}


def picture(number, width=128, height=96):
    """A textured ground that moves, with a square that moves otherwise."""
    y, x = numpy.mgrid[0:height, 0:width]
    wave = 60 * numpy.sin((x + 2 * number) / 7) + 60 * numpy.cos((y - number) / 5 + x / 31)
    frame = numpy.stack([128 + wave, 128 - wave, 128 + 0 * wave + 3 * (number % 40)], -1)
    left, top = (5 * number) % (width - 24), (3 * number) % (height - 24)
    frame[top : top + 24, left : left + 24] = (250, 30 + 4 * number, 20)
    return numpy.clip(frame, 0, 255).astype(numpy.uint8)


for name, options in CLIPS.items():
    with av.open(OUT / f"{name}.mp4", "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        stream.options = {"g": "24", "crf": "30", "preset": "medium", "threads": "1", **options}
        for number in range(56):
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture(number), "rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
