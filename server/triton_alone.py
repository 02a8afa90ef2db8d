"""`python -m server.triton_alone`: the name by which containers start `local_triton.alone`."""

import sys

from server.local_triton.alone import main

if __name__ == "__main__":
    sys.exit(main())
