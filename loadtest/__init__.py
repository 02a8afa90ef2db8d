"""Load tests: what this server and its models can do on this machine, and the pages that say so.

In: addresses, images, the programs of the other rooms. Out: results as JSON, and pages of them.
"""

from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
