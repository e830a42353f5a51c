"""Images in memory with the streams that train and test a classifier."""

import dataclasses

import numpy as np
import tensorflow as tf

from lade_tf.data.augmentation import mixup, policies
from lade_tf.data.augmentation.crop_flip import random_crop_flip
from lade_tf.data.batch_streams import graph_function, prefetched, restartable
from lade_tf.data.data_set import DataSet, check_array, check_epochs, check_sampling
from lade_tf.data.samplers import epoch_sampler, epoch_seed

# One map call makes a whole batch, at about 80,000 32×32 images a second and core.
PARALLEL_BATCHES = 2


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """Images and their labels.

    Attributes:
        images: [images, height, width, channels] uint8.
        labels: [images] int32.

    Raises:
        ValueError: for another type or shape, or if the lengths differ.
    """

    images: np.ndarray
    labels: np.ndarray

    def __post_init__(self):
        check_array(self.images, np.uint8, [None] * 4, "images")
        check_array(self.labels, np.int32, [None], "labels")
        if len(self.images) != len(self.labels):
            raise ValueError(
                f"labels must hold one label for each of the {len(self.images)} images; "
                f"got {len(self.labels)}"
            )


@dataclasses.dataclass(frozen=True, eq=False)
class ImageData(DataSet):
    """A long-tailed training set and a balanced test set, decoded once and kept in memory.

    Attributes:
        name: what `lade_tf.data.load` knows it by.
        class_names: one name a class, in label order.
        train: the training images, long-tailed.
        test: the test images, as many of every class.
        mean: [channels], the mean pixel after division by `pixel_max`.
        std: [channels], the standard deviation after division by `pixel_max`.
        pixel_max: the value of a white pixel.
        padding: pixels of padding before a training crop.
        flip: whether training mirrors images.
        val: the validation images, or None.
        bad_images: (file name, reason) of each image that was left out.

    Raises:
        ValueError: for a label outside 0..classes−1, splits of different image shapes, or a mean
            or std of another length than the channels.
    """

    name: str
    class_names: tuple[str, ...]
    train: Split
    test: Split
    mean: tuple[float, ...]
    std: tuple[float, ...]
    pixel_max: float
    padding: int
    flip: bool
    val: Split | None = None
    bad_images: tuple[tuple[str, str], ...] = ()

    def __post_init__(self):
        super().__post_init__()
        for split in self.splits:
            shape = getattr(self, split).images.shape[1:]
            if shape != self.image_shape:
                raise ValueError(
                    f"{split} must hold images of shape {self.image_shape}, as train does; "
                    f"got {shape}"
                )

    @property
    def image_shape(self):
        """(height, width, channels)."""
        return self.train.images.shape[1:]

    @restartable
    def train_batches(
        self,
        batch_size,
        epochs,
        seed,
        initial_epoch=0,
        sampler="instance",
        augment="standard",
        mixup_alpha=None,
    ):
        """Streams sampled, augmented batches of the epochs `initial_epoch` to `epochs` − 1.

        Images and augmentation of a batch are a function of `sampler`, `seed`, epoch and step
        alone ("progressively_balanced" looks at `epochs` too): a stream that starts at a later
        epoch gives the very batches that an uninterrupted one gives. Streams of different samplers
        are independent of each other, also with the same seed. One call of `fit(stream,
        epochs=epochs, initial_epoch=initial_epoch,
        steps_per_epoch=data.steps_per_epoch(batch_size), shuffle=False)` consumes it; Keras warns
        without `shuffle=False`.

        Args:
            batch_size: images in a batch; the remainder of an epoch is dropped.
            epochs: the epoch, counted from 0, at which to end.
            seed: integer.
            initial_epoch: the epoch at which to start.
            sampler: "instance" shuffles the training images, each once an epoch; the other
                `lade_tf.data.SAMPLERS` draw as many with replacement, by class.
            augment: one of `lade_tf.data.AUGMENTATIONS`, or a list of augmentation layers of Keras
                and keras-cv, which change the images after `padding` and `flip`. Their random
                numbers are a function of the same four, their own seeds have no effect. They see
                float32 pixels in 0..255, whatever `pixel_max`; what they return is rounded to
                whole pixels. Layers that can't be seeded are refused, see
                `lade_tf.data.augmentation.keras_layers`.
            mixup_alpha: α > 0 of mixup, or None for none.

        Returns:
            A `tf.data.Dataset` of (images [batch, height, width, channels] float32 in
            0..`pixel_max`, labels [batch] int32). Normalisation is the network's. With mixup the
            labels are a triple, see `augmentation.mixup`, which `lade_tf.AdaptedModel` trains on.

        Raises:
            ValueError: if `batch_size` is less than 1 or exceeds the training set,
                `initial_epoch` is outside 0..`epochs`, or for an unknown sampler, an augmentation
                that is unknown or not for such images, a layer that is refused, or a bad α.
        """
        check_epochs(initial_epoch, epochs)
        epoch_indices, make_batch = self.batch_functions(
            batch_size, epochs, seed, sampler, augment, mixup_alpha
        )
        images, labels = tf.constant(self.train.images), tf.constant(self.train.labels)

        @graph_function
        def numbered_indices(epoch):
            numbered = tf.data.Dataset.from_tensor_slices(epoch_indices(epoch)).enumerate()
            return numbered.map(lambda step, indices: (epoch, step, indices))

        stream = tf.data.Dataset.range(initial_epoch, epochs).flat_map(numbered_indices)
        stream = stream.map(
            graph_function(lambda *position: make_batch(images, labels, *position)),
            num_parallel_calls=PARALLEL_BATCHES,
            deterministic=True,
        )
        num_batches = (epochs - initial_epoch) * self.steps_per_epoch(batch_size)
        stream = stream.apply(tf.data.experimental.assert_cardinality(num_batches))
        return prefetched(stream, PARALLEL_BATCHES)

    def batch_functions(
        self, batch_size, epochs, seed, sampler="instance", augment="standard", mixup_alpha=None
    ):
        """Returns what `train_batches` consists of: two functions that depend on nothing else.

        They have no state and can be compiled by XLA, with augment="standard". Arguments and
        errors are those of `train_batches`.

        Returns:
            epoch_indices: epoch, scalar int64 → [steps, batch] int32, positions in `train`;
            make_batch: (images and labels of `train` as tensors, epoch, step, scalar int64, the
                step's indices) → a batch as `train_batches` streams it.
        """
        check_sampling(sampler, mixup_alpha)
        steps = self.steps_per_epoch(batch_size)
        mean_pixel = tuple(self.pixel_max * mean for mean in self.mean)
        change = policies.policy(
            augment, (batch_size, *self.image_shape), mean_pixel, self.pixel_max
        )
        sample = epoch_sampler(
            sampler, self.train.labels, self.class_counts, epochs, size=steps * batch_size
        )

        def epoch_indices(epoch):
            order = sample(epoch, epoch_seed(sampler, seed, epoch))
            return tf.reshape(order, [steps, batch_size])

        def make_batch(images, labels, epoch, step, indices):
            step_seed = tf.random.fold_in(epoch_seed(sampler, seed, epoch), step, alg="philox")
            batch = tf.gather(images, indices)
            batch = change(random_crop_flip(batch, step_seed, self.padding, self.flip), step_seed)
            batch, batch_labels = tf.cast(batch, tf.float32), tf.gather(labels, indices)
            if mixup_alpha is None:
                return batch, batch_labels
            # Other numbers than the policy's, which folds in 1.
            mixup_seed = tf.random.fold_in(step_seed, 2, alg="philox")
            return mixup.mixup(batch, batch_labels, mixup_seed, mixup_alpha)

        return epoch_indices, make_batch

    def plain_batches(self, split, batch_size):
        """Streams every image of a split once, in stored order, the last batch as small as need be.

        Args:
            split: one of `splits`.
            batch_size: images in a batch.

        Returns:
            A `tf.data.Dataset` of (images [batch, height, width, channels] float32 in
            0..`pixel_max`, labels [batch] int32), not augmented.

        Raises:
            ValueError: for another split, or if `batch_size` is less than 1.
        """
        self._check_split(split, batch_size)
        part = getattr(self, split)
        stream = tf.data.Dataset.from_tensor_slices((part.images, part.labels))
        stream = stream.batch(batch_size)
        stream = stream.map(
            graph_function(lambda images, labels: (tf.cast(images, tf.float32), labels))
        )
        return prefetched(stream, 1)
