"""AdaptedModel: a network, and after it the target prior of the place where it runs."""

import keras
import numpy as np

from lade_tf import priors
from lade_tf.layers.prior_adapt import PriorAdaptLayer, with_unlabelled_prior
from lade_tf.models import adaptation, compatibility
from lade_tf.models.carried_prior import carried_prior, weights_by_class
from lade_tf.models.export import export_saved_model, image_spec
from lade_tf.models.outputs import as_logits, check_output_shape
from lade_tf.models.preprocessing import has_preprocessor, preprocessed
from lade_tf.models.training import TrainedModel


@keras.saving.register_keras_serializable("lade_tf")
class AdaptedModel(TrainedModel):
    """A classifier whose answers are right for a target prior that can be set at any time.

    Calling it and `predict` give float32 logits adapted to the stored target prior; `network(x)`
    the raw ones. The loss given to `compile` sees the raw logits (adaptation is for inference),
    the metrics the adapted ones; as in Keras, `evaluate` needs a loss too. `jit_compile="auto"`
    means XLA on GPUs and none on CPUs, where it makes convolutions slower.

    A network with one output, [batch, 1] or [batch], judges two classes: z becomes the logits
    [0, z]. Labels are 0 or 1, [batch] or [batch, 1], and classes stand in that order everywhere.
    The loss may be a categorical cross-entropy or a binary one, which sees z.

    A KerasHub classifier keeps its preprocessor: `fit`, `evaluate`, `predict`, calls of this model
    and its export take what the classifier's own `predict` takes, raw images for example. As in
    KerasHub, a classifier that is a layer of another network applies none.

    Args:
        network: any Keras model that gives logits [batch, classes] (or probabilities, below).
        class_counts: [classes] training samples per class; (negative, positive) for one output.
        source_prior: [classes] the prior that the logits carry, "training" for that of
            `class_counts`, or None if they are disentangled.
        target_prior: [classes] the prior to adapt to at first, or None for uniform.
        from_logits: whether `network` gives logits; if not, its probabilities' logs are taken.
        zero_count: "error" refuses a class without samples, "smooth" adds 1 to every count.
        class_weight: the classes' weights in a loss that else leaves no prior, as in
            `lade_tf.adapt`: the logits carry what is proportional to them.
        sampled_counts: [classes] the samples drawn of each class for such a loss: the logits carry
            what is proportional to sampled_counts / class_counts.

    Raises:
        ValueError: for bad counts, priors or weights, more than one of `source_prior`,
            `class_weight` and `sampled_counts`, and a network of another number of classes.
    """

    # Why subclasses don't take a network with one output.
    ONE_OUTPUT_REFUSED = None

    def __init__(
        self,
        network,
        class_counts,
        source_prior=None,
        target_prior=None,
        from_logits=True,
        zero_count="error",
        class_weight=None,
        sampled_counts=None,
        **kwargs,
    ):
        # The network casts its own inputs; a second cast out here could only lose digits.
        super().__init__(autocast=False, **kwargs)
        self.training_prior = priors.class_prior(class_counts, zero_count)
        num_classes = self.training_prior.size
        compatibility.check_network(network, num_classes, from_logits, self.ONE_OUTPUT_REFUSED)
        self.network = network
        self.class_counts = priors.plain_counts(class_counts)
        self.zero_count = zero_count
        self.from_logits = from_logits
        told = class_weight, sampled_counts
        source_prior = carried_prior(None, self.training_prior, source_prior, *told)
        self._weights_told = weights_by_class(self.training_prior, *told)
        self.prior_adapt = PriorAdaptLayer(source_prior, target_prior, name="prior_adapt")
        self.prior_adapt.build((None, num_classes))
        self.supports_jit = not has_preprocessor(network)  # it runs on the CPU, perhaps on strings
        # All state exists already; saying so lets Keras save before the first call.
        self.built = network.built
        inputs = getattr(network, "inputs", None) or []
        if len(inputs) == 1 and not has_preprocessor(network):
            self._note_input_shape(inputs[0].shape)

    @property
    def target_prior(self):
        """The stored target prior, [classes] float32."""
        return keras.ops.convert_to_numpy(self.prior_adapt.target_prior)

    def set_target_prior(self, prior):
        """Sets the stored target prior, [classes]; None means uniform. Nothing is retraced."""
        self.prior_adapt.set_target_prior(prior)

    @property
    def temperature(self):
        """What the logits are divided by before they are adapted, a float; 1 until `calibrate`."""
        return float(self.prior_adapt.temperature)

    def predict_proba(self, inputs, batch_size=256):
        """Returns the classes' probabilities at the stored target prior: the softmax of `predict`.

        Args:
            inputs: what `predict` takes; of a data set labels and sample weights are passed over.
            batch_size: inputs of an array that the network is given at a time.

        Returns:
            [samples, classes] float32, in the order of the inputs.

        Raises:
            ValueError: for a data set without end and a bad `batch_size`.
        """
        return adaptation.predict_proba(self, inputs, batch_size)

    def calibrate(self, inputs, labels=None, batch_size=256, prior=False):
        """Fits the temperature that makes the confidences right, and keeps it.

        >>> model.calibrate(validation_images, validation_labels)

        A network trained for long is over-confident: its probabilities are too extreme under every
        target prior, and adaptation moves its decisions too little. It is fitted to the present
        network; after more training call this again. The loss never sees it.

        A warning is given where the labelled data contradict the prior that the logits are taken to
        carry (`lade_tf.label_shift.carried_prior.find_contradiction`). `prior=True` fits that prior
        as well, and keeps it: for a network of which nobody knows what weights, sampler or loss it
        was trained with. See `lade_tf.label_shift.fit_carried_prior`; again it starts from what the
        model was built with.

        Args:
            inputs: what `predict` takes, a labelled sample unseen in training.
            labels: its classes, integers [samples] or [samples, 1], of any label distribution; None
                takes those that the inputs yield, whatever their order: a tf.data.Dataset,
                PyDataset, PyTorch DataLoader or generator.
            batch_size: inputs of an array that the network is given at a time.
            prior: whether to fit the prior that the logits carry too.

        Returns:
            The temperature, a float.

        Raises:
            ValueError: as `lade_tf.label_shift.fit_temperature`, with `prior` as
                `fit_carried_prior`, and for inputs without end, with sample weights or with labels
                other than those given; the stored temperature and prior stay.
        """
        return adaptation.calibrate(self, inputs, labels, batch_size, prior)

    def adapt_to(
        self,
        target_inputs,
        source_inputs,
        source_labels=None,
        method="hierarchical",
        batch_size=256,
        **options,
    ):
        """Estimates the label distribution of unlabelled inputs and makes it the target prior.

        >>> model.adapt_to(new_images, validation_images, validation_labels)

        Args:
            target_inputs: what `predict` takes, unlabelled, from where the model is to run.
            source_inputs: what `predict` takes, a labelled sample unseen in training.
            source_labels: its classes, integers [source samples] or [source samples, 1], in the
                same order; None takes those that the inputs yield, as in `calibrate`.
            method: "hierarchical", or "em", "rlls" or "bbse" (`lade_tf.label_shift`).
            batch_size: inputs of an array that the network is given at a time.
            **options: what `lade_tf.label_shift.estimate` takes. `bootstrap` is 0 unless given:
                no test of whether it is a label shift at all and, except for "hierarchical", no
                intervals. `pseudo_count` of the others is 1 unless given, so that no class is left
                at 0.

        Returns:
            The `lade_tf.label_shift.PriorEstimate` whose prior is now the stored one.

        Raises:
            ValueError: as `lade_tf.label_shift.estimate`, and for inputs as in `calibrate`; the
                stored prior stays.
        """
        source = source_inputs, source_labels
        return adaptation.adapt_to(self, target_inputs, *source, method, batch_size, **options)

    def raw_logits(self, inputs, training=False):
        """Returns the network's float32 logits [batch, classes], before any target prior.

        They are [0, z] of a network with one output.
        """
        outputs = self.network(preprocessed(self.network, inputs), training=training)
        self.built = True  # training comes here without going through Keras' __call__
        if not self._build_shapes_dict and not keras.tree.is_nested(inputs):
            self._note_input_shape(inputs.shape)
        if not keras.tree.is_nested(outputs):
            check_output_shape(outputs.shape, len(self.class_counts), self.ONE_OUTPUT_REFUSED)
        return as_logits(outputs, self.from_logits)

    def _note_input_shape(self, shape):
        # Keras notes it in `build`, which isn't called here; TFLiteConverter looks for it there.
        self._build_shapes_dict = {"input_shape": (None, *shape[1:])}

    def get_build_config(self):
        return None  # a loaded model is built by its network

    def __call__(self, inputs, *args, **kwargs):
        args, kwargs = with_unlabelled_prior(args, kwargs, self.prior_adapt.target_prior)
        return super().__call__(inputs, *args, **kwargs)

    def call(self, inputs, target_prior=None, training=False):
        """Returns [batch, classes] logits adapted to `target_prior`, by default the stored one."""
        return self.prior_adapt(self.raw_logits(inputs, training), target_prior=target_prior)

    def predict(self, *args, **kwargs):
        self.prior_adapt.check_stored()
        return super().predict(*args, **kwargs)

    def export(
        self,
        filepath,
        format="tf_saved_model",
        verbose=None,
        input_signature=None,
        *,
        class_names=None,
        **kwargs,
    ):
        """Exports the model for inference.

        The default format is a SavedModel with named outputs, a signature for the stored prior and
        one that takes the target prior: see `lade_tf.models.export.export_saved_model`. Other
        formats are Keras' own and have the stored prior baked in.
        """
        self.prior_adapt.check_stored()
        if format != "tf_saved_model":
            input_signature = input_signature or [image_spec(self.network)]
            super().export(filepath, format, verbose, input_signature, **kwargs)
            return
        if kwargs:
            raise ValueError(f"{', '.join(kwargs)} means nothing for a SavedModel export")
        export_saved_model(self, filepath, class_names, input_signature)

    def get_config(self):
        told, source_prior = self._weights_told, self.prior_adapt.initial_source_prior
        return {
            **super().get_config(),
            # What they make of the source prior is in it already.
            **({} if told is None else {"weights_told": np.asarray(told).tolist()}),
            "network": keras.saving.serialize_keras_object(self.network),
            "class_counts": self.class_counts,
            "target_prior": self.prior_adapt.get_config()["target_prior"],
            "zero_count": self.zero_count,
            # Only what isn't the default: some subclasses have no such arguments.
            **({} if source_prior is None else {"source_prior": source_prior}),
            **({} if self.from_logits else {"from_logits": False}),
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        network = keras.saving.deserialize_keras_object(
            config["network"], custom_objects=custom_objects
        )
        config = {**config, "network": network}
        told = config.pop("weights_told", None)
        model = cls(**config)
        model._weights_told = None if told is None else np.asarray(told)
        return model
