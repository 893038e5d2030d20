"""dovit inside a Python program: frames from several threads, one session.

python examples/python/embed.py build/demo/engines assets/street.png    # after make demo
"""

from __future__ import annotations

import argparse
from concurrent.futures import ThreadPoolExecutor

import dovit
from dovit.runtime.images import read_image


def main(engines: str, image: str) -> None:
    """Segment an image and its mirror image at a time; print the share of each class."""
    session = dovit.load(engines)  # opened once; any number of threads may call it
    pixels = read_image(image)
    frames = [pixels, pixels[:, ::-1].copy()]
    with ThreadPoolExecutor(max_workers=2) as pool:
        results = list(pool.map(session, frames))
    names = session.manifest.class_names or [str(number) for number in range(session.manifest.classes)]
    for title, result in zip(("image", "mirrored"), results, strict=True):
        shares = {name: float((result.labels == number).mean()) for number, name in enumerate(names)}
        largest = sorted(shares.items(), key=lambda item: -item[1])[:3]
        kept = "/".join(map(str, result.kept))
        print(f"{title}: kept {kept} of {result.tokens}; " + ", ".join(f"{n} {s:.0%}" for n, s in largest))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("engines", help="a bundle's folder")
    parser.add_argument("image")
    arguments = parser.parse_args()
    try:
        main(arguments.engines, arguments.image)
    except dovit.DovitError as error:  # one sentence: what is wrong, and the fix
        parser.exit(1, f"embed.py: error: {error}\n")
