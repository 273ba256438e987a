"""Names and shapes of torchvision's ResNets, one line each, in torch's order:

    python torch_names.py > torchvision_names.txt

Needs torch and torchvision. Buffers come after parameters; a scalar has no numbers after its name.
"""
import torch
import torchvision

print("# made by torch_names.py")
for name in ("resnet18", "resnet34", "resnet50", "resnet101"):
    with torch.device("meta"):
        model = getattr(torchvision.models, name)()
    for kind, tensors in (("parameter", model.named_parameters()), ("buffer", model.named_buffers())):
        for key, tensor in tensors:
            print(name, kind, key, *tensor.shape)
