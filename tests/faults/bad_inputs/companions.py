"""What comes with photos and is wrong: masks, transforms.json, COLMAP models. A job says which file and why, or leaves out one photo."""

import json
import math
import struct
from functools import cache
from typing import Any

from PIL import Image

from tests.faults.bad_inputs import encode as e
from tests.faults.bad_inputs.case import CaptureCase

BAD, COLMAP, NO_TYPE = "input.bad_poses", "input.colmap_invalid", "input.unsupported_type"
PHOTOS = ("a.jpg", "b.jpg", "c.jpg", "d.jpg")
EYE: list[list[Any]] = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]


def cases(seed: int) -> list[CaptureCase]:
    """Return the cases; their pictures depend on the seed."""
    return [*transforms(seed), *models(seed), *masks(seed)]


@cache
def photos(seed: int) -> tuple[tuple[str, bytes], ...]:
    """Return four photos that are in order."""
    return tuple((name, e.jpeg(1000 * seed + 800 + n)) for n, name in enumerate(PHOTOS))


def scene(frame: dict[str, Any] | None = None, **top: Any) -> dict[str, Any]:
    """Return a transforms.json in order but for what is given: changes of its first frame, and of the whole."""
    frames = [{"file_path": name, "transform_matrix": moved(n)} for n, name in enumerate(PHOTOS)]
    frames[0] |= frame or {}
    return {"camera_angle_x": 0.8, "frames": frames, **top}


def moved(n: float) -> list[list[Any]]:
    """Return a pose some steps along x."""
    return [[*row[:3], float(n)] if index == 0 else row for index, row in enumerate(EYE)]


def with_value(value: object, row: int = 0, column: int = 0) -> dict[str, Any]:
    """Return a first frame whose matrix has this value."""
    matrix = [list(each) for each in EYE]
    matrix[row][column] = value
    return {"transform_matrix": matrix}


def transforms(seed: int) -> list[CaptureCase]:
    """Poses as NeRF programs write them."""
    documents: dict[str, Any] = {
        "no frames": {"camera_angle_x": 0.8},
        "frames is no list": scene(frames={"0": 1}),
        "an empty list": scene(frames=[]),
        "frames of numbers": scene(frames=[1, 2, 3]),
        "20,001 frames": scene(frames=[{}] * 20_001),
        "two poses of one photo": scene({"file_path": "b.jpg"}),
        "nan": scene(with_value(math.nan)),
        "infinity": scene(with_value(math.inf, 0, 3)),
        "a number as text": scene(with_value("1.0")),
        "a truth value for a number": scene(with_value(True)),
        "null in a matrix": scene(with_value(None)),
        "a matrix of 3 rows and 3 columns": scene({"transform_matrix": [[1, 0, 0], [0, 1, 0], [0, 0, 1]]}),
        "a matrix of zeros": scene({"transform_matrix": [[0] * 4] * 4}),
        "a mirror image": scene(with_value(-1)),
        "a stretched world": scene({"transform_matrix": [[3, 0, 0, 0], [0, 3, 0, 0], [0, 0, 3, 0], [0, 0, 0, 1]]}),
        "a camera 10^9 away": scene(with_value(1e9, 0, 3)),
        "a path that climbs": scene({"file_path": "../../../etc/passwd"}),
        "an absolute path": scene({"file_path": "/etc/passwd"}),
        "a windows path": scene({"file_path": "C:\\a.jpg"}),
        "a path with nul": scene({"file_path": "a\0.jpg"}),
        "a path of 5,000 characters": scene({"file_path": "x" * 5000}),
        "a path that is a number": scene({"file_path": 7}),
        "no lens": scene(camera_angle_x=None),
        "an angle of pi": scene(camera_angle_x=math.pi),
        "a focal length of 0": scene(fl_x=0),
        "a negative focal length": scene(fl_x=-500.0),
        "a photo 10^9 wide": scene(fl_x=500, w=10**9, h=300),
        "distortion of 10^9": scene(k1=1e9),
        "an unknown camera": scene(camera_model="PINHOLE; DROP"),
    }
    texts = {
        "a number beyond floats": json.dumps(scene()).replace("0.8", "1e999"),
        "a number of 5,000 digits": json.dumps(scene()).replace("0.8", "9" * 5000),
        "100,000 brackets": '{"frames": ' + "[" * 100_000,
        "cut off": json.dumps(scene())[:-20],
        "not utf-8": '{"frames": "\udcff"}',
    }
    raw = {**{name: json.dumps(value).encode() for name, value in documents.items()}}
    raw |= {name: text.encode("utf-8", "surrogateescape") for name, text in texts.items()}
    found = [CaptureCase(f"poses: {name}", (*photos(seed), ("transforms.json", data)), BAD) for name, data in raw.items()]
    other = json.dumps(scene(frames=[{"file_path": f"other_{n}.jpg", "transform_matrix": EYE} for n in range(4)])).encode()
    twice = json.dumps(scene()).encode().replace(b'"camera_angle_x"', b'"camera_angle_x": 0.3, "camera_angle_x"')
    three = json.dumps(scene(frames=scene()["frames"][:3])).encode()
    return [
        *found,
        CaptureCase("poses: of photos that are missing", (*photos(seed), ("transforms.json", other)), "input.poses_unmatched"),
        CaptureCase("poses: one key twice, the last counts", (*photos(seed), ("transforms.json", twice))),
        CaptureCase("poses: one photo has none", (*photos(seed), ("transforms.json", three)), left_out={"d.jpg": "photo.no_pose"}),
        CaptureCase("poses: asked for and none came", photos(seed), "input.no_poses", options={"poses": {"source": "given"}}),
        CaptureCase("poses: no json", (*photos(seed), ("transforms.json", b"PK\x03\x04")), refused={"transforms.json": NO_TYPE}),
        CaptureCase("poses: empty", (*photos(seed), ("transforms.json", b"")), refused={"transforms.json": "input.empty_file"}),
    ]


def text_model(
    camera: str = "1 PINHOLE 400 300 400 400 200 150", pose: str = "1 0 0 0 0 0 0", point: str = "1 0 0 5 1 2 3 0.5"
) -> dict[str, bytes]:
    """Return a COLMAP text model of the four photos."""
    images = "".join(f"{n + 1} {pose} 1 {name}\n\n" for n, name in enumerate(PHOTOS))
    return {"cameras.txt": f"{camera}\n".encode(), "images.txt": images.encode(), "points3D.txt": f"{point}\n".encode()}


def models(seed: int) -> list[CaptureCase]:
    """Poses as COLMAP writes them."""
    count = lambda n: struct.pack("<Q", n)  # noqa: E731
    broken: dict[str, tuple[dict[str, bytes], str]] = {
        "2^63 cameras": ({"cameras.bin": count(2**63), "images.bin": count(0), "points3D.bin": count(0)}, COLMAP),
        "10^9 images": ({"cameras.bin": count(0), "images.bin": count(10**9), "points3D.bin": count(0)}, COLMAP),
        "files of one byte": ({"cameras.bin": b"\1", "images.bin": b"\1", "points3D.bin": b"\1"}, COLMAP),
        "empty lists": ({"cameras.bin": count(0), "images.bin": count(0), "points3D.bin": count(0)}, "input.poses_unmatched"),
        "a nan in a pose": (text_model(pose="1 0 0 0 nan 0 0"), COLMAP),
        "a rotation of zeros": (text_model(pose="0 0 0 0 0 0 0"), COLMAP),
        "a camera of no kind": (text_model(camera="1 WIDE 400 300 400"), COLMAP),
        "a camera with too few numbers": (text_model(camera="1 PINHOLE 400 300 400"), COLMAP),
        "a camera 10^9 wide": (text_model(camera="1 PINHOLE 1000000000 300 400 400 200 150"), COLMAP),
        "a focal length of 10^6": (text_model(camera="1 PINHOLE 400 300 1000000 400 200 150"), BAD),
        "images of a camera that is missing": (text_model(camera="2 PINHOLE 400 300 400 400 200 150"), COLMAP),
        "one camera twice": (text_model(camera="1 PINHOLE 400 300 400 400 200 150\n1 PINHOLE 4 3 4 4 2 1"), COLMAP),
        "a point 10^9 away": (text_model(point="1 1e9 0 5 1 2 3 0.5"), BAD),
        "a colour of 300": (text_model(point="1 0 0 5 300 2 3 0.5"), COLMAP),
        "bytes for text": ({**text_model(), "cameras.txt": b"\xff\xfe\x00"}, COLMAP),
    }
    return [
        CaptureCase(f"model: {name}", (*photos(seed), *((f"sparse/0/{file}", data) for file, data in files.items())), error)
        for name, (files, error) in broken.items()
    ]


def mask(width: int, height: int, value: int = 255) -> bytes:
    """Return a mask of one value."""
    return e.encoded(Image.new("L", (width, height), value), "PNG")


def masks(seed: int) -> list[CaptureCase]:
    """Masks: one bad mask costs its photo, and nothing else."""
    base = photos(seed)
    half = e.encoded(Image.linear_gradient("L").resize((400, 300)).point(lambda level: 255 * (level > 99)), "PNG")
    whole = tuple((f"masks/{name}.png", half) for name in PHOTOS[1:])
    noise = e.encoded(e.picture(1), "PNG")
    single: dict[str, tuple[str, bytes, str]] = {
        "of another shape": ("masks/a.jpg.png", mask(300, 300), "photo.mask_size"),
        "standing for a lying photo": ("masks/a.jpg.png", mask(300, 400), "photo.mask_size"),
        "of 10x1": ("masks/a.jpg.png", mask(10, 1), "photo.mask_size"),
        "black all over": ("masks/a.jpg.png", mask(400, 300, 0), "photo.mask_empty"),
        "cut off": ("masks/a.jpg.png", noise[: len(noise) // 2], "photo.mask_unreadable"),
    }
    refused = {
        "of 60000x1": (mask(60_000, 1), "input.too_small"),
        "of 50000x50000": (e.png(50_000, 50_000), "input.too_many_pixels"),
        "that is text": (b"no picture", NO_TYPE),
        "of no bytes": (b"", "input.empty_file"),
    }
    return [
        *(
            CaptureCase(f"mask {name}", (*base, *whole, (file, data)), left_out={"a.jpg": code})
            for name, (file, data, code) in single.items()
        ),
        *(
            CaptureCase(f"mask {name}", (*base, *whole, ("masks/a.jpg.png", data)), refused={"masks/a.jpg.png": code})
            for name, (data, code) in refused.items()
        ),
        CaptureCase("masks of other photos", (*base, ("masks/x.jpg.png", half)), "input.masks_unmatched"),
        CaptureCase("mask by an absolute path", (*base, *whole, ("/etc/masks/a.jpg.png", half))),
        CaptureCase("mask by a path that climbs", (*base, *whole, ("../../masks/a.jpg.png", half))),
        CaptureCase("mask by a windows path", (*base, *whole, ("C:\\x\\masks\\a.jpg.png", half))),
    ]
