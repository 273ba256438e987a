"""Full-size models of torchvision and timm against the program:

    python parity.py PROGRAM [--images N] [--conv fast] [NAME…]

For each model: random weights, with statistics and affine parameters that are not 0 and 1; saved as .safetensors or as
.pth; `PROGRAM predict` and `PROGRAM jacobian` with --arch on a few random images; logits and Jacobian rows, in the
parameters of the norms and the classifier, compared with PyTorch's. Prints a table, and fails if a relative error (2-norm)
is above its bound. Needs torch, torchvision, timm, safetensors, numpy.

The derivative of a rectifier jumps at 0, so near that point two correct float32 programs may differ by a percent in a row.
The images of networks with rectifiers are therefore the ones, out of CANDIDATES, whose rectifiers' inputs stay farthest
from 0; they are 32x32, because among the millions of rectified values of a larger one some are always within rounding; and
PyTorch computes the reference in float64. Then the error of PyTorch's own float32 rows is printed beside ours.
"""
import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

LOGITS_BOUND, JACOBIAN_BOUND = 1e-4, 1e-3
CLASSES, CANDIDATES = 10, 512
NORMS = (nn.BatchNorm2d, nn.LayerNorm)

# What `--arch` is called, where PyTorch's model is from, how it is stored, which parameters the rows are of.
MODELS = [
    ("resnet18", "torchvision", "pth", "bn+head"),
    ("resnet34", "torchvision", "safetensors", "bn+head"),
    ("resnet50", "torchvision", "pth", "bn+head"),
    ("resnet101", "torchvision", "safetensors", "bn+head"),
    ("wide_resnet50_2", "torchvision", "safetensors", "bn+head"),
    ("resnext50_32x4d", "torchvision", "safetensors", "bn+head"),
    ("vit_tiny_patch16_224", "timm", "safetensors", "ln+head"),
    ("vit_small_patch16_224", "timm", "pth", "ln+head"),
    ("vit_base_patch16_224", "timm", "safetensors", "ln+head"),
    ("vit_base_patch32_224", "timm", "safetensors", "ln+head"),
    ("vit_b_16", "torchvision", "pth", "ln+head"),
]


def build(name, source, side, generator):
    torch.manual_seed(1)
    if source == "timm":
        import timm

        model = timm.create_model(name, pretrained=False, num_classes=CLASSES)
    else:
        import torchvision

        model = torchvision.models.get_model(name, weights=None, num_classes=CLASSES)
    spread = lambda t, low, high: low + (high - low) * torch.rand(t.shape, generator=generator)
    # Statistics that belong to the activations, so that these neither grow nor vanish from block to block; then moved.
    for m in model.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.momentum = 1.0
    with torch.no_grad():
        for key, p in model.named_parameters():
            if p.ndim == 1 or key in ("cls_token", "class_token"):  # biases, norms, tokens that start as constants
                p.add_(0.2 * torch.randn(p.shape, generator=generator))
        if source == "torchvision" and "vit" in name:
            nn.init.normal_(model.heads.head.weight, std=0.02, generator=generator)  # zero as it comes
        model.train()
        model(torch.randn(4, 3, side, side, generator=generator))
        for m in model.modules():
            if isinstance(m, nn.BatchNorm2d):
                m.running_mean.add_(m.running_var.sqrt() * spread(m.running_mean, -0.3, 0.3))
                m.running_var.mul_(spread(m.running_var, 0.7, 1.4))
    return model.eval()


def rectified(model):
    return [m for m in model.modules() if isinstance(m, nn.ReLU)]


# For each image, the rectifier's input nearest to 0, in terms of its layer's size.
def margins(model, x):
    out = []
    for part in x.split(32):
        nearest = []
        look = lambda module, inputs: nearest.append(inputs[0].flatten(1).abs().amin(1) / inputs[0].square().mean().sqrt())
        hooks = [m.register_forward_pre_hook(look) for m in rectified(model)]
        model(part)
        out.append(torch.stack(nearest).amin(0))
        for h in hooks:
            h.remove()
    return torch.cat(out)


# Of random images, those that are farthest from a kink: a coarse choice in float32, then in float64.
@torch.no_grad()
def images_off_kinks(model, count, side, generator):
    x = torch.randn(CANDIDATES, 3, side, side, generator=generator)
    x = x[margins(model, x).argsort(descending=True)[:16 * count]]
    return x[margins(model.double(), x.double()).argsort(descending=True)[:count]]


def rows(model, x, names):
    parameters = dict(model.named_parameters())
    tuned = [parameters[n] for n in names]
    for p in model.parameters():
        p.requires_grad_(False)
    for p in tuned:
        p.requires_grad_(True)
    out = []
    for image in x:
        logits = model(image[None])[0]
        for c in range(CLASSES):
            grads = torch.autograd.grad(logits[c], tuned, retain_graph=c + 1 < CLASSES)
            out.append(torch.cat([g.flatten() for g in grads]))
    return torch.stack(out).view(len(x), CLASSES, -1)


def relative_error(a, b):
    a, b = torch.as_tensor(a).double(), torch.as_tensor(b).double()
    if a.shape != b.shape:
        sys.exit(f"parity: shapes {tuple(a.shape)} and {tuple(b.shape)} differ")
    return ((a - b).norm() / b.norm()).item()


def run(*command):
    result = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    if result.returncode != 0:
        sys.exit(f"parity: {' '.join(map(str, command))} exited {result.returncode}: {result.stderr.strip()}")


# Our name of a parameter in the words of a model that has others: the columns say ours, torch's gradients need theirs.
def translated(names, model):
    own = {n for n, _ in model.named_parameters()}
    if all(n in own for n in names):
        return names
    # torchvision's vision transformer.
    table = [
        ("head.", "heads.head."),
        ("norm.", "encoder.ln."),
        (".norm1.", ".ln_1."),
        (".norm2.", ".ln_2."),
    ]
    out = []
    for n in names:
        if n.startswith("blocks."):
            _, k, rest = n.split(".", 2)
            n = f"encoder.layers.encoder_layer_{k}.{rest}"
        for ours, theirs in table:
            if n.startswith(ours) and not ours.startswith("."):
                n = theirs + n[len(ours):]
            elif ours.startswith("."):
                n = n.replace(ours, theirs)
        out.append(n)
    return out


def compare(program, folder, name, source, form, subset, images, convolution):
    generator = torch.Generator().manual_seed(2)
    side = 32 if "res" in name else 224
    model = build(name, source, side, generator)
    state = {k: v.clone().contiguous() for k, v in model.state_dict().items()}
    if rectified(model):
        for m in rectified(model):
            m.inplace = False
        x = images_off_kinks(model, images, side, generator)
    else:
        x = torch.randn(images, 3, side, side, generator=generator)
    weights, inputs = folder / f"{name}.{form}", folder / "input.npy"
    if form == "pth":
        torch.save(state, weights)
    else:
        save_file(state, str(weights))
    np.save(inputs, x.numpy())
    common = (weights, "--arch", name, "--input", inputs, "--conv", convolution, "--quiet")
    started = time.monotonic()
    run(program, "predict", *common, "-o", folder / "logits.npy")
    run(program, "jacobian", *common, "--subset", subset, "-o", folder / "jacobian.safetensors")
    seconds = time.monotonic() - started
    with safe_open(folder / "jacobian.safetensors", "pt") as file:
        ours, meta = file.get_tensor("jacobian"), file.metadata()
    names = [meta[k].split()[0] for k in sorted(meta) if k.startswith("columns.")]
    x = x.to(next(model.parameters()).dtype)
    with torch.no_grad():
        logits_error = relative_error(np.load(folder / "logits.npy"), model(x))
    theirs = rows(model, x, translated(names, model))
    single = relative_error(rows(model.float(), x.float(), names), theirs) if rectified(model) else None
    weights.unlink()
    return ours.shape[2], logits_error, relative_error(ours, theirs), single, seconds


def main():
    parser = argparse.ArgumentParser(description="compare logits and Jacobian rows of full-size models with PyTorch's")
    parser.add_argument("program")
    parser.add_argument("names", nargs="*", help="models; all by default")
    parser.add_argument("--images", type=int, default=2)
    parser.add_argument("--conv", choices=("fast", "exact"), default="exact",
                        help="the program's convolutions; with fast ones rows differ more, where the rounding decides if a relu is on")
    arguments = parser.parse_intermixed_args()
    chosen = [m for m in MODELS if not arguments.names or m[0] in arguments.names]
    unknown = set(arguments.names) - {m[0] for m in chosen}
    if unknown or not chosen:
        sys.exit(f"parity: no such model: {', '.join(sorted(unknown))}; there are {', '.join(m[0] for m in MODELS)}")
    print(f"PyTorch {torch.__version__}, {arguments.images} images, {CLASSES} classes, float32, --conv {arguments.conv}; "
          f"bounds {LOGITS_BOUND:g} (logits), {JACOBIAN_BOUND:g} (Jacobian rows)")
    print(f"{'model':<24}{'from':<13}{'file':<13}{'subset':<9}{'P':>8}{'logits':>10}{'Jacobian':>10}{'PyTorch':>9}{'seconds':>9}")
    missed = []
    with tempfile.TemporaryDirectory() as folder:
        for name, source, form, subset in chosen:
            P, logits, jacobian, single, seconds = compare(arguments.program, Path(folder), name, source, form, subset,
                                                   arguments.images, arguments.conv)
            within = logits <= LOGITS_BOUND and jacobian <= JACOBIAN_BOUND
            print(f"{name:<24}{source:<13}{form:<13}{subset:<9}{P:>8}{logits:>10.1e}{jacobian:>10.1e}"
                  f"{'–' if single is None else format(single, '.1e'):>9}{seconds:>9.1f}"
                  f"{'' if within else '  above the bound'}", flush=True)
            if not within:
                missed.append(name)
    if missed:
        sys.exit(f"parity: above the bound: {', '.join(missed)}")


main()
