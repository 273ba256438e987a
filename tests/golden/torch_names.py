"""Names and shapes of the models of torchvision and timm, in torch's order:

    python torch_names.py > torch_names.txt

Needs torch, torchvision and timm. Some models are written out, one line each for parameters, then buffers (a scalar has no
numbers after its name); of the others the SHA-256 of those lines, each ended by a newline and without the model's name.
"""
import hashlib

import timm
import torch
import torchvision

in_full = ["resnet18", "resnet34", "resnet50", "resnet101"]
torchvision_digests = ["resnet152", "resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d", "wide_resnet50_2",
                       "wide_resnet101_2", "vgg11_bn", "vgg13_bn", "vgg16_bn", "vgg19_bn"]
timm_digests = ["resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnext50_32x4d", "resnext101_32x8d",
                "resnext101_64x4d", "wide_resnet50_2", "wide_resnet101_2", "resnetv2_18", "resnetv2_34", "resnetv2_50",
                "resnetv2_101", "resnetv2_152"]


def lines(model):
    for kind, tensors in (("parameter", model.named_parameters()), ("buffer", model.named_buffers())):
        for key, tensor in tensors:
            yield " ".join([kind, key, *map(str, tensor.shape)])


print("# made by torch_names.py")
with torch.device("meta"):
    for name in in_full:
        for line in lines(getattr(torchvision.models, name)()):
            print(name, line)
    for source, names, make in (("torchvision", torchvision_digests, lambda name: getattr(torchvision.models, name)()),
                                ("timm", timm_digests, timm.create_model)):
        for name in names:
            text = "".join(line + "\n" for line in lines(make(name)))
            print("digest", source, name, hashlib.sha256(text.encode()).hexdigest())
