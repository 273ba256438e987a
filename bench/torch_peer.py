"""PyTorch on the job of bench_speed, for comparison: one JSON line on standard output.

    python torch_peer.py MODEL N WHAT THREADS [CHUNK [DEVICE]]

The Jacobian is computed in PyTorch's best way: batch-norm parameters, or the 10 prompts of a ViT, expanded to [N, ...],
one backward pass per class. Needs torch, torchvision and timm.
"""
import json
import resource
import sys
import time

import torch


class Block(torch.nn.Module):
    def __init__(self, cin, cout, stride):
        super().__init__()
        nn = torch.nn
        self.conv1, self.bn1 = nn.Conv2d(cin, cout, 3, stride, 1, bias=False), nn.BatchNorm2d(cout)
        self.conv2, self.bn2 = nn.Conv2d(cout, cout, 3, 1, 1, bias=False), nn.BatchNorm2d(cout)
        self.downsample = None
        if stride != 1 or cin != cout:
            self.downsample = nn.Sequential(nn.Conv2d(cin, cout, 1, stride, bias=False), nn.BatchNorm2d(cout))

    def forward(self, x):
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(y + (x if self.downsample is None else self.downsample(x)))


def cifar_resnet(depth, width, classes, channels):
    nn, layers, cin = torch.nn, [], width
    layers += [nn.Conv2d(channels, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    for stage in range(3):
        for b in range((depth - 2) // 6):
            cout = width << stage
            layers.append(Block(cin, cout, 2 if stage and not b else 1))
            cin = cout
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(cin, classes))


class PromptedVit(torch.nn.Module):
    """A timm ViT with 10 tokens after the class token."""

    def __init__(self, name):
        super().__init__()
        import timm

        self.vit = timm.create_model(name, num_classes=10)
        self.prompt = torch.nn.Parameter(torch.randn(1, 10, self.vit.embed_dim) * 0.02)

    def forward(self, x):
        vit = self.vit
        tokens = vit.norm_pre(vit._pos_embed(vit.patch_embed(x)))
        prompt = self.prompt.expand(len(x), -1, -1)
        tokens = vit.blocks(torch.cat([tokens[:, :1], prompt, tokens[:, 1:]], 1))
        return vit.forward_head(vit.norm(tokens))


def build(name):
    if name.startswith("vit_"):
        return PromptedVit(name), (3, 224, 224)
    if name == "resnet20":
        return cifar_resnet(20, 16, 10, 1), (1, 28, 28)
    import torchvision

    model = torchvision.models.resnet18(num_classes=10)
    model.conv1, model.maxpool = torch.nn.Conv2d(3, 64, 3, 1, 1, bias=False), torch.nn.Identity()
    return model, (3, 32, 32)


def peak_bytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def jacobian(model, x, chunk):
    norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    parameters = sum(2 * m.num_features for m in norms)
    for p in model.parameters():
        p.requires_grad_(False)
    leaves = []

    def affine(bn):
        def forward(y):
            g, b = (v.detach().expand(y.shape[0], -1).clone().requires_grad_() for v in (bn.weight, bn.bias))
            leaves.extend((g, b))
            z = (y - bn.running_mean[:, None, None]) * torch.rsqrt(bn.running_var + bn.eps)[:, None, None]
            return z * g[:, :, None, None] + b[:, :, None, None]

        return forward

    for bn in norms:
        bn.forward = affine(bn)
    prompt = getattr(model, "prompt", None)
    if prompt is not None:
        parameters += prompt.numel()
        del model.prompt  # a leaf for every chunk takes its place
    out = torch.empty(len(x), 10, parameters, device=x.device)
    for i in range(0, len(x), chunk):
        leaves.clear()
        if prompt is not None:
            count = len(x[i : i + chunk])
            model.prompt = prompt.detach().expand(count, -1, -1).clone().requires_grad_()
            leaves.append(model.prompt)
        f = model(x[i : i + chunk])
        for c in range(10):
            g = torch.autograd.grad(f[:, c].sum(), leaves, retain_graph=c < 9)
            out[i : i + chunk, c] = torch.cat([v.flatten(1) for v in g], 1)
    return out


def main():
    name, n, what, threads = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
    chunk = int(sys.argv[5]) if len(sys.argv) > 5 else 100
    device = sys.argv[6] if len(sys.argv) > 6 else "cpu"
    torch.manual_seed(0)
    torch.set_num_threads(threads)
    model, shape = build(name)
    model.to(device)
    batch = 128
    x = torch.randn(batch if what == "train" else n, *shape, device=device)
    result = {"model": name, "what": what, "n": n, "threads": threads, "chunk": chunk, "torch": torch.__version__}
    if what == "train":
        model.train()
        y = torch.arange(batch, device=device) % 10
        optimiser = torch.optim.SGD(model.parameters(), 1e-4, 0.9, nesterov=True)

        def work():
            for _ in range(max(1, n // batch)):
                optimiser.zero_grad()
                torch.nn.functional.cross_entropy(model(x), y).backward()
                optimiser.step()

        samples = max(1, n // batch) * batch
    else:
        model.eval()

        def work():
            with torch.no_grad():
                for i in range(0, n, chunk):
                    model(x[i : i + chunk])

        samples = n
    if what == "jacobian":
        if device != "cpu":
            torch.backends.cudnn.allow_tf32 = False  # products in float32, as ours
            with torch.no_grad():
                model(x[:chunk])  # handles, and the algorithms that are tried first
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        used = peak_bytes if device == "cpu" else torch.cuda.max_memory_allocated
        before, t = used(), time.perf_counter()
        j = jacobian(model, x, chunk)
        if device != "cpu":
            torch.cuda.synchronize()
        result["samples_per_second"] = n / (time.perf_counter() - t)
        result["work_bytes"] = used() - before - j.numel() * 4
    else:
        work()
        t = time.perf_counter()
        work()
        result["samples_per_second"] = samples / (time.perf_counter() - t)
    print(json.dumps(result))


main()
