"""Data sets made of lists of image files."""

from lade_tf.checks import check_choice
from lade_tf.data.file_data import FileData, FileSplit
from lade_tf.data.files import image_lists

ON_BAD_IMAGE = ("error", "skip")


def build(
    name,
    class_names,
    splits,
    on_bad_image,
    orientations=None,
    allow_duplicates=None,
    **recipe,
):
    """Checks the splits and makes a data set of them.

    Args:
        name: what `lade_tf.data.load` knows it by.
        class_names: one name a class, in label order.
        splits: {"train", "val", "test": `ImageList`}; of the last two one may be absent. Without
            a test set the validation set is both.
        on_bad_image: "error" leaves bad images to whoever reads them; "skip" decodes every image
            now and leaves out those that can't be.
        orientations: function of file names that gives their EXIF orientations, or None.
        allow_duplicates: as of `image_lists.find_problems`.
        **recipe: the other arguments of `FileData`.

    Returns:
        `FileData`.

    Raises:
        ValueError: for any problem that `image_lists.find_problems` finds, an unknown
            `on_bad_image`, or a class or split without a good image.
    """
    check_choice(on_bad_image, ON_BAD_IMAGE, "on_bad_image")
    problems = image_lists.find_problems(splits, len(class_names), allow_duplicates)
    if problems:
        raise ValueError("; ".join(problems))
    bad = image_lists.undecodable(splits, recipe.get("max_pixel")) if on_bad_image == "skip" else ()
    parts = {key: _split(images, dict(bad), orientations) for key, images in splits.items()}
    without = set(range(len(class_names))) - set(parts["train"].labels.tolist())
    if without:
        raise ValueError(f"{name}: no image of class {class_names[min(without)]!r} can be read")
    return FileData(
        name=name,
        class_names=tuple(class_names),
        train=parts["train"],
        test=parts["test"] if "test" in parts else parts["val"],
        val=parts.get("val"),
        bad_images=tuple(bad),
        **recipe,
    )


def _split(images, bad, orientations):
    kept = [index for index, file in enumerate(images.files) if file not in bad]
    if not kept:
        raise ValueError(f"{images.source}: none of its {len(images.paths)} images can be read")
    files = tuple(images.files[index] for index in kept)
    return FileSplit(files, images.labels[kept], orientations(files) if orientations else None)
