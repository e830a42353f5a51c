"""Augmentation layers of Keras and keras-cv with pixels that are a function of a seed.

Both libraries draw from generators with a state, which a resumed run would have to restore. Here a
layer is traced once, and while it is traced everything that it draws from is replaced: Keras'
`generator`, keras-cv's `_random_generator` and its factor samplers draw with
`tf.random.stateless_*` from seeds of ours. A layer is itself again after that; its own `seed`
argument has no effect here.

keras-cv is imported only for its own layers; that takes a second or two.
"""

import contextlib
import functools
import threading

import keras
import tensorflow as tf

# Layers whose every draw is replaced, each tested. Not among them is what draws from elsewhere
# (AugMix, FourierMix, Keras' RandAugment), what mixes images and so must mix labels (CutMix, MixUp,
# Mosaic), what changes the size or the number of images (RandomAspectRatio, RepeatedAugmentation),
# and what expects other pixels than 0..255 (RandomJpegQuality, Rescaling).
KERAS_LAYERS = (
    *("AutoContrast", "CenterCrop", "ContrastLimitedAdaptiveHistogramEqualization"),
    *("Equalization", "RandomBrightness", "RandomColorDegeneration", "RandomColorJitter"),
    *("RandomContrast", "RandomCrop", "RandomElasticTransform", "RandomErasing", "RandomFlip"),
    *("RandomGaussianBlur", "RandomGrayscale", "RandomHue", "RandomInvert", "RandomPerspective"),
    *("RandomPosterization", "RandomRotation", "RandomSaturation", "RandomSharpness"),
    *("RandomShear", "RandomTranslation", "RandomZoom", "Resizing", "Solarization"),
)
KERAS_CV_LAYERS = (
    *("AutoContrast", "ChannelShuffle", "Equalization", "Grayscale", "GridMask", "JitteredResize"),
    *("Posterization", "RandAugment", "RandomApply", "RandomAugmentationPipeline"),
    *("RandomBrightness", "RandomChannelShift", "RandomChoice", "RandomColorDegeneration"),
    *("RandomColorJitter", "RandomContrast", "RandomCrop", "RandomCropAndResize", "RandomCutout"),
    *("RandomFlip", "RandomGaussianBlur", "RandomHue", "RandomRotation", "RandomSaturation"),
    *("RandomSharpness", "RandomShear", "RandomTranslation", "RandomZoom", "Resizing"),
    "Solarization",
)

# These draw some number once for a whole batch; given one image at a time they draw for each.
ONE_DRAW_A_BATCH = ("RandomCrop", "RandomElasticTransform", "RandomGaussianBlur")

# These of keras-cv have an `if` over tensors, which AutoGraph translates, slowly.
NEEDS_AUTOGRAPH = ("Equalization", "RandomApply")

# Operations that TensorFlow counts as stateful, though they only steer or check.
STEERING = ("Assert", "Case", "If", "StatefulPartitionedCall", "While")

# One trace at a time: two threads would find each other's generators in a layer that they share.
_TRACING = threading.RLock()


def seeded(layers, batch_shape):
    """Returns a function that applies layers one after another, with random numbers from a seed.

    Every image of a batch has random numbers of its own. The layers are traced here, once.

    Args:
        layers: list or tuple of layers: of Keras those in `KERAS_LAYERS`, of keras-cv those in
            `KERAS_CV_LAYERS`, which compute in float32 and expect pixels in 0..255.
        batch_shape: (batch, height, width, channels) of the images.

    Returns:
        A function of images, `batch_shape` float32 in 0..255, and a seed, [2] integers, that
        returns images of the same shape, type and range. It calls no Python and keeps no state.

    Raises:
        ValueError: names the layer that isn't one of these, is made for other pixels, draws random
            numbers that no seed reaches or fails on such images, and images of another shape.
    """
    if not isinstance(layers, list | tuple):
        raise ValueError(f"augment must be a name or a list of layers; got {layers!r}")
    traced, shape = [], tf.TensorShape(batch_shape)
    for index, layer in enumerate(layers):
        name = f"augment[{index}]"
        _check_layer(layer, name)
        traced.append(_traced(layer, shape, f"{name}, {_full_name(layer)},"))
        shape = traced[-1].output_shapes
    if not shape.is_compatible_with(batch_shape):
        raise ValueError(
            f"augment must leave images of shape {tuple(batch_shape[1:])}; "
            f"got {tuple(shape[1:])} from its last layer"
        )

    def augment(images, seed):
        for index, layer in enumerate(traced):
            images = layer(images, tf.random.fold_in(seed, index, alg="philox"))
        return tf.clip_by_value(tf.ensure_shape(images, batch_shape), 0.0, 255.0)

    return augment


# Streams of one shape share the graph: it takes seconds to make.
@functools.lru_cache(maxsize=4)
def keras_cv_randaugment(batch_shape):
    """Returns keras-cv's RandAugment, with keras-cv's own defaults, as `seeded` returns layers.

    These are three operations of ten, each skipped with probability 1/11, at a magnitude drawn
    from N(0.5, 0.15²) where the operation has one.

    Args:
        batch_shape: (batch, height, width, 1 or 3) of the images. Grey images get three equal
            channels and stay grey.
    """
    import keras_cv

    layer = keras_cv.layers.RandAugment((0, 255))
    for part in layer._flatten_layers():
        # It makes its parts with the global policy, perhaps a mixed one.
        part.dtype_policy = "float32"
    augment = seeded([layer], (*batch_shape[:3], 3))
    if batch_shape[3] == 3:
        return augment
    return lambda images, seed: augment(tf.repeat(images, 3, axis=3), seed)[..., :1]


class _Draws(keras.random.SeedGenerator):
    """Random numbers of a seed, one after another: Keras asks for seeds, keras-cv for numbers."""

    def __init__(self):
        self.restart(None)

    def restart(self, seed):
        self.seed, self.count = seed, 0

    def next(self, ordered=True):
        del ordered
        self.count += 1
        return tf.random.fold_in(self.seed, self.count, alg="philox")

    def uniform(self, shape, minval=0, maxval=None, dtype=tf.float32):
        return tf.random.stateless_uniform(shape, self.next(), minval, maxval, dtype, "philox")

    def normal(self, shape, mean=0.0, stddev=1.0, dtype=tf.float32):
        return tf.random.stateless_normal(shape, self.next(), mean, stddev, dtype, "philox")


def _traced(layer, shape, name):
    """Returns the layer as a graph: images of `shape`, seed [2] int32 → images."""
    draws = _Draws()

    def augment(images, seed):
        draws.restart(seed)
        return layer(images)

    def augment_each(images, seed):
        def augment_one(image_and_seed):
            image, seed = image_and_seed
            draws.restart(seed)
            # AutoGraph doesn't look into Keras' __call__.
            return layer.call(image) if _is_keras_cv(layer) else layer(image[None])[0]

        # tf.vectorized_map, which keras-cv has for some, turns each stateless draw into a loop.
        seeds = tf.random.split(seed, shape[0], alg="philox")
        return tf.map_fn(augment_one, (images, seeds), fn_output_signature=tf.float32)

    function = tf.function(
        augment_each if _works_on_images(layer) else augment,
        autograph=any(type(p).__name__ in NEEDS_AUTOGRAPH for p in layer._flatten_layers()),
    )
    specs = tf.TensorSpec(shape, tf.float32), tf.TensorSpec([2], tf.int32)
    with _TRACING, _drawing_from(draws, layer):
        try:
            graph = function.get_concrete_function(*specs)
        except Exception as error:
            raise ValueError(f"{name} fails on images of shape {tuple(shape[1:])}") from error
    stateful = _stateful_operations(graph.graph)
    if stateful:
        raise ValueError(
            f"{name} must draw from seeds alone, for pixels that a resumed run sees again; "
            f"got the operations {', '.join(stateful)}"
        )
    return graph


@contextlib.contextmanager
def _drawing_from(draws, layer):
    """Replaces what a layer and its parts draw from, until the block ends."""
    originals = []
    try:
        for part in layer._flatten_layers():
            # Keras' own way to set attributes would track the new ones.
            attributes = vars(part)
            for name, value in list(attributes.items()):
                replacement = _replacement(name, value, draws)
                if replacement is not None:
                    originals.append((attributes, name, value))
                    attributes[name] = replacement
        yield
    finally:
        for attributes, name, value in originals:
            attributes[name] = value


def _replacement(name, value, draws):
    if name in ("generator", "_random_generator"):
        return draws
    if not _is_keras_cv(value):
        return None
    kind = type(value).__name__
    if kind == "UniformFactorSampler":
        return lambda shape=(), dtype="float32": draws.uniform(
            shape, value.lower, value.upper, tf.as_dtype(dtype)
        )
    if kind == "NormalFactorSampler":
        return lambda shape=(), dtype="float32": tf.clip_by_value(
            draws.normal(shape, value.mean, value.stddev, tf.as_dtype(dtype)),
            *(value.min_value, value.max_value),
        )
    return None


def _stateful_operations(graph):
    """Returns the names of operations with a state in a graph and the functions that it calls."""
    definition = graph.as_graph_def()
    nodes = [*definition.node, *(n for f in definition.library.function for n in f.node_def)]
    functions = {function.signature.name for function in definition.library.function}
    names = {node.op for node in nodes} - functions - set(STEERING)
    return sorted(name for name in names if graph.op_def_for_type(name).is_stateful)


def _check_layer(layer, name):
    """Raises a ValueError unless `layer` and all layers in it can be seeded."""
    parts = layer._flatten_layers() if isinstance(layer, keras.layers.Layer) else [layer]
    for part in parts:
        if not _is_allowed(part):
            raise ValueError(
                f"{name} must consist of layers whose random numbers can be seeded; "
                f"got {_full_name(part)}. These can: of keras.layers {', '.join(KERAS_LAYERS)}; "
                f"of keras_cv.layers {', '.join(KERAS_CV_LAYERS)}"
            )
        for attribute, expected in (
            ("compute_dtype", "float32"),
            ("value_range", (0, 255)),
            ("data_format", "channels_last"),
            ("batchwise", False),
        ):
            value = getattr(part, attribute, expected)
            if (tuple(value) if isinstance(value, list) else value) != expected:
                raise ValueError(
                    f"{name}, {_full_name(part)}, must have {attribute}={expected!r}; got {value!r}"
                )
        for attribute, value in vars(part).items():
            if _is_other_sampler(value):
                raise ValueError(
                    f"{name}, {_full_name(part)}, must draw {attribute} from a constant, uniform "
                    f"or normal factor sampler of keras-cv; got {_full_name(value)}"
                )


def _is_allowed(layer):
    # Subclasses may draw from elsewhere.
    kind = type(layer)
    if _is_keras_cv(layer):
        import keras_cv

        return kind.__name__ in KERAS_CV_LAYERS and kind is getattr(keras_cv.layers, kind.__name__)
    return kind.__name__ in KERAS_LAYERS and kind is getattr(keras.layers, kind.__name__)


def _is_other_sampler(value):
    """Whether it is a factor sampler of a user's own."""
    bases = [base.__name__ for base in type(value).__mro__[1:] if _is_of_keras_cv(base)]
    return "FactorSampler" in bases and not _is_keras_cv(value)


def _works_on_images(layer):
    """Whether the layer must be given one image at a time for every image to have its own draws."""
    if _is_keras_cv(layer):
        import keras_cv

        return isinstance(layer, keras_cv.layers.BaseImageAugmentationLayer)
    return type(layer).__name__ in ONE_DRAW_A_BATCH


def _is_keras_cv(value):
    return _is_of_keras_cv(type(value))


def _is_of_keras_cv(kind):
    return kind.__module__.split(".")[0] == "keras_cv"


def _full_name(value):
    """Returns the name by which users know the type of a layer: keras_cv.layers.MixUp."""
    kind = type(value)
    package = kind.__module__.split(".")[0]
    module = f"{package}.layers" if package in ("keras", "keras_cv") else kind.__module__
    return f"{module}.{kind.__qualname__}"
