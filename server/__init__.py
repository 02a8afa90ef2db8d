"""The gateway: an HTTP server that turns images into predictions of a model on Triton.

`python -m server` starts it. It reads no files of the other rooms: it reaches models only through
Triton's protocol.
"""

__version__ = "0.2.0"
