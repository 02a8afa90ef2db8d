"""The health check of the gateway's container: /readyz, which lets every model answer an image.

Out: exit status 0 when it is 200, else 1 and the reason on stderr. A gateway that waits for Triton
is not ready and is left alone: it finds Triton by itself.
"""

import http.client
import os
import sys

connection = http.client.HTTPConnection(
    "127.0.0.1", int(os.environ.get("MIXER_PORT", "8000")), timeout=5
)
try:
    connection.request("GET", "/readyz")
    response = connection.getresponse()
    answer = response.read().decode(errors="replace")
except (OSError, http.client.HTTPException) as error:
    sys.exit(f"the gateway does not answer: {error!r}")
if response.status != 200:
    sys.exit(f"/readyz is {response.status}: {answer}")
