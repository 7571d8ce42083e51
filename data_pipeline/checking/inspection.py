"""What a set of images is: identities and images counted, some images looked at, and what is wrong with it."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from data_pipeline.formats.verification_bin.source import BinSource
from data_pipeline.images.checks import checked_header, kind_of
from data_pipeline.images.headers import ImageHeader
from data_pipeline.order.shuffled import permuted
from data_pipeline.sets.selected import gaps_in_words, label_counts
from data_pipeline.source import Source

READING_THREADS = 8  # a cold disk answers several at a time


class Sample(NamedTuple):
    """One image: its header or what is wrong with it, and its bytes by count and by digest."""

    sample: int
    header: ImageHeader | str
    num_bytes: int
    digest: bytes


class Pairs(NamedTuple):
    """The pairs of a verification set, and how many of them contradict the others."""

    same: int
    different: int
    contradictions: int
    first_contradiction: int | None

    @property
    def description(self) -> str:
        """How many of each kind."""
        return f"{self.same + self.different:,} pairs, {self.same:,} of one person and {self.different:,} of two"

    def findings(self) -> Iterator[str]:
        """What is wrong with the pairs, a sentence each."""
        if not self.same or not self.different:
            yield (
                f"no pair is of {'two persons' if self.same else 'one person'}: nothing can be measured without pairs "
                "of both kinds"
            )
        if self.contradictions:
            yield (
                f"{self.contradictions:,} of {self.different:,} pairs of two persons have images that the other pairs, "
                f"or their bytes, make one person's, such as pair {self.first_contradiction}"
            )


@dataclass(frozen=True, eq=False)
class Inspection:
    """The counts of a whole set, and what a part of its images said. Text comes from its functions, in sentences."""

    num_images: int
    num_classes: int
    classes: NDArray[np.int64] = field(repr=False)
    """The labels that have images, ascending."""
    images_per_identity: NDArray[np.int64] = field(repr=False)
    """How many, in the order of `classes`."""
    samples: list[Sample] = field(repr=False)
    names: dict[int, str] = field(repr=False)
    """Where those images lie that the findings name."""
    labels: dict[int, int] = field(repr=False)
    """The class of each image looked at."""
    gaps: str | None = None
    """Which labels have no image."""
    left_out: Sequence[str] = ()
    """What the files hold and the set does not."""
    pairs: Pairs | None = None
    """Of a verification set: what it has instead of identities."""

    @property
    def num_identities(self) -> int:
        """How many labels have images."""
        return self.classes.size

    @property
    def is_whole(self) -> bool:
        """Whether all images were looked at."""
        return len(self.samples) == self.num_images

    @property
    def formats(self) -> Counter[str]:
        """How many of the images looked at have each format."""
        return Counter(each.header.format for each in self.samples if isinstance(each.header, ImageHeader))

    @property
    def sizes(self) -> Counter[tuple[int, int]]:
        """How many of the images looked at have each (width, height)."""
        return Counter(each.header[1:] for each in self.samples if isinstance(each.header, ImageHeader))

    @property
    def problems(self) -> dict[int, str]:
        """What is wrong with each image looked at that cannot be used."""
        return {each.sample: each.header for each in self.samples if isinstance(each.header, str)}

    @property
    def num_bytes(self) -> int:
        """The bytes of all images: counted where all were looked at, estimated from those that were otherwise."""
        seen = sum(each.num_bytes for each in self.samples)
        return seen if self.is_whole else round(seen / len(self.samples) * self.num_images)

    @property
    def duplicates(self) -> list[list[int]]:
        """Groups of images that are the same byte for byte, among those looked at."""
        return _duplicates(self.samples)

    @property
    def labels_from(self) -> str | None:
        """Where the labels come from, if the set itself has none."""
        return self.pairs and (
            "derived: images of a pair of one person, and images the same byte for byte, share one; two labels may be "
            "one person's"
        )

    def findings(self) -> Iterator[str]:
        """What is wrong, a sentence each; nothing for a set without fault."""
        yield from self.left_out
        yield from self._about_labels() if self.pairs is None else self.pairs.findings()
        yield from self._about_duplicates()
        if problems := self.problems:
            kinds = Counter(map(kind_of, problems.values())).most_common()
            first = min(problems)
            yield (
                f"{len(problems):,} of {len(self.samples):,} images looked at cannot be used "
                f"({', '.join(f'{count:,} {kind}' for kind, count in kinds)}), such as {self.names[first]}: "
                f"{problems[first]}. `partial-fc verify` looks at every image and lists them all"
            )

    def _about_labels(self) -> Iterator[str]:
        if self.num_identities == 1:
            yield "all images are of one identity: training tells identities apart, and needs two or more"
        if self.gaps is not None:
            yield (
                f"{self.gaps}. Training numbers the identities anew, 0 to {self.num_identities - 1:,}, in the order of "
                "their labels"
            )
        if single := int(np.count_nonzero(self.images_per_identity == 1)):
            yield (
                f"{single:,} of {self.num_identities:,} identities have a single image: no two to bring together in "
                "training, no genuine pair in evaluation"
            )

    def _about_duplicates(self) -> Iterator[str]:
        across = [group for group in self.duplicates if len({self.labels[sample] for sample in group}) > 1]
        for groups, where, meaning in (
            (across, "in several identities", "one of them has the wrong label, or two identities are one"),
            ([group for group in self.duplicates if group not in across], "within one identity", "it is seen twice"),
        ):
            if groups and self.pairs is None:  # a verification set shows an image in several pairs
                example = " = ".join(self.names[sample] for sample in groups[0][:2])
                yield (
                    f"{len(groups):,} of {len(self.samples):,} images looked at occur again byte for byte {where}: "
                    f"{meaning} ({example})"
                )


def inspection(source: Source, *, images: int = 4000, seed: int = 0, always: list[int] | None = None) -> Inspection:
    """What `source` is. `images` of it are read, drawn by `seed` and without repetition; and those of `always`."""
    if images < 1:
        raise ValueError(f"{images} images to look at: expected at least 1")
    count = min(images, len(source))
    drawn = permuted(np.arange(count, dtype=np.int64), len(source), seed, 0)
    chosen = np.unique(np.concatenate([drawn, np.array(always or [], np.int64)])).tolist()
    with ThreadPoolExecutor(READING_THREADS) as pool:
        samples = list(pool.map(lambda sample: _described(source, sample), chosen))
    named = [sample for group in _duplicates(samples) for sample in group[:2]]
    named += [each.sample for each in samples if isinstance(each.header, str)]
    classes, images_per_identity = label_counts(source.labels)
    return Inspection(
        num_images=len(source),
        num_classes=source.num_classes,
        classes=classes,
        images_per_identity=images_per_identity,
        samples=samples,
        names={sample: source.name(sample) for sample in named},
        labels={sample: source.label(sample) for sample in chosen},
        gaps=gaps_in_words(source),
        left_out=source.left_out,
        pairs=_pairs(source) if isinstance(source, BinSource) else None,
    )


def _pairs(source: BinSource) -> Pairs:
    same, contradictions = int(source.is_same.sum()), source.contradictions
    first = int(contradictions[0]) if contradictions.size else None
    return Pairs(same, source.is_same.size - same, contradictions.size, first)


def _described(source: Source, sample: int) -> Sample:
    try:
        encoded = source.read(sample).tobytes()
    except (OSError, ValueError) as error:
        return Sample(sample, f"cannot be read: {' '.join(str(error).split())}", 0, b"")
    digest = hashlib.blake2b(encoded, digest_size=16).digest()
    return Sample(sample, checked_header(encoded), len(encoded), digest)


def _duplicates(samples: list[Sample]) -> list[list[int]]:
    groups: defaultdict[bytes, list[int]] = defaultdict(list)
    for each in samples:
        if isinstance(each.header, ImageHeader):  # what is damaged is mostly damaged alike
            groups[each.digest].append(each.sample)
    return [group for group in groups.values() if len(group) > 1]
