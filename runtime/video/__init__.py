"""Video: frames of a file, a stream address or a camera, and label videos (PyAV, the extra `video`)."""

from dovit.runtime.video.read import Frame, Video

__all__ = ["Frame", "Video"]
