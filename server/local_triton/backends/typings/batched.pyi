# server/local_triton/backends/batched.py, a copy of which lies beside the backends.
from server.local_triton.backends.batched import Batched as Batched
