"""Official frame preprocessing: resize so that the target is covered, centre crop, normalise to [-1,1]."""

import common
import torch
from common import generator, save
from torchvision.transforms import functional as vision

INPUTS = [(37, 53), (53, 37), (64, 64), (20, 30)]
TARGETS = [(32, 32), (24, 40)]


def covering_size(height, width, target):
    """Smallest size of the same ratio that covers the target; the free side is rounded down."""
    if height * target[1] <= width * target[0]:
        return target[0], width * target[0] // height
    return height * target[1] // width, target[1]


def preprocess(image, target):
    size = list(covering_size(*image.shape[1:], target))
    resized = vision.resize(image / 255.0, size, interpolation=vision.InterpolationMode.BILINEAR, antialias=True)
    return vision.normalize(vision.center_crop(resized, list(target)), [0.5] * 3, [0.5] * 3)


def check_square(image, expected):
    """For square targets the rule is torchvision's Resize(shorter side)."""
    official = vision.center_crop(vision.resize(image / 255.0, 32, antialias=True), 32)
    assert torch.equal(vision.normalize(official, [0.5] * 3, [0.5] * 3), expected)


def main():
    common.setup()
    rng, tensors = generator("resize"), {}
    for index, (height, width) in enumerate(INPUTS):
        image = torch.randint(0, 256, (3, height, width), generator=rng, dtype=torch.uint8)
        tensors[f"case{index}.in"] = image
        for target in TARGETS:
            tensors[f"case{index}.{target[0]}x{target[1]}"] = preprocess(image, target)
        check_square(image, tensors[f"case{index}.32x32"])
    save("resize", tensors)


if __name__ == "__main__":
    main()
