"""Writes the valid files that fuzzing starts from into corpus/TARGET/seed-*. Needs Python alone:  python3 make_seeds.py"""
import gzip
import json
import struct
import zlib
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
