"""Identities out of pairs: images that are known to be of one person share a label. Nothing else is known of them."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from data_pipeline.source import Source


def joined_labels(images: int, links: NDArray[np.int64]) -> NDArray[np.int64]:
    """The connected components of `images` nodes under `links`, shape (L, 2), numbered 0, 1, ... by their first images.

    Two components may be one person all the same: that nobody paired them says nothing.
    """
    above = list(range(images))  # a tree per component; its root is the smallest image

    def root(image: int) -> int:
        while above[image] != image:
            above[image] = above[above[image]]
            image = above[image]
        return image

    for left, right in links.tolist():
        smaller, larger = sorted((root(left), root(right)))
        above[larger] = smaller
    roots = np.fromiter(map(root, range(images)), np.int64, images)
    return np.unique(roots, return_inverse=True)[1].astype(np.int64)


def repeated_images(source: Source) -> NDArray[np.int64]:
    """Links, shape (L, 2), from each image to the first that is the same byte for byte; reads all, one by one.

    One that cannot be read is like no other.
    """
    first_of: dict[bytes, int] = {}
    links: list[tuple[int, int]] = []
    for image in range(len(source)):
        try:
            digest = hashlib.blake2b(source.read(image).tobytes(), digest_size=16).digest()
        except (OSError, ValueError):
            continue
        first = first_of.setdefault(digest, image)
        if first != image:
            links.append((first, image))
    return np.array(links, np.int64).reshape(-1, 2)
