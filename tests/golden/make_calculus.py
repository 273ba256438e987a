"""Reference values from PyTorch for derivatives of both orders and for training:

    python make_calculus.py golden_calculus.safetensors

Needs torch, torchvision, safetensors. As in make_golden.py, numbers that go in are float32, what comes out was computed in
float64, and images are channels last. The model is the network `basic` of make_golden.py with fresh numbers.

model.NAME            parameters and running statistics, float32
input, labels         [N, H, W, C], int64 [N]
direction             [P], of all parameters, end to end in the order of named_parameters
jvp                   [N, classes], of the logits along it, eval mode
gradient, hvp         [P], of the mean cross-entropy in eval mode: ∇, and ∇² times the direction
ggn                   [P], Jᵀ H J / N times the direction, H the Hessian of the cross-entropy in the logits
ntk                   [n1 * classes, n2 * classes], of the first n1 = 3 and the others, in bn + fc
RUN.loss, RUN.model.NAME
                      20 steps of full-batch training in train mode: the loss before each step; the state at the end.
                      sgd        lr 0.05, momentum 0.9, Nesterov, weight decay 5e-4
                      adamw      lr 0.01, weight decay 0.01, epsilon 1e-4
                      one-cycle  SGD with momentum 0.9, from 0.05/25 up to 0.05 at 30 % of the steps, then down to
                                 0.05/250000, each a half cosine over step / 20
"""
import copy
import math
import sys

import torch
from safetensors.torch import save_file
from torch import nn
from torch.func import functional_call, grad, jacrev, jvp, vjp, vmap
from torchvision.models.resnet import BasicBlock

from make_golden import ResNet, settle

STEPS, PEAK = 20, 0.05


def flat(tensors):
    return torch.cat([t.flatten() for t in tensors])


def calculus(model, x, labels, direction, out):
    parameters = {k: p.detach() for k, p in model.named_parameters()}
    v, at = {}, 0
    for k, p in parameters.items():
        v[k] = direction[at:at + p.numel()].view_as(p).double()
        at += p.numel()
    logits = lambda p: functional_call(model, p, (x,))
    mean_ce = lambda f: nn.functional.cross_entropy(f, labels)
    loss = lambda p: mean_ce(logits(p))
    out["jvp"] = jvp(logits, (parameters,), (v,))[1]
    gradient, product = jvp(grad(loss), (parameters,), (v,))
    out["gradient"], out["hvp"] = flat(gradient.values()), flat(product.values())
    f, pull = vjp(logits, parameters)
    out["ggn"] = flat(pull(jvp(grad(mean_ce), (f,), (out["jvp"],))[1])[0].values())

    norms = {k for k, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)}
    tuned = {k: p for k, p in parameters.items() if k.rpartition(".")[0] in norms | {"fc"}}
    one = lambda p, image: functional_call(model, p, (image[None],))[0]
    rows = vmap(jacrev(one), (None, 0))(tuned, x)
    rows = torch.cat([rows[k].flatten(2) for k in tuned], 2)
    out["ntk"] = rows[:3].flatten(0, 1) @ rows[3:].flatten(0, 1).T


def one_cycle(step):
    half_cosine = lambda a, b, u: b + (a - b) * (1 + math.cos(math.pi * u)) / 2
    t = step / STEPS
    return half_cosine(1 / 25, 1, t / 0.3) if t < 0.3 else half_cosine(1, 1 / 250000, (t - 0.3) / 0.7)


def trajectory(name, model, x, labels, optimiser, schedule, out):
    model.train()
    rates = torch.optim.lr_scheduler.LambdaLR(optimiser, schedule)
    losses = []
    for _ in range(STEPS):
        loss = nn.functional.cross_entropy(model(x), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        rates.step()
        losses.append(loss.detach())
    out[f"{name}.loss"] = torch.stack(losses)
    for key, value in model.state_dict().items():
        out[f"{name}.model.{key}"] = value.clone()


def main():
    torch.set_num_threads(1)
    generator, out = torch.Generator().manual_seed(1), {}
    model = settle(ResNet(BasicBlock, [1, 1, 1], 4, 2, 5, False), generator)
    images = torch.randn(7, 2, 12, 12, generator=generator)
    labels = torch.arange(7) % 5
    direction = torch.randn(sum(p.numel() for p in model.parameters()), generator=generator)
    for key, value in model.state_dict().items():
        out[f"model.{key}"] = value.clone()
    out["input"], out["labels"] = images.permute(0, 2, 3, 1).contiguous(), labels
    out["direction"] = direction
    model.double().eval()
    x = images.double()
    calculus(model, x, labels, direction, out)
    runs = {
        "sgd": lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, nesterov=True, weight_decay=5e-4),
        "adamw": lambda p: torch.optim.AdamW(p, 0.01, weight_decay=0.01, eps=1e-4),
        "one-cycle": lambda p: torch.optim.SGD(p, PEAK, momentum=0.9),
    }
    for name, make in runs.items():
        run = copy.deepcopy(model)
        trajectory(name, run, x, labels, make(run.parameters()), one_cycle if name == "one-cycle" else lambda _: 1, out)
    save_file(out, sys.argv[1], {"made_by": "make_calculus.py", "torch": torch.__version__})


if __name__ == "__main__":
    main()
