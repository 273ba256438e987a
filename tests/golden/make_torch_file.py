"""A small file of torch.save with what state dicts hold, and the same tensors as safetensors:

    python make_torch_file.py small.pth small.safetensors

Needs torch and safetensors. Types, views with strides and offsets, a shared storage, a parameter, a channels-last
convolution, inside {"epoch": …, "state_dict": …}.
"""
import collections
import sys

import torch
from safetensors.torch import save_file

torch.manual_seed(0)
state = collections.OrderedDict()
for name in ("float64", "float32", "float16", "bfloat16"):
    state[name] = torch.randn(3, 4).to(getattr(torch, name))
for name in ("int64", "int32", "int16", "int8", "uint8"):
    state[name] = torch.randint(0 if name == "uint8" else -100, 100, (5,)).to(getattr(torch, name))
state["bool"] = torch.tensor([True, False, True])
base = torch.arange(24.0).reshape(4, 6)
state["base"], state["transposed"], state["part"], state["last"] = base, base.T, base[1:3, ::2], base[3, 5]
state["channels_last"] = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
state["scalar"], state["empty"] = torch.tensor(7), torch.zeros(0, 3)
state["parameter"] = torch.nn.Parameter(torch.randn(2, 2))
state["größe"] = torch.ones(1)
state._metadata = {"": {"version": 1}}
torch.save({"epoch": 3, "rate": 0.1, "done": False, "notes": ["a", None, (1, -2**40)], "state_dict": state}, sys.argv[1])
save_file({k: v.detach().contiguous().clone() for k, v in state.items()}, sys.argv[2])
