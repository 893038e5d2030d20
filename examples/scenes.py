"""Simple street scenes with exact labels: sky, buildings, trees, road, pavement, cars. For the demo only."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

NAMES = ("road", "sidewalk", "building", "vegetation", "sky", "car")
PALETTE = ((128, 64, 128), (244, 35, 232), (70, 70, 70), (107, 142, 35), (70, 130, 180), (0, 0, 142))
ROAD, SIDEWALK, BUILDING, TREE, SKY, CAR = range(6)


def scene(seed: int, height: int = 256, width: int = 512) -> tuple[np.ndarray, np.ndarray]:
    """An image uint8 [H, W, 3] and its labels uint8 [H, W]; the same seed gives the same scene."""
    random = np.random.default_rng(seed)
    horizon = int(height * random.uniform(0.42, 0.55))
    image = Image.new("RGB", (width, height), tuple(int(v) for v in random.integers((110, 150, 200), (160, 200, 250))))
    labels = Image.new("L", (width, height), SKY)
    pens = ImageDraw.Draw(image), ImageDraw.Draw(labels)

    def shape(kind: str, points: list, label: int, colour: tuple[int, ...]) -> None:
        getattr(pens[0], kind)(points, fill=tuple(int(c) for c in colour))
        getattr(pens[1], kind)(points, fill=label)

    x = -20
    while x < width:  # a row of houses with windows, and gaps with sky
        w, h = int(random.integers(40, 110)), int(random.integers(height // 8, int(height * 0.36)))
        wall = random.integers(70, 190, 3)
        shape("rectangle", [x, horizon - h, x + w, horizon + 4], BUILDING, wall)
        for wy in range(horizon - h + 8, horizon - 10, 18):
            for wx in range(x + 6, x + w - 10, 16):
                pens[0].rectangle([wx, wy, wx + 7, wy + 9], fill=tuple(int(c) for c in wall * random.uniform(0.3, 0.7)))
        x += w + int(random.integers(0, 50))
    shape("rectangle", [0, horizon, width, height], SIDEWALK, random.integers((150, 140, 140), (190, 180, 180)))
    vanishing, grey = width * random.uniform(0.4, 0.6), int(random.integers(70, 105))
    corners = [(vanishing - 12, horizon), (vanishing + 12, horizon), (width * 0.97, height), (width * 0.03, height)]
    shape("polygon", corners, ROAD, (grey, grey, grey + 4))
    for k in range(5):  # lane markings belong to the road
        near, far = horizon + (height - horizon) * (k / 5) ** 1.5, horizon + (height - horizon) * ((k + 0.5) / 5) ** 1.5
        pens[0].line([(vanishing + (width / 2 - vanishing) * (near - horizon) / (height - horizon), near),
                      (vanishing + (width / 2 - vanishing) * (far - horizon) / (height - horizon), far)],
                     fill=(225, 225, 220), width=2 + k)  # fmt: skip
    for _ in range(random.integers(1, 5)):
        tx, r = random.integers(0, width), random.integers(14, 38)
        shape("rectangle", [tx - 3, horizon - r, tx + 3, horizon + 8], TREE, (90, 65, 40))
        for _ in range(9):
            ox, oy = random.normal(0, r / 2, 2)
            green = random.integers((30, 80, 20), (80, 140, 60))
            shape(
                "ellipse",
                [tx + ox - r / 2, horizon - 1.6 * r + oy - r / 2, tx + ox + r / 2, horizon - 1.6 * r + oy + r / 2],
                TREE,
                green,
            )
    for _ in range(random.integers(2, 6)):  # nearer cars are larger
        depth = random.uniform(0.08, 0.75)
        cy, size = horizon + (height - horizon) * depth, 10 + 60 * depth
        cx, paint = vanishing + random.uniform(-0.42, 0.42) * width * depth, random.integers(20, 235, 3)
        shape("rectangle", [cx - size * 0.7, cy - size * 0.35, cx + size * 0.7, cy + size * 0.2], CAR, paint)
        shape("rectangle", [cx - size * 0.45, cy - size * 0.7, cx + size * 0.45, cy - size * 0.35], CAR, paint * 0.6)
        for side in (-0.45, 0.45):
            wheel = [cx + size * (side - 0.14), cy + size * 0.06, cx + size * (side + 0.14), cy + size * 0.34]
            shape("ellipse", wheel, CAR, (25, 25, 25))
    pixels = np.asarray(image.filter(ImageFilter.GaussianBlur(0.7)), np.float32)
    light = np.linspace(random.uniform(0.8, 1.1), random.uniform(0.8, 1.1), width)[None, :, None]
    noisy = pixels * light + random.normal(0, 6, pixels.shape)
    return noisy.clip(0, 255).astype(np.uint8), np.asarray(labels)
