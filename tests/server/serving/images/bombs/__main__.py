"""Write the expensive files into a folder.

python -m tests.server.serving.images.bombs OUT --pixels 50000000
"""

import argparse
from pathlib import Path

from PIL import Image, TiffImagePlugin

from tests.server.serving.images.bombs.every import bombs
from tests.server.serving.images.bombs.honest import honest
from tests.server.serving.images.bombs.parts import LARGEST


def main() -> None:
    """Write every file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--pixels", type=int, default=50_000_000)
    options = parser.parse_args()
    TiffImagePlugin.WRITE_LIBTIFF = True
    Image.MAX_IMAGE_PIXELS = None
    options.out.mkdir(parents=True, exist_ok=True)
    for prefix, all_of_them in (("", bombs(options.pixels)), ("honest ", honest(options.pixels))):
        for name, make in all_of_them.items():
            data = make()
            assert len(data) <= LARGEST, (name, len(data))
            path = options.out / f"{prefix}{name}".replace(" ", "-").replace(":", "")
            path.write_bytes(data)
            print(f"{len(data):>10} {prefix}{name}", flush=True)


if __name__ == "__main__":
    main()
