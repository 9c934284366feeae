"""Records of faces: their format, how they are written, and the batches made of them.

`asccl data inspect DIR` prints what a data set holds and checks every byte of it. The modules, from the file up:

* `atomic`, `example`, `records`: whole files, `tf.train.Example` and TFRecord shards, without TensorFlow.
* `schema`, `manifest`, `tfds_metadata`: what a record holds, what a data set holds, and both told to TFDS.
* `dataset_writer`, `dataset_reader`: a directory written and read back.
* `frames`, `pairs`, `selection`, `loader`: single frames, aligned frame pairs, a fixed few of many, batches.
"""
