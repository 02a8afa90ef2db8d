"""A program that hangs, with a child that has its output open: for tests of deadlines.

In: the environment variable HANGING, a file. Out: the ids of both processes in this file.
"""

import os
import subprocess
import time
from pathlib import Path

SECONDS = 600

if __name__ == "__main__":
    child = subprocess.Popen(["sleep", str(SECONDS)])
    Path(os.environ["HANGING"]).write_text(f"{os.getpid()} {child.pid}")
    time.sleep(SECONDS)
