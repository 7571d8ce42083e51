"""Batches from DALI; an image that cannot be used is replaced by rule.

The life of a batch, from its step to the tensors that the training loop gets. Reading runs in the loop's thread and
decoding in DALI's threads, up to `BATCHES_AHEAD` steps ahead of the loop::

    ImageLoader.__next__                 the loop asks for the batch of step s
      DecodedBatches._decoded              runs the pipeline, which takes a later step before it gives this one
        InFlight.__call__                    DALI asks for the next inputs of its graph
          ImageLoader.encoded                  the feed of a training; `sequential_batches` has one of its own
            rank_positions                       this rank's places in global batch s
            SampleOrder.samples_at               places to (epoch, sample), by arithmetic
            ReadAhead.ask                        hints for later steps; a thread of its own passes them on to the system
            BadImages.usable_images              listed and known bad images replaced; each image read
              Source.read                          its encoded bytes
              checked_header                       its size; damage that shows without decoding
            geometry_parameters, ...             how each image is changed, drawn from (seed, epoch, sample)
          graph_parameters, tensors            bytes and parameters handed to DALI, without a copy
        the DALI graph                       decode, resize, augment: in DALI's threads, on the CPU or the GPU
        undecodable_places                   where DALI refused the batch: its images one by one, in a pipeline each
        Feed.mark_bad                        they are bad from now on; a new pipeline asks for the batch again
      from_dlpack                          DALI's memory as a tensor, without a copy
      mirror, normalised                   on a CPU, where torch is faster than DALI: flip, and x / 127.5 - 1
      labels[samples]                      int64, past DALI
    Batch                                images (n, 3, H, W), labels (n,), how many images were replaced

No step leaves a state behind but the set of images found bad: a run that goes on at step s sees the same batches.
"""
