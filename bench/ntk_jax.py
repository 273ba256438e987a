"""neural-tangents on the job of bench_ntk_speed, for comparison: the kernel to OUT (.safetensors), one JSON line on standard output.

    python ntk_jax.py CASE FILE OUT THREADS IMPLEMENTATION BATCH [N]

IMPLEMENTATION jacobian-contraction | ntk-vector-products | structured-derivatives, the three of empirical_ntk_fn; BATCH samples of each
set at a time, as nt.batch does it. Compiling is not timed. N: only that many images of each set (to find the fastest BATCH). Needs
neural_tangents, jax and safetensors.
"""
import json
import os
import resource
import sys
import time

os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: int(sys.argv[4])])  # before jax counts the processors

import jax
import jax.interpreters.ad
import jax.numpy as jnp
import neural_tangents as nt
import numpy
from jax import lax
from jax._src import source_info_util
from safetensors import safe_open
from safetensors.numpy import save_file

# What the structured derivatives of neural-tangents 0.6.5 look for here is elsewhere in jax 0.4.30.
jax.interpreters.ad.source_info_util = source_info_util
jax.interpreters.ad.config = jax.config


def conv(x, weight, bias):  # [N, H, W, C], weight [O, I, 3, 3]
    return lax.conv_general_dilated(x, weight, (1, 1), "SAME", dimension_numbers=("NHWC", "OIHW", "NHWC")) + bias


def max_pool(x):
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")


def dense(p, name, x):
    return x @ p[name + ".weight"].T + p[name + ".bias"]


def flat(x):  # in torch's order, channels first
    return x.transpose(0, 3, 1, 2).reshape(x.shape[0], -1)


def forward(case, p, x):
    if case.startswith("conv"):
        for name in ("conv1", "conv2"):
            x = max_pool(jax.nn.relu(conv(x, p[name + ".weight"], p[name + ".bias"])))
    else:
        x = jax.nn.relu(dense(p, "layers.0", flat(x)))
        return dense(p, "fc", jax.nn.relu(dense(p, "layers.1", x)))
    return dense(p, "fc", flat(x))


def peak_bytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main():
    case, path, output, threads, implementation, batch = *sys.argv[1:4], int(sys.argv[4]), sys.argv[5], int(sys.argv[6])
    with safe_open(path, "numpy") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}
        tuned_names = file.metadata()["tuned"].split()
    n = int(sys.argv[7]) if len(sys.argv) > 7 else len(tensors["images.first"])
    first, second = (jnp.array(tensors.pop(f"images.{which}")[:n]) for which in ("first", "second"))
    tuned = {name: jnp.array(tensors.pop(name)) for name in tuned_names}
    frozen = {name: jnp.array(value) for name, value in tensors.items()}
    kernel = nt.empirical_ntk_fn(
        lambda p, x: forward(case, {**frozen, **p}, x), trace_axes=(), vmap_axes=0,
        implementation=nt.NtkImplementation[implementation.upper().replace("-", "_")])
    compiled = jax.jit(kernel).lower(first[:batch], second[:batch], tuned).compile()

    # nt.batch would do the same; here the blocks go to their places without another copy.
    def blocks():
        out = numpy.empty((n, n, 10, 10), numpy.float32)
        for i in range(0, n, batch):
            for j in range(0, n, batch):
                out[i : i + batch, j : j + batch] = compiled(first[i : i + batch], second[j : j + batch], tuned)
        return out

    before, t = peak_bytes(), time.perf_counter()
    result = blocks()
    seconds = time.perf_counter() - t
    print(json.dumps({"program": "neural-tangents", "case": case, "n": n, "parameters": sum(v.size for v in tuned.values()),
                      "threads": threads, "method": f"{implementation}, batch {batch}", "seconds": seconds,
                      "peak_bytes": peak_bytes(), "work_bytes": peak_bytes() - before, "version": nt.__version__}))
    save_file({"ntk": numpy.ascontiguousarray(result.transpose(0, 2, 1, 3)).reshape(n * 10, n * 10)}, output)


main()
