"""Load tests: what this server and its models can do on this machine, and the pages that say so.

In: addresses, images, and the programs of the other folders. Out: results as JSON, and pages that
show these results.
"""

from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
