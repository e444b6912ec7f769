"""One video: how long it is, and the sharpest frame of each equal stretch of its time.

Runs in children (``sandbox``) only: what is decoded here is a stranger's. One decoding thread and frames told apart by their own time, so
that the same stretches give the same frames however the work is cut and whatever was killed before (docs/decisions/0028).
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from engine.photos.decode import PhotoError
from engine.photos.select import SHARPNESS_SIDE, laplacian_variance

# Half a second of walking is the least that gives another view; more frames cost time and show nothing new.
STRETCH_S = 0.5
# Of longer stretches only the middle is decoded: thirty frames are choice enough, and an hour costs what two minutes do.
LOOK_S = 1.0
# Frames to choose from: turning all of them into pixels takes as long as decoding them, and neighbours are blurred alike.
CANDIDATES = 8
# What one child looks at before it is safe on the disk, and what decoding that may take, seconds: 4K at 60 frames a second takes 60.
PORTION_S = 15.0
PORTION_CPU_S = 300.0
# A gap is read through up to here; a seek decodes from the key frame before, which lies some seconds back.
_SEEK_BEYOND_S = 5.0
_SLACK_S = 1.0
UNREADABLE = "holds no pictures that can be decoded here; export it as H.264 in an MP4 file"

Frame = npt.NDArray[np.uint8]  # [H, W, 3] uint8, BGR as OpenCV has it


@dataclass(frozen=True)
class Footage:
    """What a video is: upright size in pixels, length in seconds, and whether its file tells that, so that times in it can be found."""

    width: int
    height: int
    duration_s: float
    is_indexed: bool


@dataclass(frozen=True)
class Stretches:
    """The equal parts of a video's time, of each of which one frame is taken."""

    count: int
    seconds: float

    @classmethod
    def of(cls, footage: Footage, most: int) -> "Stretches":
        """Return the parts of a video: at most so many, and none shorter than ``STRETCH_S``."""
        count = max(1, min(most, int(footage.duration_s / STRETCH_S + 0.5)))
        return cls(count, footage.duration_s / count)

    def window(self, index: int) -> tuple[float, float, float]:
        """Return between which seconds a part is looked at, and when it ends."""
        middle, half = (index + 0.5) * self.seconds, 0.5 * min(self.seconds, LOOK_S)
        return middle - half, middle + half, (index + 1) * self.seconds

    def portions(self, footage: Footage) -> list[range]:
        """Return the parts in portions, each the work of one child; all in one where times cannot be found but by reading on."""
        size = max(1, round(PORTION_S / min(self.seconds, LOOK_S))) if footage.is_indexed and self.seconds > 0 else self.count
        return [range(first, min(first + size, self.count)) for first in range(0, self.count, size)]


class _Reader:
    """An open video and the time of the frame that it stands at, seconds."""

    def __init__(self, path: Path) -> None:
        # Nothing but this file is ever opened, whatever it names.
        os.environ.setdefault("OPENCV_FFMPEG_CAPTURE_OPTIONS", "protocol_whitelist;file")
        os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
        cv2.setNumThreads(1)
        self.path = path
        self.at_s = 0.0
        self.open()

    def open(self) -> None:
        """Stand before the first frame."""
        how = [cv2.CAP_PROP_N_THREADS, 1, cv2.CAP_PROP_HW_ACCELERATION, cv2.VIDEO_ACCELERATION_NONE]
        self.capture = cv2.VideoCapture(os.fspath(self.path), cv2.CAP_FFMPEG, how)
        if not self.capture.isOpened():
            raise PhotoError("photo.unreadable", f"is a video that is cut off, or {UNREADABLE}")
        self.at_s = -1.0

    def step(self) -> bool:
        """Go to the next frame; False at the end."""
        found = bool(self.capture.grab())
        if found:
            self.at_s = float(self.capture.get(cv2.CAP_PROP_POS_MSEC)) / 1000.0
        return found

    def go_to(self, begin_s: float) -> bool:
        """Go to the first frame that is not before a time; False when there is none."""
        if begin_s - self.at_s > _SEEK_BEYOND_S and not self._seek(begin_s):
            return False
        while self.at_s < begin_s:
            if not self.step():
                return False
        return True

    def _seek(self, begin_s: float) -> bool:
        """Go to a frame before a time. Where frames come unevenly a seek misses: then another tries further back, at last the beginning."""
        slack = _SLACK_S
        while begin_s - slack > 0.0:
            self.capture.set(cv2.CAP_PROP_POS_MSEC, 1000.0 * (begin_s - slack))
            if self.step() and self.at_s <= begin_s:
                return True
            slack *= 4.0
        self.open()
        return self.step()

    def frame(self) -> Frame | None:
        """Return the pixels of the frame that it stands at, upright."""
        found, pixels = self.capture.retrieve()
        return np.asarray(pixels, np.uint8) if found and pixels is not None and pixels.ndim == 3 else None


def look(path: Path) -> Footage:
    """Return what a video is. Raises ``PhotoError`` when not even its first frame can be decoded."""
    reader = _Reader(path)
    if not reader.step() or (first := reader.frame()) is None:
        raise PhotoError("photo.unreadable", UNREADABLE)
    height, width = first.shape[:2]
    n_frames, per_s = (float(reader.capture.get(each)) for each in (cv2.CAP_PROP_FRAME_COUNT, cv2.CAP_PROP_FPS))
    if n_frames >= 1.0 and per_s > 0.0 and np.isfinite(n_frames / per_s):
        return Footage(width, height, n_frames / per_s, is_indexed=True)
    # Recorded live, as browsers do: nobody has written down how long it became.
    while reader.step():
        pass
    return Footage(width, height, max(reader.at_s, 0.0), is_indexed=False)


def sharpest(path: Path, stretches: Stretches, portion: range) -> Iterator[tuple[int, Frame]]:
    """Yield the number and the sharpest frame, of ``CANDIDATES``, of each part of a portion; parts without frames are passed over."""
    reader = _Reader(path)
    for index in portion:
        begin_s, end_s, last_s = stretches.window(index)
        best, best_sharpness = None, -1.0
        next_s, apart_s = begin_s, (end_s - begin_s) / CANDIDATES
        more = reader.go_to(begin_s)
        # Where frames are rarer than looks, the first one after will do.
        while more and reader.at_s < (end_s if best is not None else last_s):
            frame = reader.frame() if reader.at_s >= next_s else None
            if frame is not None:
                next_s = reader.at_s + apart_s
                if (sharpness := _sharpness(frame)) > best_sharpness:
                    best, best_sharpness = frame, sharpness
            more = reader.step()
        if best is not None:
            yield index, best
        if not more:
            return


def _sharpness(frame: Frame) -> float:
    """Return what ``select.measure`` calls sharpness, of a luma that OpenCV has shrunk: up to a third lower, in a tenth of the time.

    Frames of one stretch are compared with one another and with nothing else.
    """
    grey = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)
    scale = SHARPNESS_SIDE / max(grey.shape)
    if scale < 1.0:
        grey = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return laplacian_variance(np.asarray(grey, np.float32))
