"""Bytes to batches: where images lie, in which order they come, how they are decoded and augmented.

This package knows ranks as two integers and does not import `partial_fc`. Importing it costs no DALI: only
`data_pipeline.loader` does. Every form of a data set is a `Source`: `labels`, an array, and `read(sample)`, the encoded
bytes of one image. The life of a batch is told in `data_pipeline.loader`; this is the life of a label::

    formats.by_path.source_at            the path tells the form of the set; opening it reads all of its labels
      RecordFile.heads                     of a .rec: four bytes of each record, read as float32 (exact up to 2**24)
      RecordSource.labels                  refused unless whole and not negative; int64 from here on, (num_images,)
      FolderSource, TarSource, ...         other forms: the place of the folder's name, the digits in a .cls, a column
    JoinedSource.labels                  several sets: behind those of the set before, or by the name of the identity
    MergedSource.labels                  identities that are one person, by the list of `partial-fc clean`
    SelectedSource.labels                identities with too few images left out; the rest 0..C-1, without a gap
    NoisyLabels.labels                   wrong on purpose, drawn from (seed, sample), where a run asks for that
    Source.num_classes                   the largest label plus one: C, the rows of the classifier
    DecodedBatches.__next__              labels[samples] of a batch, (n,) int64: past DALI, to the device of its images
    partial_fc: loop.train               head(embeddings, labels): the label is a class id, the number of a row
      World.gather_rows                    the labels of the global batch, (N,), on every rank
      LabelCheck.check                     refused on all ranks where one is not in 0..C-1
      rows.sharding.owned_targets          the rank that has the row computes the target cosine

A label is an index and never a name. What a label is called, `Source.identities` or `identities.tsv` says. The number
by which an identity is found again in another set, where it has another label, comes from `sets.identity_keys`.
"""
