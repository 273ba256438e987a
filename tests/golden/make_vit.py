"""Reference values from timm for a small vision transformer:

    python make_vit.py golden_vit.safetensors

Needs torch, timm, safetensors. As in make_golden.py, numbers that go in are float32, what comes out was computed in float64,
and images are channels last. Images 12x8x2, patches 4x4, width 12, 3 heads, 2 blocks, 5 classes; class token.

model.NAME       parameters, float32
input, labels    [N, H, W, C], int64 [N]
direction        [P], of all parameters, end to end in the order of named_parameters
logits           [N, classes]
jacobian         [N, classes, P'] of the layer norms and the head, columns in the order of named_parameters
gradient, hvp    [P], of the mean cross-entropy: ∇, and ∇² times the direction
jvp              [N, classes], of the logits along it
"""
import sys

import timm
import torch
from safetensors.torch import save_file
from torch import nn
from torch.func import functional_call, grad, jacrev, jvp, vmap


def main():
    torch.set_num_threads(1)
    timm.layers.set_fused_attn(False)
    torch.manual_seed(0)
    model = timm.models.vision_transformer.VisionTransformer(
        img_size=(12, 8), patch_size=4, in_chans=2, embed_dim=12, depth=2, num_heads=3, num_classes=5)
    generator, out = torch.Generator().manual_seed(2), {}
    with torch.no_grad():
        for key, p in model.named_parameters():
            scale = p[0].numel() ** -0.5 if p.ndim > 1 and not key.endswith(("embed", "token")) else 0.3
            p.copy_(torch.randn(p.shape, generator=generator) * scale + (1 if "norm" in key and "weight" in key else 0))
    for key, value in model.state_dict().items():
        out[f"model.{key}"] = value.clone()
    images = torch.randn(4, 2, 12, 8, generator=generator)
    out["input"], out["labels"] = images.permute(0, 2, 3, 1).contiguous(), torch.arange(4)
    out["direction"] = torch.randn(sum(p.numel() for p in model.parameters()), generator=generator)

    model.double().eval()
    x, parameters, v, at = images.double(), {k: p.detach() for k, p in model.named_parameters()}, {}, 0
    for k, p in parameters.items():
        v[k] = out["direction"][at:at + p.numel()].view_as(p).double()
        at += p.numel()
    logits = lambda p: functional_call(model, p, (x,))
    loss = lambda p: nn.functional.cross_entropy(logits(p), out["labels"])
    flat = lambda d: torch.cat([t.flatten() for t in d.values()])
    out["logits"], out["jvp"] = jvp(logits, (parameters,), (v,))
    gradient, product = jvp(grad(loss), (parameters,), (v,))
    out["gradient"], out["hvp"] = flat(gradient), flat(product)
    norms = {k for k, m in model.named_modules() if isinstance(m, nn.LayerNorm)}
    tuned = {k: p for k, p in parameters.items() if k.rpartition(".")[0] in norms | {"head"}}
    one = lambda p, image: functional_call(model, p, (image[None],))[0]
    rows = vmap(jacrev(one), (None, 0))(tuned, x)
    out["jacobian"] = torch.cat([rows[k].flatten(2) for k in tuned], 2)
    save_file({k: t.contiguous() for k, t in out.items()}, sys.argv[1],
              {"made_by": "make_vit.py", "torch": torch.__version__, "timm": timm.__version__})


main()
