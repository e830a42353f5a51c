"""Images that stay in their files, read, cropped and augmented as they are needed."""

import dataclasses
import functools
import os

import numpy as np
import tensorflow as tf

from lade_tf.checks import check_choice, check_integer, check_number
from lade_tf.data import random
from lade_tf.data.augmentation import color_jitter, mixup, policies, resized_crop
from lade_tf.data.batch_streams import graph_function, prefetched, restartable
from lade_tf.data.data_set import DataSet, check_array, check_epochs, check_range, check_sampling
from lade_tf.data.files import image_decoding
from lade_tf.data.files.file_reading import read_files
from lade_tf.data.samplers import epoch_sampler, epoch_seed

# AutoAugment's policy and the size of Cutout's square are for images of 32 × 32.
FILE_AUGMENTATIONS = tuple(name for name in policies.AUGMENTATIONS if name != "autoaugment_cutout")

# 256 images of 224 × 224 are 154 MB.
PREFETCHED_BATCHES = 2


@dataclasses.dataclass(frozen=True, eq=False)
class FileSplit:
    """Image files and their labels.

    Attributes:
        paths: absolute file names, or places in TFRecords (`lade_tf.data.files.records`).
        labels: [files] int32.
        orientations: [files] uint8, EXIF orientations 1 to 8 to undo, or None to show every image
            as it is stored.

    Raises:
        ValueError: for no file, a relative file name, or labels or orientations of another type,
            length or range.
    """

    paths: tuple[str, ...]
    labels: np.ndarray
    orientations: np.ndarray | None = None

    def __post_init__(self):
        if not self.paths:
            raise ValueError("paths must name at least one file; got none")
        relative = next((path for path in self.paths if not os.path.isabs(path)), None)
        if relative is not None:
            raise ValueError(f"paths must be absolute; got {relative!r}")
        check_array(self.labels, np.int32, [len(self.paths)], "labels")
        if self.orientations is not None:
            check_array(self.orientations, np.uint8, [len(self.paths)], "orientations")
            check_range(self.orientations, 1, 8, "orientations")

    @functools.cached_property
    def path_tensor(self):
        """The file names for TensorFlow, [files] strings, one copy for all streams."""
        with tf.init_scope():
            return image_decoding.path_tensor(self.paths)

    @functools.cached_property
    def orientation_tensor(self):
        """[files] int32, 1 where there are no orientations."""
        with tf.init_scope():
            stored = self.orientations
            return (
                tf.ones([len(self.paths)], tf.int32)
                if stored is None
                else tf.cast(stored, tf.int32)
            )


@dataclasses.dataclass(frozen=True, eq=False)
class FileData(DataSet):
    """A training set, perhaps a validation set, and a test set of image files.

    Attributes:
        name: what `lade_tf.data.load` knows it by.
        class_names: one name a class, in label order.
        train: the training images.
        test: the test images.
        val: the validation images, or None.
        mean: [3], the mean pixel after division by 255.
        std: [3], the standard deviation after division by 255.
        jitter: brightness, contrast and saturation of training images are each multiplied by
            U(1 − jitter, 1 + jitter), in random order; 0 for none.
        size: height and width of what the network sees.
        max_pixel: the value of white in PNGs of 16 bits, which becomes 255; None for 65,535.
        bad_images: (file name, reason) of each image that was left out.

    Raises:
        ValueError: for a label outside 0..classes−1, a mean or std of another length than 3, a
            jitter outside [0, 1], a size less than 1 or a max_pixel outside 1..65,535.
    """

    name: str
    class_names: tuple[str, ...]
    train: FileSplit
    test: FileSplit
    val: FileSplit | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    jitter: float = 0.0
    size: int = 224
    max_pixel: int | None = None
    bad_images: tuple[tuple[str, str], ...] = ()

    def __post_init__(self):
        super().__post_init__()
        check_number(self.jitter, "jitter", minimum=0, maximum=1)
        check_integer(self.size, "size", minimum=1)
        if self.max_pixel is not None:
            check_integer(self.max_pixel, "max_pixel", minimum=1)
            check_number(self.max_pixel, "max_pixel", maximum=image_decoding.DEEPEST)

    @property
    def image_shape(self):
        """(height, width, channels)."""
        return (self.size, self.size, 3)

    @property
    def pixel_max(self):
        """The value of a white pixel."""
        return 255

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

        A batch is a function of `sampler`, `seed`, epoch and step alone, as `ImageData`'s are, and
        is consumed in the same way. "standard" is the recipes' augmentation: random resized crop,
        mirroring with probability 1/2, colour jitter. A file that can't be read or decoded ends
        the stream with a `tf.errors.InvalidArgumentError` that names it.

        Args:
            batch_size: images in a batch; the remainder of an epoch is dropped.
            epochs: the epoch, counted from 0, at which to end.
            seed: integer.
            initial_epoch: the epoch at which to start.
            sampler: one of `lade_tf.data.SAMPLERS`, see `ImageData.train_batches`.
            augment: "standard", or what to apply after it: "randaugment", "keras_cv_randaugment",
                or a list of augmentation layers of Keras and keras-cv, see
                `ImageData.train_batches`; here nothing is rounded.
            mixup_alpha: α > 0 of mixup, or None for none.

        Returns:
            A `tf.data.Dataset` of (images [batch, size, size, 3] float32 in 0..255, labels [batch]
            int32). Normalisation is the network's. With mixup the labels are a triple, see
            `augmentation.mixup`.

        Raises:
            ValueError: if `batch_size` is less than 1 or exceeds the training set,
                `initial_epoch` is outside 0..`epochs`, for an unknown sampler or augmentation, a
                layer that is refused, or a bad α.
        """
        check_sampling(sampler, mixup_alpha)
        if isinstance(augment, str):
            check_choice(
                augment, FILE_AUGMENTATIONS, f"augment for images of {self.size} × {self.size}"
            )
        check_epochs(initial_epoch, epochs)
        steps = self.steps_per_epoch(batch_size)
        mean_pixel = tuple(255 * mean for mean in self.mean)
        change = policies.policy(augment, (batch_size, *self.image_shape), mean_pixel)
        sample = epoch_sampler(
            sampler, self.train.labels, self.class_counts, epochs, size=steps * batch_size
        )

        @graph_function
        def epoch_batches(epoch):
            stem = epoch_seed(sampler, seed, epoch)

            def step_seed(step):
                return tf.random.fold_in(stem, step, alg="philox")

            def load(contents, file, draws):
                return self._augmented(contents, self.train.orientation_tensor[file], *draws)

            files = tf.data.Dataset.from_tensor_slices(sample(epoch, stem))
            draws = tf.data.Dataset.range(steps).map(
                lambda step: self._draw(batch_size, step_seed(step))
            )
            elements = tf.data.Dataset.zip(files, draws.unbatch())
            images = read_files(self.train.path_tensor, files, elements, load)
            batches = images.batch(batch_size, drop_remainder=True).enumerate()
            return batches.map(
                lambda step, batch: self._finish(*batch, step_seed(step), change, mixup_alpha)
            )

        stream = tf.data.Dataset.range(initial_epoch, epochs).flat_map(epoch_batches)
        num_batches = (epochs - initial_epoch) * steps
        stream = stream.apply(tf.data.experimental.assert_cardinality(num_batches))
        return prefetched(stream, PREFETCHED_BATCHES)

    def plain_batches(self, split, batch_size):
        """Streams every image of a split once, in stored order, the last batch as small as need be.

        The shorter side is resized to 8/7·size (256 for 224) and the centre cut out. A file that
        can't be read or decoded ends the stream with a `tf.errors.InvalidArgumentError` that names
        it.

        Args:
            split: one of `splits`.
            batch_size: images in a batch.

        Returns:
            A `tf.data.Dataset` of (images [batch, size, size, 3] float32 in 0..255, labels [batch]
            int32), not augmented.

        Raises:
            ValueError: for another split, or if `batch_size` is less than 1.
        """
        self._check_split(split, batch_size)
        part = getattr(self, split)
        labels = tf.constant(part.labels)

        def load(contents, file):
            return self._plain(contents, part.orientation_tensor[file])

        files = tf.data.Dataset.range(len(part.paths), output_type=tf.int32)
        stream = read_files(part.path_tensor, files, files, load).batch(batch_size)
        stream = stream.map(
            graph_function(lambda files, images: (images, tf.gather(labels, files)))
        )
        num_batches = -(-len(part.paths) // batch_size)
        stream = stream.apply(tf.data.experimental.assert_cardinality(num_batches))
        return prefetched(stream, PREFETCHED_BATCHES)

    def _draw(self, batch_size, step_seed):
        # Other numbers than the policy's and mixup's, which fold in 1 and 2.
        seeds = tf.random.split(tf.random.fold_in(step_seed, 3, alg="philox"), 3, alg="philox")
        return (
            resized_crop.draw_crops(batch_size, seeds[0]),
            random.integers([batch_size], seeds[1], 2),
            *color_jitter.draw_jitter(batch_size, seeds[2], self.jitter),
        )

    def _augmented(self, contents, orientation, crop_draws, mirror, factors, order):
        window = image_decoding.decode_window(
            contents,
            lambda height, width: resized_crop.random_window(height, width, crop_draws),
            self.size,
            self.max_pixel,
        )
        image = resized_crop.resize(window, self.size)
        if self.jitter:
            image = color_jitter.color_jitter(image, factors, order)
        return resized_crop.upright(image, resized_crop.mirrored(orientation, mirror))

    def _plain(self, contents, orientation):
        image = image_decoding.decode_window(
            contents,
            lambda height, width: tf.stack([0, 0, height, width]),
            resized_crop.shorter_side(self.size),
            self.max_pixel,
        )
        return resized_crop.upright(resized_crop.resize_centre(image, self.size), orientation)

    def _finish(self, files, images, step_seed, change, mixup_alpha):
        labels = tf.gather(self.train.labels, files)
        images = change(images, step_seed)
        if mixup_alpha is None:
            return images, labels
        mixup_seed = tf.random.fold_in(step_seed, 2, alg="philox")
        return mixup.mixup(images, labels, mixup_seed, mixup_alpha)
