"""All that determines a run but its data: `RunConfig`, of which every flag is a field."""

import dataclasses
import pathlib

from absl import flags

import lade_tf
from reproduction import builders, recipes
from reproduction.methods import METHODS, POLICIES, REQUIRED


@dataclasses.dataclass(frozen=True)
class Flag:
    """What a field says of its flag.

    Attributes:
        kind: str, bool, int, float or a tuple of choices.
        text: what it is, for --help.
        minimum: the lowest value.
        maximum: the highest value.
        needs: the property of a `Method` without which it means nothing; None for none.
        datasets: those that it means anything for; None for all.
        shared: whether a second stage must have it in common with its first one.
        is_parameter: whether it is a parameter of some methods, those that list it.
    """

    kind: type | tuple
    text: str
    minimum: float | None = None
    maximum: float | None = None
    needs: str | None = None
    datasets: tuple | None = None
    shared: bool = False
    is_parameter: bool = False

    def is_heeded(self, name, method):
        """Returns whether the flag of this name means anything for a `Method`."""
        if self.is_parameter:
            return name in method.parameters
        return self.needs is None or bool(getattr(method, self.needs))

    def define(self, name, default):
        """Defines the absl flag of this name."""
        text, bounds = self.text, {"lower_bound": self.minimum, "upper_bound": self.maximum}
        if self.is_parameter:
            users = [loss for loss, method in METHODS.items() if name in method.parameters]
            text = f"{', '.join(users)}: {text}."
        if self.kind is float:
            flags.DEFINE_float(name, default, text, **bounds)
        elif self.kind is int:
            flags.DEFINE_integer(name, default, text, **bounds)
        elif self.kind is bool:
            flags.DEFINE_bool(name, default, text)
        elif self.kind is str:
            flags.DEFINE_string(name, default, text)
        else:
            flags.DEFINE_enum(name, default, list(self.kind), text)


def flag(kind, text, minimum=None, maximum=None, default=None, **means_something):
    """Returns a field with a flag; without a default its value is the recipe's."""
    about = Flag(kind, text, minimum, maximum, **means_something)
    return dataclasses.field(default=default, metadata={"flag": about})


def parameter(kind, text, minimum=0):
    """Returns the field of a parameter of one or more methods."""
    return flag(kind, text, minimum, is_parameter=True)


# In these a run may differ from the recipe and still be a run of it.
REPEATS = ("seed", "data_seed", "precision")


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """The complete configuration of a run, what config.json holds.

    A field is the flag of its name; those without a flag are the recipe's alone. None is what has
    no value, or means nothing for the data set or the method.
    """

    dataset: str
    loss: str
    sampler: str | None = flag(
        lade_tf.data.SAMPLERS, "How training images are drawn.", needs="samplers"
    )
    augment: str | None = flag(
        lade_tf.data.AUGMENTATIONS, "Augmentation of training images.", needs="is_trained"
    )
    mixup: float | None = flag(float, "α of mixup.", needs="draws_single_batches")
    ema: float | None = flag(
        float,
        "Momentum of the weights' average, 0 for none.",
        0,
        0.99999,
        needs="draws_single_batches",
    )
    schedule: str | None = flag(
        ("step", "cosine"), "Schedule of the learning rate.", needs="makes_network"
    )
    synchronized_batchnorm: bool | None = flag(
        bool, "Batch statistics of all replicas together.", needs="makes_network"
    )
    weights: str | None = flag(
        str, "Of the backbone at the start: imagenet, none or a file.", needs="makes_network"
    )
    backbone_learning_rate: float | None = flag(
        float, "The backbone's own.", 0, needs="makes_network"
    )
    freeze_backbone: bool | None = flag(bool, "Train the classifier alone.", needs="makes_network")
    warmup_epochs: int | None = None
    milestones: tuple = ()
    factor: float | None = None
    momentum: float | None = None
    imbalance_ratio: float | None = flag(float, "Largest over smallest class.", 1, shared=True)
    max_pixel: int | None = flag(
        int,
        "White in PNGs of 16 bits: 4095 where they hold 12.",
        1,
        65_535,
        datasets=("folder",),
        shared=True,
    )
    image_root: str | None = flag(
        str, "Folder below which CSVs may name images elsewhere.", datasets=("folder",)
    )
    allow_duplicates: bool | None = flag(
        bool, "Accept an image file that is there twice, by links.", datasets=("folder",)
    )
    backbone: str | None = flag(
        tuple(builders.BACKBONES), "Network in front of the classifier.", shared=True
    )
    epochs: int | None = flag(int, "Epochs; milestones are scaled along.", 1, shared=True)
    batch_size: int | None = flag(int, "Images per step.", 1, needs="is_trained")
    learning_rate: float | None = flag(float, "Learning rate after warm-up.", 0, needs="is_trained")
    l2: float | None = flag(
        float, "Factor of the weights in their gradient.", 0, needs="is_trained"
    )
    image_size: int | None = flag(
        int, "Height and width of image files' pixels.", 8, datasets=recipes.LARGE, shared=True
    )
    seed: int = flag(int, "Seed of the weights, the data order and the augmentation.", default=0)
    data_seed: int = flag(
        int, "Seed of the draw of the long-tailed subset.", default=0, shared=True
    )
    precision: str = flag(
        tuple(POLICIES),
        "Compute precision; the halves are for GPUs, and bfloat16 for CPUs with AVX-512 or AMX.",
        default="float32",
        shared=True,
    )
    recipe: str = flag(
        tuple(recipes.RECIPES), "As published then, or stronger.", default="2021", shared=True
    )
    init_from: str | None = flag(
        str, "Run folder of softmax that a second stage starts from.", needs="second_stage"
    )
    alpha: float | None = parameter(float, "weight of LADER")
    remine_lambda: float | None = parameter(float, "weight of T² in LADER")
    estimator: str | None = parameter(lade_tf.ops.ESTIMATORS, "equations or released code")
    tau: float | None = parameter(float, "strength")
    gamma: float | None = parameter(float, "focusing parameter")
    beta: float | None = parameter(float, "of the effective number, in [0, 1)")
    label_smoothing: float | None = parameter(
        float, "share of the training prior in the label, in [0, 1)"
    )
    max_margin: float | None = parameter(float, "margin of the rarest class")
    scale: float | None = parameter(float, "what the cosines are multiplied by")
    drw_epoch: int | None = parameter(int, "epoch, from 1, in which re-weighting begins", 1)
    effect: float | None = parameter(
        float, "α of TDE, how much of the common direction is taken off"
    )
    stage2_epochs: int | None = parameter(int, "epochs of the second stage", 2)
    centroid_weight: float | None = parameter(float, "weight of the discriminative centroids loss")
    # What another version's config.json holds beside these: it tells runs apart.
    others: dict = dataclasses.field(default_factory=dict)

    @property
    def method(self):
        """The row of --loss in the table of methods."""
        return METHODS[self.loss]

    @property
    def num_epochs(self):
        """For how many epochs it trains; its first stage isn't counted."""
        if not self.method.is_trained:
            return 0
        return self.stage2_epochs if self.method.second_stage else self.epochs

    @property
    def run_name(self):
        """The name of a run's folder, with all that isn't as published in it.

        What a second stage starts from isn't part of it.
        """
        ratio, changed = self.imbalance_ratio, self.deviations
        parts = [self.dataset, *([f"ib{ratio:g}"] if ratio else []), self.loss]
        parts += [self.estimator] if self.estimator else []
        for name in recipes.LADER:
            parts += [name.removeprefix("remine_") + changed.pop(name)] if name in changed else []
        parts += [self.recipe] if self.recipe != "2021" else []
        parts += [f"{name}={value}" for name, value in sorted(changed.items())]
        parts += [f"{self.epochs}ep", f"seed{self.seed}"]
        parts += [f"data{self.data_seed}"] if self.data_seed else []
        parts += [self.precision] if self.precision != "float32" else []
        return "-".join(parts)

    @property
    def deviations(self):
        """{name: value as text} of what isn't as published.

        Published is the recipe of its data set, loss, --recipe, imbalance ratio, epochs and
        estimator.
        """
        kept = ("recipe", "imbalance_ratio", "epochs", "image_size", "estimator", *recipes.LADER)
        kept = {name: getattr(self, name) for name in kept}
        published = self._resolve(self.dataset, self.loss, **kept)
        of_lade = recipes.TABLE_7.get((self.dataset, self.imbalance_ratio), (None, None))
        of_lade = dict(zip(recipes.LADER, of_lade, strict=True))
        size = published.image_size and recipes.IMAGE_SIZE
        published = dataclasses.replace(published, image_size=size, **of_lade)
        aside = (*REPEATS, "init_from", "image_root", *self.others)
        return {
            name: as_text(getattr(self, name))
            for name in self.differing(published)
            if name not in aside and getattr(self, name) is not None
        }

    @classmethod
    def flags(cls):
        """Returns {name: `Flag`} of the fields that have one."""
        fields = dataclasses.fields(cls)
        return {f.name: f.metadata["flag"] for f in fields if "flag" in f.metadata}

    @classmethod
    def parameters(cls):
        """Returns the names of the methods' parameters."""
        return [name for name, about in cls.flags().items() if about.is_parameter]

    @classmethod
    def define_flags(cls):
        """Defines a flag for every field."""
        datasets, losses = ", ".join(recipes.DATASETS), ", ".join(METHODS)
        flags.DEFINE_string("dataset", None, f"Data set: {datasets}.", required=True)
        flags.DEFINE_string("loss", None, f"Method: {losses}.", required=True)
        defaults = {field.name: field.default for field in dataclasses.fields(cls)}
        for name, about in cls.flags().items():
            about.define(name, defaults[name])

    @classmethod
    def from_flags(cls, **values):
        """Returns the configuration that the flags mean; `values` take the place of theirs."""
        names = ("dataset", "loss", *cls.flags())
        given = {name: flags.FLAGS[name].value for name in names}
        if given["image_root"] is not None:
            path = pathlib.Path(given["image_root"]).expanduser()
            given["image_root"] = str(path.absolute())
        return cls.resolve(**{**given, **values})

    @classmethod
    def resolve(cls, dataset, loss, **given):
        """Returns the complete configuration of a run.

        Args:
            dataset: a key of `recipes.DATASETS`.
            loss: a key of `methods.METHODS`.
            given: {field: value or None}; None keeps the recipe's value. "recipe" names one of
                `recipes.RECIPES`. With another number of epochs the recipe's milestones are scaled
                along; the first epoch stays in front of them.

        Raises:
            ValueError: for an unknown data set or loss, for a parameter of another loss, and
                for a combination without published parameters unless they are given.
        """
        config = cls._resolve(dataset, loss, **given)
        if config.schedule == "cosine" and config.num_epochs == 1:
            origin = "" if given.get("schedule") else f"the recipe of {dataset} has "
            raise ValueError(
                f"{origin}--schedule=cosine, which ends at 0: it needs at least 2 --epochs; got 1"
            )
        if given.get("schedule") == "step" and not config.milestones and config.epochs > 1:
            raise ValueError(
                "--schedule=step drops the learning rate at milestones, and the recipe of "
                f"{dataset} has none: it would stay what it is to the end. Leave the flag out: it "
                "is cosine"
            )
        if given.get("freeze_backbone") and given.get("backbone_learning_rate") is not None:
            raise ValueError("--backbone_learning_rate means nothing with --freeze_backbone")
        return config

    @classmethod
    def _resolve(cls, dataset, loss, **given):
        if dataset not in recipes.DATASETS or loss not in METHODS:
            raise ValueError(
                f"--dataset={dataset} --loss={loss} isn't known. "
                f"Data sets: {', '.join(recipes.DATASETS)}. Losses: {', '.join(METHODS)}"
            )
        method = METHODS[loss]
        given = {name: value for name, value in given.items() if value is not None}
        cls._refuse_what_means_nothing(dataset, loss, given)
        published = recipes.published(dataset, loss, given.get("image_size"))
        own = {name: v(published) if callable(v) else v for name, v in method.recipe.items()}
        about = cls.flags()
        stronger = {
            name: value
            for name, value in recipes.RECIPES[given.get("recipe", "2021")][dataset].items()
            if about[name].is_heeded(name, method)
        }
        sampler = method.samplers[0] if method.samplers else None
        parameters = {name: given.pop(name) for name in cls.parameters() if name in given}
        values = {"sampler": sampler, **published, **stronger, **own, **given}
        if values["weights"] == "none" and "backbone_learning_rate" not in given:
            values["backbone_learning_rate"] = None  # a lower one is for a body trained already
        scale = values["epochs"] / published["epochs"]
        # A drop takes effect in its milestone's own epoch: in the first it would come before any
        # step.
        values["milestones"] = tuple(max(2, round(e * scale)) for e in values["milestones"])
        return cls(dataset, loss, **values)._with_parameters(parameters)

    def _with_parameters(self, given):
        """Returns the configuration with the parameters of its method."""
        own = self.method.parameters
        published = recipes.TABLE_7.get((self.dataset, self.imbalance_ratio), ())
        values = {**own, **dict(zip(recipes.LADER, published, strict=False)), **given}
        missing = [f"--{name}" for name in own if values[name] is REQUIRED]
        if missing:
            known = [f"{name} at {ratio}" if ratio else name for name, ratio in recipes.TABLE_7]
            raise ValueError(
                f"--dataset={self.dataset} --loss={self.loss} has no published parameters at "
                f"--imbalance_ratio={self.imbalance_ratio:g}: give {' and '.join(missing)}. "
                f"Known: {', '.join(known)}"
            )
        values = {name: values[name] for name in own}
        values = {name: v(self) if callable(v) else v for name, v in values.items()}
        return dataclasses.replace(self, **values)

    @classmethod
    def _refuse_what_means_nothing(cls, dataset, loss, given):
        """Raises a ValueError for a flag that the method or the data set doesn't heed."""
        method, about = METHODS[loss], cls.flags()
        useless = [
            f"--{name}"
            for name, of in about.items()
            if name in given and not of.is_heeded(name, method)
        ]
        if useless:
            raise ValueError(f"{', '.join(useless)} means nothing with --loss={loss}")
        if given.get("sampler", *method.samplers[:1]) not in (*method.samplers, None):
            raise ValueError(
                f"--sampler={given['sampler']} is wrong with --loss={loss}, whose logits would "
                f"carry another prior than it says: it needs {' or '.join(method.samplers)}"
            )
        for name in given:
            if about[name].datasets and dataset not in about[name].datasets:
                raise ValueError(f"--{name} means nothing with --dataset={dataset}")
        if dataset in recipes.LARGE and "imbalance_ratio" in given:
            raise ValueError(f"--dataset={dataset} has its own counts, so no --imbalance_ratio")

    @classmethod
    def from_json(cls, content, source="config"):
        """Returns the configuration in a config.json or result.json, of any version.

        A key that configurations got since has the value that nobody could change then. `source` is
        where the content is from, for messages.
        """
        needed = ("dataset", "loss", *REPEATS)
        if missing := [name for name in needed if name not in content]:
            raise ValueError(f"{source} must hold a run's configuration; it lacks {missing[0]}")
        names = [field.name for field in dataclasses.fields(cls)]
        known = {name: value for name, value in content.items() if name in names}
        then = {name: known.get(name) for name in ("imbalance_ratio", "epochs", *cls.parameters())}
        try:
            today = cls.resolve(known["dataset"], known["loss"], **then)
        except ValueError:  # no longer known
            today = cls(known["dataset"], known["loss"])
        if "milestones" in known:
            known["milestones"] = tuple(known["milestones"])
        others = {name: value for name, value in content.items() if name not in names}
        return dataclasses.replace(today, **known, others=others)

    def to_json(self):
        """Returns what config.json holds: all but the flags that mean nothing for the data set."""
        about = self.flags()
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        others = values.pop("others")
        for name, of in about.items():
            if of.datasets and self.dataset not in of.datasets:
                del values[name]
        if self.init_from is None:
            del values["init_from"]
        return {**values, "milestones": list(self.milestones), **others}

    @property
    def comparable(self):
        """The configuration with what doesn't tell runs apart left out.

        The first stage counts by its name alone, without the precision, which is the second's.
        Images may move, so --image_root doesn't count.
        """
        first_stage = pathlib.Path(self.init_from or "").name.removesuffix(f"-{self.precision}")
        return dataclasses.replace(self, init_from=first_stage or None, image_root=None)

    def same_run_as(self, other):
        """Returns whether two configurations mean the same run."""
        return self.comparable == other.comparable

    def first_stage_differences(self, first):
        """Returns in words why a run can't be the first stage of this one, "" if it can."""
        about = self.flags()
        same = ["dataset", *(name for name in about if about[name].shared)]
        expected = {name: getattr(self, name) for name in same}
        expected |= {"loss": "softmax", "sampler": "instance"}
        return "; ".join(
            f"its {name} is {getattr(first, name)!r} and not {value!r}"
            for name, value in expected.items()
            if getattr(first, name) != value
        )

    def follows(self, recipe):
        """Returns whether it is a run of a recipe, whatever its seeds and its precision."""
        own = dataclasses.replace(self.comparable, others=recipe.others)
        return {*REPEATS, "init_from"}.issuperset(own.differing(recipe.comparable))

    def differing(self, other):
        """Returns the names of the fields in which two configurations differ, and of `others`."""
        names = [field.name for field in dataclasses.fields(self) if field.name != "others"]
        different = [name for name in names if getattr(self, name) != getattr(other, name)]
        both = {*self.others, *other.others}
        return [*different, *(n for n in sorted(both) if self.others.get(n) != other.others.get(n))]

    def differences(self, other):
        """Returns in words in what another configuration means another run, "" if in nothing."""
        there, now = self.comparable, other.comparable
        return "; ".join(
            f"{name} is {there.value(name)!r} there and {now.value(name)!r} now"
            for name in sorted(there.differing(now))
        )

    def value(self, name):
        """Returns the value of a field or of one of `others`."""
        return self.others.get(name) if name in self.others else getattr(self, name, None)


def as_text(value):
    """Returns a value of a configuration as part of a name; of a path its end."""
    return f"{value:g}" if isinstance(value, float) else pathlib.Path(str(value)).name
