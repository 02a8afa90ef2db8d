"""All of the expensive files by name."""

from tests.server.serving.images.bombs.avif import avifs
from tests.server.serving.images.bombs.bmp import bmps
from tests.server.serving.images.bombs.gif import gifs
from tests.server.serving.images.bombs.heic import heics
from tests.server.serving.images.bombs.jpeg import jpegs
from tests.server.serving.images.bombs.parts import Generator
from tests.server.serving.images.bombs.png import pngs
from tests.server.serving.images.bombs.strangers import strangers
from tests.server.serving.images.bombs.tiff import tiffs
from tests.server.serving.images.bombs.webp import webps


def bombs(pixels: int) -> dict[str, Generator]:
    """A generator for each name; names begin with the format."""
    makers = (jpegs, pngs, webps, gifs, bmps, tiffs, avifs, heics, strangers)
    return {name: make for maker in makers for name, make in maker(pixels)}
