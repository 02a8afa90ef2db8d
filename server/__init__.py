"""The gateway: an HTTP server that turns images into predictions of a model on Triton.

`python -m server` starts it. It reads nothing of the other rooms: models reach it through Triton's
protocol alone.
"""

__version__ = "0.2.0"
