"""iNaturalist 2018: 8,142 species with 1,000 to 2 training images."""

import json

from lade_tf.data.files import image_lists
from lade_tf.data.sets import from_lists

CLASSES = 8142
SIZES = {"train": 437513, "val": 24426}
MEAN = (0.466, 0.471, 0.380)
STD = (0.195, 0.194, 0.192)


def load(data_dir=None, on_bad_image="error", image_size=224):
    """Loads inaturalist2018 from the extracted images and their annotations.

    `data_dir` holds train2018.json, val2018.json and train_val2018/. The labels of the
    competition's test images aren't public: the validation set, 3 images a class, is both, here as
    in the paper. tensorflow-datasets' i_naturalist2018 keeps its images inside TFRecords,
    from which they must be written to files first.

    Args:
        data_dir: that folder.
        on_bad_image: "error", or "skip" to leave out what can't be decoded.
        image_size: height and width of what the network sees.

    Returns:
        `FileData` whose `val` and `test` are the same images.

    Raises:
        ValueError: if a file is missing, or for anything wrong in the annotations.
    """
    return from_lists.build(
        "inaturalist2018", *read(data_dir), on_bad_image, mean=MEAN, std=STD, size=image_size
    )


def read(data_dir):
    """Returns the class names and {split: `ImageList`}, without looking for the images."""
    folder = image_lists.data_folder(
        data_dir,
        "train_val2018/, train2018.json and val2018.json of iNaturalist 2018",
        "i_naturalist2018",
    )
    files = {split: folder / f"{split}2018.json" for split in SIZES}
    texts = {split: image_lists.read_text(file) for split, file in files.items()}
    try:
        contents = {split: json.loads(text) for split, text in texts.items()}
        categories = sorted(contents["train"]["categories"], key=lambda category: category["id"])
        labels = {category["id"]: label for label, category in enumerate(categories)}
        class_names = tuple(str(category["name"]) for category in categories)
        splits = {
            split: _image_list(files[split], folder, content, labels)
            for split, content in contents.items()
        }
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(
            f"{files['train']} and {files['val'].name} must be the annotations of iNaturalist "
            f"2018, with images, annotations and categories; got {error!r}"
        ) from error
    image_lists.check_training_classes(splits["train"], len(class_names))
    return class_names, splits


def _image_list(file, folder, content, labels):
    label_of = {item["image_id"]: labels[item["category_id"]] for item in content["annotations"]}
    paths = [image["file_name"] for image in content["images"]]
    return image_lists.image_list(
        file, folder, paths, [label_of[image["id"]] for image in content["images"]]
    )
