"""The check of `helm test`: a gateway is ready, and requires an API key where it should.

In: the gateway's address, and `closed` if it must require keys or `open` if not. Out: exit status 0
when both hold, else 1 and the reason on stderr. /readyz sends an image to every model. This program
uses only Python's standard library.

    python3 check.py http://mixer-mixer-serving-gateway:80 closed
"""

import ssl
import sys
import time
import urllib.error
import urllib.request

PATIENCE_SECONDS = 60.0
PAUSE_SECONDS = 1.0


def status(url: str) -> tuple[int, str]:
    """Status and body of a GET; 0 and the reason if there is no answer."""
    context = ssl.create_default_context()
    # The certificate is the cluster's own, and may be issued for the external name only.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    handlers = urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
    try:
        with urllib.request.build_opener(*handlers).open(url, timeout=10) as answer:
            return answer.status, answer.read().decode(errors="replace")
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(errors="replace")
    except OSError as error:
        return 0, str(error)


def main(url: str, keys: str) -> str:
    """The problem; "" if there is none."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while (found := status(f"{url}/readyz"))[0] != 200:
        if time.monotonic() > deadline:
            return f"/readyz is {found[0]}, expected 200: {found[1]}"
        time.sleep(PAUSE_SECONDS)
    expected = {"open": 200, "closed": 401}[keys]
    code, body = status(f"{url}/models")
    if code != expected:
        return f"/models without a key is {code}, expected {expected}: {body}"
    return ""


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[2] not in {"open", "closed"}:
        sys.exit("usage: check.py URL open|closed")
    sys.exit(main(sys.argv[1], sys.argv[2]) or 0)
