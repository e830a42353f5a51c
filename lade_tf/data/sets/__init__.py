"""The data sets: one file each, and `load`, which knows them by name."""

from lade_tf.checks import check_choice as _check_choice
from lade_tf.data.sets import cifar as _cifar
from lade_tf.data.sets import digits as _digits
from lade_tf.data.sets import folder as _folder
from lade_tf.data.sets import imagenet as _imagenet
from lade_tf.data.sets import inaturalist as _inaturalist
from lade_tf.data.sets import places as _places
from lade_tf.data.sets.from_lists import ON_BAD_IMAGE

_LOADERS = {
    "digits_lt": _digits.load,
    "cifar10_lt": _cifar.load_cifar10,
    "cifar100_lt": _cifar.load_cifar100,
}
# Sets of image files, with the counts that they have.
_FILE_LOADERS = {
    "places_lt": _places.load,
    "imagenet_lt": _imagenet.load,
    "inaturalist2018": _inaturalist.load,
    "folder": _folder.load,
}
NAMES = (*_LOADERS, *_FILE_LOADERS)

__all__ = ["NAMES", "ON_BAD_IMAGE", "load"]


def load(
    name,
    imbalance_ratio=None,
    data_seed=0,
    data_dir=None,
    on_bad_image="error",
    image_size=None,
    max_pixel=None,
    image_root=None,
    allow_duplicates=False,
):
    """Loads a long-tailed data set.

    Args:
        name: one of `NAMES`.
        imbalance_ratio: largest over smallest training class, at least 1; None means the set's
            own: 20 for digits_lt, 100 for the CIFARs. None for the other sets, whose images are
            all used.
        data_seed: non-negative integer; the choice of images depends on nothing else. Where all
            are used it has no effect.
        data_dir: folder of prepared tensorflow-datasets for the CIFARs, None for digits_lt, the
            folder of the images for the other sets; their `load`, in the file of their name, says
            what must lie in it.
        on_bad_image: what to do about image files that can't be decoded. "error" leaves the error
            to the stream that meets the image; "skip" decodes every image now and leaves the bad
            ones out, see `FileData.bad_images`. Without effect on digits_lt and the CIFARs.
        image_size: height and width of what the network sees, default 224; None for digits_lt and
            the CIFARs, whose images stay as they are.
        max_pixel, image_root, allow_duplicates: of "folder" alone, see its `load`.

    Returns:
        `ImageData` for digits_lt, the CIFARs and folders of small images, `FileData` for the
        others.

    Raises:
        ValueError: for an unknown name or a value that the set refuses.
    """
    _check_choice(name, NAMES, "name")
    _check_choice(on_bad_image, ON_BAD_IMAGE, "on_bad_image")
    own = {
        key: value
        for key, value in (
            ("max_pixel", max_pixel),
            ("image_root", image_root),
            ("allow_duplicates", allow_duplicates or None),
        )
        if value is not None
    }
    if own and name != "folder":
        key, value = next(iter(own.items()))
        raise ValueError(f"{key} must be None for {name}; got {value!r}")
    if name in _LOADERS:
        if image_size is not None:
            raise ValueError(f"image_size must be None for {name}; got {image_size!r}")
        ratio = {} if imbalance_ratio is None else {"imbalance_ratio": imbalance_ratio}
        return _LOADERS[name](data_seed=data_seed, data_dir=data_dir, **ratio)
    if imbalance_ratio is not None:
        raise ValueError(
            f"imbalance_ratio must be None for {name}, which has its own counts; "
            f"got {imbalance_ratio!r}"
        )
    size = {} if image_size is None else {"image_size": image_size}
    return _FILE_LOADERS[name](data_dir, on_bad_image, **size, **own)
