# server/local_triton/backends/standstill.py, a copy of which lies beside the backends.
from server.local_triton.backends.standstill import Standstill as Standstill
