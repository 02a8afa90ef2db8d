"""Two parts of the HTTP exchange: the form with several images, and the phases of an answer.

In: encoded images; the header `Server-Timing`. Out: a body of multipart/form-data; the milliseconds
of each phase.
"""

import re
from collections.abc import Sequence

from loadtest.load.sample_images import SampleImage

BOUNDARY = "mixer-loadtest-5f2c9d71b0"
FORM_TYPE = f"multipart/form-data; boundary={BOUNDARY}"
PHASE = re.compile(r"(\w+);dur=([\d.]+)")


def form(sample_images: Sequence[SampleImage]) -> bytes:
    """The body of a request to /classify/batch, of the type FORM_TYPE."""
    parts = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="image"; '
        f'filename="{number}.jpg"\r\n\r\n'.encode()
        + image.data
        + b"\r\n"
        for number, image in enumerate(sample_images)
    ]
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


def phases(server_timing: str) -> dict[str, float]:
    """Milliseconds of each phase that the header names."""
    return {name: float(duration) for name, duration in PHASE.findall(server_timing)}
