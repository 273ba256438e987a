"""Writes the valid files that fuzzing starts from into corpus/TARGET/seed-*. Needs Python alone:  python3 make_seeds.py"""
import gzip
import hashlib
import io
import json
import pickle
import struct
import sys
import types
import zipfile
import zlib
from collections import OrderedDict
from pathlib import Path

corpus = Path(__file__).parent / "corpus"


def put(target, name, data):
    folder = corpus / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"seed-{name}").write_bytes(data)


def compressed(data):
    return gzip.compress(data, 9, mtime=0)


def read_safetensors(path):
    data = path.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header, body = json.loads(data[8:8 + length]), data[8 + length:]
    header.pop("__metadata__", None)
    return {name: body[slice(*entry["data_offsets"])] for name, entry in header.items()}


def safetensors(tensors, metadata=None):
    header, body = {}, b""
    if metadata:
        header["__metadata__"] = metadata
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(body), len(body) + len(data)]}
        body += data
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def npy(descr, shape, data, version=1, fortran=False):
    header = f"{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<H" if version == 1 else "<I", len(header)) + header + data


def idx(extents, data):
    return bytes([0, 0, 8, len(extents)]) + struct.pack(f">{len(extents)}I", *extents) + data


def mat_part(kind, data):
    return struct.pack("<II", kind, len(data)) + data + bytes(-len(data) % 8)


def mat_array(name, dims, array_class, data, zipped):
    body = (mat_part(6, struct.pack("<II", array_class, 0)) + mat_part(5, struct.pack(f"<{len(dims)}i", *dims))
            + mat_part(1, name) + mat_part({6: 9, 9: 2}[array_class], data))
    array = struct.pack("<II", 14, len(body)) + body
    if not zipped:
        return array
    packed = zlib.compress(array, 9)
    return struct.pack("<II", 15, len(packed)) + packed


# torch as far as its pickles name it.
torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
sys.modules.update({"torch": torch, "torch._utils": utils})


def named(function, name, module):
    function.__name__ = function.__qualname__ = name
    function.__module__ = module.__name__
    setattr(module, name, function)
    return function


rebuild = named(lambda *arguments: None, "_rebuild_tensor_v2", utils)
storages = {name: named(type(name, (), {}), name, torch) for name in ("FloatStorage", "LongStorage", "HalfStorage")}


class TorchTensor:
    """A tensor of ones' place in a pickle: storage type, key and elements, offset, shape, strides."""

    def __init__(self, storage, key, elements, offset, shape, strides):
        self.storage, self.rest = ("storage", storages[storage], key, "cpu", elements), (offset, shape, strides)

    def __reduce__(self):
        return rebuild, (Storage(self.storage), *self.rest, False, OrderedDict())


class Storage:
    def __init__(self, identity):
        self.identity = identity


class TorchPickler(pickle.Pickler):
    def persistent_id(self, value):
        return value.identity if isinstance(value, Storage) else None


def torch_pickle(value, protocol=2):
    out = io.BytesIO()
    TorchPickler(out, protocol).dump(value)
    return out.getvalue()


def torch_file(value, elements):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        files = {"data.pkl": torch_pickle(value), "version": b"3\n", **{f"data/{k}": v for k, v in elements.items()}}
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo("archive/" + name), data)
    return out.getvalue()


state = OrderedDict([("conv.weight", TorchTensor("FloatStorage", "0", 6, 0, (2, 3), (3, 1))),
                     ("conv.bias", TorchTensor("FloatStorage", "0", 6, 2, (2,), (2,))),
                     ("steps", TorchTensor("LongStorage", "1", 1, 0, (), ()))])
put("pickle", "state", torch_pickle(state))
put("pickle", "nested", torch_pickle({"epoch": 3, "lr": 0.1, "name": "x", "none": None, "state_dict": dict(state),
                                      "list": [True, -5, 1 << 40, (1, 2), b"bytes"]}, 4))
put("torch", "state", torch_file(state, {"0": bytes(24), "1": bytes(8)}))
put("torch", "half", torch_file({"h": TorchTensor("HalfStorage", "0", 2, 0, (2, 1), (1, 1))}, {"0": bytes(4)}))
put("safetensors", "two", safetensors({"a": ("F32", [2, 1], bytes(8)), "b": ("U8", [3], b"abc")}, {"k": "v"}))
put("safetensors", "wide", safetensors({"x.y": ("I64", [0, 2], b""), "d": ("F64", [], bytes(8))}))
put("safetensors", "half", safetensors({"h": ("F16", [2], bytes(4)), "g": ("BF16", [1], bytes(2))}))
put("npy", "f4", npy("<f4", "(2, 3)", bytes(24)))
put("npy", "u1", npy("|u1", "(3,)", b"abc", 2))
put("npy", "fortran", npy("<f8", "(2, 1)", bytes(16), fortran=True))
put("npy", "i8", npy("<i8", "()", bytes(8)))
images, labels = idx([2, 2, 2], b"abcdefgh"), idx([3], b"\x01\x00\x02")
for name, rank, data in (("images", 3, images), ("labels", 1, labels)):
    put("idx", name, bytes([rank]) + data)
    put("idx", name + "-gzip", bytes([rank]) + compressed(data))
for kind, count in ((0, 1), (1, 2)):
    record = bytes([3] * count) + bytes(range(256)) * 12
    put("cifar", f"{kind}", bytes([kind]) + record)
    put("cifar", f"{kind}-gzip", bytes([kind]) + compressed(record * 2))
pixels = compressed(bytes(3 * 96 * 96))
for name, classes in (("plain", b"\x0a"), ("gzip", compressed(b"\x01"))):
    put("stl10", name, bytes([len(classes)]) + classes + pixels)
header = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM"
for name, zipped, last in (("plain", False, b"\0"), ("zipped", True, b"\0"), ("to-zip", False, b"\1")):
    put("mat", name, header + mat_array(b"X", [32, 32, 3, 1], 9, bytes(3072), zipped)
        + mat_array(b"y", [1, 1], 6, struct.pack("<d", 10), zipped) + last)
    put("mat", name + "-other", header + mat_array(b"other", [1, 1], 9, b"\x01", zipped)
        + mat_array(b"y", [2, 1], 9, b"\x01\x0a", zipped) + last)
put("csv", "plain", b"path,label\na.png,1\nb.png,2\n")
put("csv", "quoted", b'\xef\xbb\xbf"path","label","id"\r\n"a,""1"".png",cat,7\r\n\r\nb.png,"d\no\ng",3')
for name, data in read_safetensors(Path(__file__).parents[1] / "tests" / "golden" / "golden_images.safetensors").items():
    if name.startswith("file."):
        put("image", name[5:], data)


def canonical(value):
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def sealed(value):
    return {**value, "sha256": hashlib.sha256(canonical(value).encode()).hexdigest()}


def journal(*entries):
    text, before = "", ""
    for number, entry in enumerate(entries, 1):
        entry = {"number": number, "arrived": [], "to": 0, "representation": "woodbury", **entry}
        before = hashlib.sha256((before + canonical(entry)).encode()).hexdigest()
        text += canonical({**entry, "hash": before}) + "\n"
    return text.encode()


forget = {"kind": "forget", "ids": [3, 5], "hashes": {"weights": "00", "result": "11"}}
put("journal", "one", journal(forget))
put("journal", "torn", journal(forget) + b'{"hash":"22')
put("journal", "two", journal(forget, {"kind": "compact", "ids": [], "hashes": {"factor": "33"}}))
put("manifest", "plain", b"\x03" + json.dumps(sealed({
    "format_version": 3, "program_version": "0.1.0", "blas_kernel_set": "Haswell",
    "settings": {"loss": "mse", "ridge": "2"}, "files": {"rows-000000.safetensors": "00"}}), indent=2).encode())
result = {
    "request": "forget", "entry": 1, "ids": [3], "ids_sha256": "0", "samples_sha256": "1", "retained_sha256": "2",
    "data_sha256": "3", "weights_before_sha256": "4", "weights_after_sha256": "5", "journal_before": "", "rule": "shift",
    "convention": "sum", "loss": "mse", "subset": "bn", "rho": 2.0, "parameters": 8, "classes": 2, "n_before": 4,
    "n_after": 3, "representation": "primal, woodbury", "relative_residual": 1e-15, "condition_bound": 10.0,
    "smallest_eigenvalue": 0.9, "update_norm": 0.1, "predicted_change": 0.5, "actual_change": 0.6,
    "linearisation_error": 0.2, "matrix_distance": 0.1, "advice": "none needed",
    "probe": {"ids": [0, 1], "labels": [0, 1], "predicted_change": [0.3, 0.4], "actual_change": [0.3, 0.5], "error": [0.0, 0.1]}}
measured = {
    "date": "2026-01-01T00:00:00Z", "command": ["fastntk", "forget"], "program": "fastntk 0.1.0", "threads": 2,
    "peak_resident_bytes": 1000, "phases": [{"name": "solve", "seconds": 0.1, "peak_bytes": 100}]}
sets = ("forget", "retain", "test")
values = {name + which: 0.5 for name in ("acc_", "loss_", "n_") for which in sets}
put("record", "plain", json.dumps(sealed({"result": result, "measured": measured})).encode())
put("record", "all", json.dumps(sealed({
    "result": {**result, "entry": 2, "most_affected": [{"id": 1, "label": 1, "predicted_change": 0.2}]}, "measured": measured,
    "signature": {"algorithm": "Ed25519", "key_sha256": "6", "value": "7"},
    "metrics": {"before": values, "after": values, "linearisation_error": dict.fromkeys(sets)}})).encode())

hashes = (b"a" * 64 + b"\n") * 2
put("state", "two", safetensors({
    "optimum": ("F64", [3], bytes(24)), "logits": ("F64", [2, 2], bytes(32)), "reference": ("F64", [3], bytes(24)),
    "reference_logits": ("F64", [2, 2], bytes(32)), "ids": ("I64", [2], struct.pack("<2q", 7, 3)),
    "labels": ("I64", [2], struct.pack("<2q", 0, 1)), "row_parts": ("I64", [1, 2], struct.pack("<2q", 0, 2)),
    "probe_positions": ("I64", [1], struct.pack("<q", 1)), "probe": ("F32", [1, 2, 2, 1], bytes(16)),
    "present": ("U8", [2], bytes([1, 0])), "sample_hashes": ("U8", [len(hashes)], hashes),
    "row_hashes": ("U8", [len(hashes)], hashes)}))
