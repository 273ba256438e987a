"""Reference values from PyTorch for two small residual networks made of torchvision's blocks:

    python make_golden.py golden_resnet.safetensors

Needs torch, torchvision, safetensors. Every number that goes in is a float32; every number that comes out was computed in
float64, so the same file serves models of both types. Images are stored channels last.

basic       3x3 stem, three stages of one BasicBlock, width 4, 12x12x2 images, 5 classes
bottleneck  7x7 stem with max pooling, two stages of Bottlenecks (2, 1), width 4, 20x20x3 images, 4 classes

PREFIX.model.NAME     parameters and running statistics, float32
PREFIX.input          [N, H, W, C], float32
PREFIX.logits         [N, classes]
PREFIX.jacobian       [N, classes, P] of the batch-norm parameters and fc, columns in the order of named_parameters
PREFIX.gram           [N * classes, N * classes], the Jacobian times its transpose
basic.train.gradient  [all parameters], of the mean cross-entropy against labels i mod 5, in train mode, flat in the order of
                      named_parameters; basic.train.loss []; basic.train.model.NAME, the running statistics afterwards
"""
import sys

import torch
from safetensors.torch import save_file
from torch import nn
from torch.func import functional_call, jacrev, vmap
from torchvision.models.resnet import BasicBlock, Bottleneck


class ResNet(nn.Module):
    def __init__(self, block, blocks, width, channels, classes, imagenet_stem):
        super().__init__()
        kernel, stride = (7, 2) if imagenet_stem else (3, 1)
        self.conv1 = nn.Conv2d(channels, width, kernel, stride, kernel // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.maxpool = nn.MaxPool2d(3, 2, 1) if imagenet_stem else nn.Identity()
        inside, self.stages = width, len(blocks)
        for s, count in enumerate(blocks):
            stage, planes = [], width << s
            for b in range(count):
                step, out, downsample = 2 if s and not b else 1, planes * block.expansion, None
                if step != 1 or inside != out:
                    downsample = nn.Sequential(nn.Conv2d(inside, out, 1, step, bias=False), nn.BatchNorm2d(out))
                stage.append(block(inside, planes, step, downsample))
                inside = out
            setattr(self, f"layer{s + 1}", nn.Sequential(*stage))
        self.fc = nn.Linear(inside, classes)

    def forward(self, x):
        x = self.maxpool(torch.relu(self.bn1(self.conv1(x))))
        for s in range(self.stages):
            x = getattr(self, f"layer{s + 1}")(x)
        return self.fc(x.mean((2, 3)))


def settle(model, generator):
    """Batch-norm parameters and statistics away from 1 and 0; every number a float32."""
    draw = lambda t, low, high: low + (high - low) * torch.rand(t.shape, generator=generator)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) * (2 / p[0].numel()) ** 0.5)
        for m in model.modules():
            if isinstance(m, nn.BatchNorm2d):
                m.weight.copy_(draw(m.weight, 0.5, 1.5))
                m.bias.copy_(draw(m.bias, -0.5, 0.5))
                m.running_mean.copy_(draw(m.running_mean, -0.5, 0.5))
                m.running_var.copy_(draw(m.running_var, 0.5, 2.0))
                m.num_batches_tracked.fill_(7)
    return model


def reference(name, model, images, out):
    for key, value in model.state_dict().items():
        out[f"{name}.model.{key}"] = value.clone()
    out[f"{name}.input"] = images.permute(0, 2, 3, 1).contiguous()
    model.double().eval()
    norms = {k for k, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)}
    tuned = {k: p.detach() for k, p in model.named_parameters() if k.rpartition(".")[0] in norms | {"fc"}}
    one = lambda p, x: functional_call(model, p, (x[None],))[0]
    rows = vmap(jacrev(one), (None, 0))(tuned, images.double())
    jacobian = torch.cat([rows[k].flatten(2) for k in tuned], 2)
    flat = jacobian.flatten(0, 1)
    out[f"{name}.logits"] = model(images.double()).detach()
    out[f"{name}.jacobian"], out[f"{name}.gram"] = jacobian, flat @ flat.T


def train_step(name, model, images, out):
    model.double().train()
    loss = nn.functional.cross_entropy(model(images.double()), torch.arange(len(images)) % model.fc.out_features)
    loss.backward()
    out[f"{name}.train.loss"] = loss.detach()
    out[f"{name}.train.gradient"] = torch.cat([p.grad.flatten() for p in model.parameters()])
    for key, value in model.named_buffers():
        out[f"{name}.train.model.{key}"] = value.clone()


def main():
    torch.set_num_threads(1)
    generator, out = torch.Generator().manual_seed(0), {}
    basic = settle(ResNet(BasicBlock, [1, 1, 1], 4, 2, 5, False), generator)
    images = torch.randn(6, 2, 12, 12, generator=generator)
    reference("basic", basic, images, out)
    train_step("basic", basic, images, out)
    bottleneck = settle(ResNet(Bottleneck, [2, 1], 4, 3, 4, True), generator)
    reference("bottleneck", bottleneck, torch.randn(4, 3, 20, 20, generator=generator), out)
    save_file(out, sys.argv[1], {"made_by": "make_golden.py", "torch": torch.__version__})


if __name__ == "__main__":
    main()
