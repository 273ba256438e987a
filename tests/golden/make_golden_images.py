"""Writes golden_images.safetensors: what Pillow and torchvision make of small images.

Needs Python with pillow, torchvision, timm and safetensors:  python make_golden_images.py

  file.NAME, pixels.NAME   a PNG or JPEG file, and Pillow's pixels of it, grey [h, w, 1] or RGB [h, w, 3]
  image                    the image that is transformed, uint8 [h, w, 3]
  transform.TEXT           torchvision's resize and crop of it, uint8
  grey                     Pillow's convert("L") of it
The metadata hold the transforms of published weights, "preset.NAME": text, as torchvision and timm state them.
"""
import io
import math
import re
from pathlib import Path

import numpy as np
import timm
import torch
import torchvision.models as models
import torchvision.transforms.functional as F
from PIL import Image
from safetensors.torch import save_file
from torchvision.transforms import InterpolationMode

tensors, metadata = {}, {}


def picture(height, width, channels, seed):
    """Smooth waves with some noise, so that JPEG has something to do and something to lose."""
    rng = np.random.default_rng(seed)
    y, x, c = np.meshgrid(np.arange(height), np.arange(width), np.arange(channels), indexing="ij")
    wave = 128 + 90 * np.sin(0.21 * x + 0.9 * c) * np.cos(0.17 * y - 0.5 * c) + rng.normal(0, 12, x.shape)
    return np.clip(wave, 0, 255).round().astype(np.uint8)


def put(name, array):
    tensors[name] = torch.from_numpy(np.array(array))


def put_file(name, image, **options):
    buffer = io.BytesIO()
    image.save(buffer, **options)
    put("file." + name, np.frombuffer(buffer.getvalue(), np.uint8))
    opened = Image.open(io.BytesIO(buffer.getvalue()))
    grey = opened.mode in ("1", "L", "LA")
    pixels = np.asarray(opened.convert("L" if grey else "RGB"))
    put("pixels." + name, pixels[:, :, None] if grey else pixels)


def files():
    rgb = Image.fromarray(picture(13, 18, 3, 1))
    grey = Image.fromarray(picture(13, 18, 1, 2)[:, :, 0])
    alpha = Image.fromarray(picture(13, 18, 1, 3)[:, :, 0])
    rgba, la = rgb.copy(), grey.copy()
    rgba.putalpha(alpha)
    la.putalpha(alpha)
    palette = rgb.quantize(11)
    put_file("grey.png", grey, format="PNG")
    put_file("rgb.png", rgb, format="PNG")
    put_file("rgb-alpha.png", rgba, format="PNG")
    put_file("grey-alpha.png", la, format="PNG")
    put_file("palette.png", palette, format="PNG", bits=4)
    put_file("palette-transparent.png", palette, format="PNG", transparency=3)
    put_file("bits.png", grey.convert("1"), format="PNG")
    put_file("grey.jpg", grey, format="JPEG")
    put_file("rgb-420.jpg", rgb, format="JPEG", subsampling=2, quality=80)
    put_file("rgb-422.jpg", rgb, format="JPEG", subsampling=1, quality=90)
    put_file("rgb-444.jpg", rgb, format="JPEG", subsampling=0, quality=95)
    put_file("progressive.jpg", rgb, format="JPEG", progressive=True, quality=85)
    put_file("cmyk.jpg", Image.fromarray(picture(13, 18, 4, 4), "CMYK"), format="JPEG")


def transforms():
    array = picture(37, 53, 3, 5)
    put("image", array)
    image = Image.fromarray(array)
    put("grey", np.asarray(image.convert("L"))[:, :, None])
    modes = {"bilinear": InterpolationMode.BILINEAR, "bicubic": InterpolationMode.BICUBIC}
    for name, mode in modes.items():
        for size in ([16], [45], [20, 71], [37, 11], [90, 53]):
            text = f"resize:{'x'.join(map(str, size))}:{name}"
            put("transform." + text, np.asarray(F.resize(image, size, mode, antialias=True)))
            crop = [12] if size == [16] else [15, 10]
            put(f"transform.{text},crop:{'x'.join(map(str, crop))}",
                np.asarray(F.center_crop(F.resize(image, size, mode, antialias=True), crop)))


def normalise(mean, std):
    known = {((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)): "imagenet", ((0.5,) * 3, (0.5,) * 3): "inception"}
    return "normalise:" + known[tuple(mean), tuple(std)]


def presets():
    ours = (Path(__file__).parents[2] / "datasets" / "transform_presets.cpp").read_text()
    for name in re.findall(r'"(torchvision/[^"]+)"', ours):
        architecture, version = re.fullmatch(r"torchvision/(\w+?)-((?:swag-\w+-)?v\d|swag-\w+)", name).groups()
        weights = models.get_model_weights(architecture)["IMAGENET1K_" + version.upper().replace("-", "_")]
        t = weights.transforms()
        metadata["preset." + name] = (f"resize:{t.resize_size[0]}:{t.interpolation.value},crop:{t.crop_size[0]},"
                                      + normalise(t.mean, t.std))
    for name in re.findall(r'"timm/([^"]+)"', ours):
        c = timm.get_pretrained_cfg(name)
        assert c.crop_mode == "center"
        size = c.input_size[-1]
        metadata["preset.timm/" + name] = (f"resize:{math.floor(size / c.crop_pct)}:{c.interpolation},crop:{size},"
                                           + normalise(c.mean, c.std))


files()
transforms()
presets()
save_file(tensors, Path(__file__).with_name("golden_images.safetensors"), metadata)
