"""Frames of a video file at given times, through PyAV."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import av
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from PIL import Image

from fusemix_core.errors import DataError

_STEPS_BACK = (0.0, 1.0, 10.0)
"""Seconds: a container may list a keyframe by when it is decoded, which is before it is shown."""

_STATED = ("mov", "avi")
"""Formats whose header contains the length of each stream."""

_TURN = {
    90: Image.Transpose.ROTATE_90,
    180: Image.Transpose.ROTATE_180,
    270: Image.Transpose.ROTATE_270,
}


class Video:
    """The first video stream of a file; a context manager. One frame is held at a time.

    duration: seconds. Raises DataError for a file that is not a video, has sound only, is damaged
    or cut short.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._shown: VideoFrame | None = None
        self._next: VideoFrame | None = None
        self._frames: Iterator[VideoFrame] = iter(())
        self._lead = 0.0
        """Seconds from the keyframe to the wanted frame, the most that a jump has landed before."""
        self._open()
        try:
            assert self.stream.time_base is not None  # as each stream of a file has
            self._tick = float(self.stream.time_base)
            self.start = (self.stream.start_time or 0) * self._tick
            self.duration = self._duration()
        except BaseException:
            self._container.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._frames, self._shown, self._next = iter(()), None, None
        self._container.close()

    def pictures(self, times: Iterable[float]) -> Iterator[Image.Image]:
        """What is seen at each of these times (seconds from the start, ascending), in RGB, upright.

        A frame is seen from its own time until the next one's, whatever the frame rate.
        """
        for time in times:
            with self._explained():
                frame = self._at(self.start + time)
                picture = frame.to_image()
            yield upright(picture, frame.rotation)

    # -- one frame ---------------------------------------------------------------------------------

    def _at(self, target: float) -> VideoFrame:
        """The frame that is shown at `target`, in the stream's own seconds."""
        if self._shown is None or target - self._shown.time > self._lead:
            self._jump(target)
        while self._next is not None and self._next.time <= target:
            self._shown, self._next = self._next, self._decoded()
        shown = self._shown
        assert shown is not None  # `_jump` has found one
        if self._next is None:
            self._check_end(shown, target)
        return shown

    def _jump(self, target: float) -> None:
        """Go to the last keyframe before `target`; from the start if that can't be found.

        Jumping ahead by less than the distance of keyframes would land behind where we were, so
        `_lead` remembers how far before its target a jump has landed.
        """
        if self._next is not None and self._next.time > target:
            return
        for back in _STEPS_BACK:
            at = max(target - back, self.start)
            try:
                self._container.seek(int(at / self._tick), stream=self.stream)
            except av.FFmpegError:
                break
            if self._begin() and self._shown is not None and self._shown.time <= target:
                self._lead = max(self._lead, target - self._shown.time)
                return
        self._container.close()
        self._open()
        self._lead = math.inf
        if not self._begin():
            raise self._fault("it contains no frame that can be decoded")

    def _begin(self) -> bool:
        """Decode the first two frames from here; whether there is one."""
        self._frames = self._container.decode(self.stream)
        self._shown = self._decoded()
        self._next = self._decoded() if self._shown else None
        return self._shown is not None

    def _decoded(self) -> VideoFrame | None:
        frame = next(self._frames, None)
        if frame is not None and frame.time is None:
            raise self._fault(
                "its frames carry no times",
                "Put the stream into a container: ffmpeg -i IN -c copy OUT.mp4",
            )
        return frame

    def _check_end(self, last: VideoFrame, target: float) -> None:
        """Raise if the last frame was over long before `target`: part of the file is missing."""
        end = last.time + (last.duration or 0) * self._tick
        if target - end > min(1.0, self.duration / 10):
            raise self._fault(
                f"the video ends after {end - self.start:.1f} s and not after "
                f"{self.duration:.1f} s, as it says: it is damaged or cut short"
            )

    # -- the file ----------------------------------------------------------------------------------

    def _open(self) -> None:
        with self._explained():
            self._container = av.open(str(self.path))
        streams = self._container.streams.video
        covers = Disposition.attached_pic
        found = [s for s in streams if not s.disposition & covers]
        if not found:
            kinds = sorted({s.type for s in self._container.streams}) or ["nothing"]
            self._container.close()
            raise self._fault(f"the file contains no video, but {', '.join(kinds)}")
        self.stream: VideoStream = found[0]

    def _duration(self) -> float:
        """Of the video stream, as the file says; if it doesn't, by reading all of it.

        What FFmpeg says of a stream is a guess, and may be the sound's, but in these formats.
        """
        stream, container = self.stream, self._container
        if stream.duration and container.format.name.startswith(_STATED):
            return stream.duration * self._tick
        tag = re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d+)?)", stream.metadata.get("DURATION", ""))
        if tag:
            hours, minutes, seconds = map(float, tag.groups())
            return 3600 * hours + 60 * minutes + seconds
        with self._explained():
            ends = [p.pts + (p.duration or 0) for p in container.demux(stream) if p.pts is not None]
        return max(0.0, max(ends, default=0) * self._tick - self.start)

    def _fault(self, reason: str, hint: str = "") -> DataError:
        return DataError(reason, hint, path=self.path)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except av.FFmpegError as error:
            reason = f"the video can't be decoded: {error.strerror}"
            raise self._fault(reason, "Is it complete, and a video?") from error


def upright(picture: Image.Image, rotation: int) -> Image.Image:
    """The picture turned counter-clockwise by the nearest right angle to `rotation` degrees."""
    turn = _TURN.get(round(rotation / 90) * 90 % 360)
    return picture if turn is None else picture.transpose(turn)
