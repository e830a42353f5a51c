"""What --weights means: imagenet, none, or the path of a backbone's weights."""

import functools
import pathlib

import keras

import lade_tf

APPLICATIONS = {"resnet50": keras.applications.ResNet50, "resnet152": keras.applications.ResNet152}
# Of the images that keras.applications' weights expect, with pixels in [0, 1]: in fact pixels in
# [0, 255] less the channels' means, not divided by anything.
IMAGENET_MEAN = tuple(mean / 255 for mean in (123.68, 116.779, 103.939))  # red, green, blue
IMAGENET_STD = (1 / 255,) * 3
SUFFIXES = (".weights.h5", ".keras")


def backbone_arguments(backbone_name, weights):
    """Returns the arguments with which a backbone must be built for --weights.

    Args:
        backbone_name: a function of `lade_tf.backbones`, e.g. "resnet50".
        weights: "imagenet", "none" or a path.

    Returns:
        A dictionary of keyword arguments; empty where the weights don't ask for any.

    Raises:
        ValueError: if there are no ImageNet weights for this backbone, or as `load` for a path.
    """
    if weights == "imagenet":
        if backbone_name not in APPLICATIONS:
            raise ValueError(
                f"weights='imagenet' needs a backbone among {', '.join(APPLICATIONS)}; "
                f"got {backbone_name!r}, for which keras.applications has none"
            )
        return {"stride_in": "1x1", "conv_bias": True}
    if backbone_name not in APPLICATIONS or not str(weights).endswith(".keras"):
        return {}
    source = _backbone_in(weights, backbone_name, f"a {backbone_name}")
    strided = source.get_layer("conv3_block1_1_conv").strides[0] > 1
    bias = source.get_layer("conv1_conv").use_bias
    return {"stride_in": "1x1" if strided else "3x3", "conv_bias": bias}


def normalisation(weights):
    """Returns (scale, offset) by which the images were normalised that the weights saw, or None.

    Args:
        weights: as in `load`. "imagenet" has keras.applications', a run's best.keras its own, in
            the layer "normalise"; None means that nobody knows.

    Returns:
        Two lists of a number a channel: what raw pixels in 0..255 are multiplied by, and what is
        added then.
    """
    if weights == "imagenet":
        offset = [-m / s for m, s in zip(IMAGENET_MEAN, IMAGENET_STD, strict=True)]
        return [1 / (255 * s) for s in IMAGENET_STD], offset
    if not str(weights).endswith(".keras"):
        return None
    source = _open(_existing(weights))
    if not isinstance(source, lade_tf.AdaptedModel):
        return None
    layers = {layer.name: layer for layer in source.network.layers}
    return (
        (layers["normalise"].scale, layers["normalise"].offset) if "normalise" in layers else None
    )


def load(backbone_name, backbone, weights):
    """Gives a backbone the weights that --weights asks for.

    Args:
        backbone_name: a function of `lade_tf.backbones`, e.g. "resnet50".
        backbone: what that function built, for "imagenet" with `backbone_arguments` and for
            images with three channels.
        weights: "none" leaves the backbone as it is; "imagenet" gives it keras.applications'
            weights, downloaded once into Keras' folder of models, and it then takes images
            normalised with IMAGENET_MEAN and IMAGENET_STD; otherwise the path of a .weights.h5
            file (whose strides nobody can check), of a .keras file with such a backbone or of a
            run's best.keras.

    Raises:
        ValueError: if there are no such weights, they can't be fetched or read, or don't fit.
    """
    if weights == "none":
        return
    if weights == "imagenet":
        backbone_arguments(backbone_name, weights)
        copy_from_applications(_imagenet_network(backbone_name), backbone)
        return
    _load_file(_existing(weights), backbone_name, backbone)


def copy_from_applications(source, backbone):
    """Copies the weights of a keras.applications ResNet into the backbone of the same kind.

    The source takes its channels as blue, green, red; the backbone gets its first kernel turned
    round, so that it takes red, green, blue.

    Args:
        source: keras.applications.ResNet50 or ResNet152.
        backbone: resnet50 or resnet152 with stride_in="1x1" and conv_bias=True.

    Raises:
        ValueError: if a layer has other weights or strides than the one of its name.
    """
    _copy_layers(source, backbone)
    kernel = backbone.get_layer("conv1_conv").kernel
    kernel.assign(kernel.numpy()[:, :, ::-1])


def _imagenet_network(backbone_name):
    try:
        return APPLICATIONS[backbone_name](include_top=False, weights="imagenet")
    except Exception as error:  # keras raises a plain Exception where a download fails
        file = f"{backbone_name}_weights_tf_dim_ordering_tf_kernels_notop.h5"
        raise ValueError(
            f"weights='imagenet' could not be fetched ({error}). Put the file at "
            f"~/.keras/models/{file} (with KERAS_HOME set, in its folder models) by hand, or use "
            f"--weights=none or --weights=PATH of a file {' or '.join(SUFFIXES)}"
        ) from error


def _existing(weights):
    path = pathlib.Path(weights).expanduser()
    if not path.name.endswith(SUFFIXES):
        raise ValueError(
            f"weights must be 'imagenet', 'none' or the path of a file {' or '.join(SUFFIXES)}; "
            f"got {str(weights)!r}"
        )
    if not path.is_file():
        raise ValueError(f"weights must name a file that exists; got {str(weights)!r}")
    return path


def _load_file(path, backbone_name, backbone):
    wanted = f"a {backbone_name} with {backbone.count_params():,} weights"
    if path.suffix == ".keras":
        source = _backbone_in(path, backbone.name, wanted)
        _open.cache_clear()  # it isn't needed any more, and large
    try:
        if path.suffix == ".keras":
            _copy_layers(source, backbone)
        else:
            backbone.load_weights(path)
    except Exception as error:  # a file can be wrong in as many ways as there are readers
        raise ValueError(f"weights={str(path)!r} must hold {wanted}, but: {error}") from error


def _backbone_in(weights, name, wanted):
    """Returns the backbone in a .keras file: the model that it holds, or of a run that layer."""
    path = _existing(weights)
    try:
        source = _open(path)
        is_run = isinstance(source, lade_tf.AdaptedModel)
        return source.network.get_layer(name) if is_run else source
    except Exception as error:
        raise ValueError(f"weights={str(path)!r} must hold {wanted}, but: {error}") from error


@functools.lru_cache(maxsize=1)
def _open(path):
    return keras.models.load_model(path, compile=False)


def _copy_layers(source, target):
    """Copies weights between layers of the same names, once all of them are known to fit."""
    theirs, ours = (
        {layer.name: layer for layer in model.layers if layer.weights} for model in (source, target)
    )
    if theirs.keys() != ours.keys():
        different = sorted(theirs.keys() ^ ours.keys())
        raise ValueError(
            f"{source.name} and {target.name} must have the same layers; "
            f"{different[0]!r} and {len(different) - 1} others are in one only"
        )
    for name, layer in ours.items():
        found, expected = (_form(layer) for layer in (theirs[name], layer))
        if found != expected:
            raise ValueError(f"layer {name!r} must have {expected}; got {found}")
    for name, layer in ours.items():
        layer.set_weights(theirs[name].get_weights())


def _form(layer):
    """Returns what two layers must share for the weights of one to mean the same in the other."""
    shapes = ", ".join(f"{weight.name} {tuple(weight.shape)}" for weight in layer.weights)
    strides = getattr(layer, "strides", None)
    return shapes if strides is None else f"{shapes}, strides {tuple(strides)}"
