"""torch.func on the job of bench_ntk_speed, for comparison: the kernel to OUT (.safetensors), one JSON line on standard output.

    python ntk_torch.py CASE FILE OUT THREADS CHUNK [N]

The way that was fastest in trials: rows by vmap(jacrev) over CHUNK samples at a time, then one matrix product per chunk of the second
set. N: only that many images of each set (to find the fastest CHUNK). Needs torch and safetensors.
"""
import json
import resource
import sys
import time

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch.func import functional_call, jacrev, vmap


def network(case):
    nn = torch.nn
    model = nn.Module()
    if case.startswith("conv"):
        model.conv1, model.conv2 = nn.Conv2d(3, 32, 3, padding=1), nn.Conv2d(32, 64, 3, padding=1)
        model.fc = nn.Linear(4096, 10)

        def forward(x):
            x = nn.functional.max_pool2d(torch.relu(model.conv1(x)), 2)
            x = nn.functional.max_pool2d(torch.relu(model.conv2(x)), 2)
            return model.fc(x.flatten(1))

    else:
        model.layers, model.fc = nn.ModuleList([nn.Linear(3072, 128), nn.Linear(128, 128)]), nn.Linear(128, 10)

        def forward(x):
            x = x.flatten(1)
            for layer in model.layers:
                x = torch.relu(layer(x))
            return model.fc(x)

    model.forward = forward
    return model


def peak_bytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main():
    case, path, output, threads, chunk = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5])
    torch.set_num_threads(threads)
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}
        tuned_names = file.metadata()["tuned"].split()
    n = int(sys.argv[6]) if len(sys.argv) > 6 else len(tensors["images.first"])
    first, second = (tensors.pop(f"images.{which}")[:n].permute(0, 3, 1, 2).contiguous() for which in ("first", "second"))
    model = network(case)
    model.load_state_dict(tensors)
    tuned = {name: tensors[name] for name in tuned_names}
    frozen = {name: value for name, value in tensors.items() if name not in tuned}

    def logits(parameters, x):
        return functional_call(model, (parameters, frozen), (x[None],))[0]

    rows_of_chunk = vmap(jacrev(logits), (None, 0))

    def rows(x):
        with torch.no_grad():
            return torch.cat([v.flatten(2) for v in rows_of_chunk(tuned, x).values()], 2).flatten(0, 1)

    def kernel():
        left = torch.empty(n * 10, sum(v.numel() for v in tuned.values()))
        for i in range(0, n, chunk):
            left[i * 10 : (i + chunk) * 10] = rows(first[i : i + chunk])
        out = torch.empty(n * 10, n * 10)
        for i in range(0, n, chunk):
            out[:, i * 10 : (i + chunk) * 10] = left @ rows(second[i : i + chunk]).T
        return out

    rows(first[:chunk])  # what is compiled or looked up once
    before, t = peak_bytes(), time.perf_counter()
    result = kernel()
    seconds = time.perf_counter() - t
    print(json.dumps({"program": "torch.func", "case": case, "n": n, "parameters": sum(v.numel() for v in tuned.values()),
                      "threads": threads, "method": f"jacrev, chunk {chunk}", "seconds": seconds, "peak_bytes": peak_bytes(),
                      "work_bytes": peak_bytes() - before, "version": torch.__version__}))
    save_file({"ntk": result}, output)


main()
