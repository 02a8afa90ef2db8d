"""The health check of the gateway's container: /readyz, which sends an image to every model.

Out: exit status 0 when /readyz answers 200, else 1 and the reason on stderr. A gateway that waits
for Triton is not ready. It needs no restart, since it connects to Triton by itself.
"""

import http.client
import os
import ssl
import sys

host, port = "127.0.0.1", int(os.environ.get("MIXER_PORT", "8000"))
if os.environ.get("MIXER_TLS_CERT"):
    context = ssl.create_default_context()
    # The certificate belongs to this machine's own gateway, and is issued for another name.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    connection: http.client.HTTPConnection = http.client.HTTPSConnection(
        host, port, timeout=5, context=context
    )
else:
    connection = http.client.HTTPConnection(host, port, timeout=5)
try:
    connection.request("GET", "/readyz")
    response = connection.getresponse()
    answer = response.read().decode(errors="replace")
except (OSError, http.client.HTTPException) as error:
    sys.exit(f"the gateway does not answer: {error!r}")
if response.status != 200:
    sys.exit(f"/readyz is {response.status}: {answer}")
