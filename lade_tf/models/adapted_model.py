"""AdaptedModel: a network, and after it the target prior of the place where it runs."""

import inspect

import keras
import numpy as np
import tensorflow as tf

from lade_tf import label_shift, losses, ops, priors
from lade_tf.array_checks import check_class_indices
from lade_tf.checks import check_integer
from lade_tf.label_shift.carried_prior import find_contradiction, warn_of_contradiction
from lade_tf.label_shift.confusion import label_shares
from lade_tf.label_shift.estimate import check_options
from lade_tf.layers.prior_adapt import PriorAdaptLayer, with_unlabelled_prior
from lade_tf.models import compatibility
from lade_tf.models.batches import ORDERED, Batches, batches_of, unlabelled, whole_numbers
from lade_tf.models.carried_prior import (
    carried_prior,
    check_class_weight,
    check_taken_out_once,
    weights_by_class,
)
from lade_tf.models.compatibility import (
    check_gives_logits,
    check_gives_probabilities,
    has_one_output,
    output_shape,
)
from lade_tf.models.export import export_saved_model, image_spec
from lade_tf.models.multi_worker import MultiWorkerModel
from lade_tf.models.outputs import as_logits, check_output_shape
from lade_tf.models.preprocessing import check_preprocessor, has_preprocessor, preprocessed

# Stands for −inf where metrics see logits: Keras' answer for any row that isn't finite is "wrong".
LOWEST_LOGIT = np.finfo(np.float32).min / 4
# What they learn of a class's logit isn't its difference to others.
PER_CLASS_LOSSES = losses.LADE | losses.ClassBalancedFocal


@keras.saving.register_keras_serializable("lade_tf")
class AdaptedModel(MultiWorkerModel):
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

    # Arguments of fit and train_on_batch that make no sense for a model's loss, and why.
    REFUSED = {}
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
        if not isinstance(network, keras.Model):
            raise ValueError(f"network must be a keras.Model that gives logits; got {network!r}")
        self._check_has_no_prior(network)
        shape = (None, 1) if has_one_output(network) else output_shape(network)
        if shape is not None:
            check_output_shape(shape, num_classes, self.ONE_OUTPUT_REFUSED)
        (check_gives_logits if from_logits else check_gives_probabilities)(network)
        check_preprocessor(network)
        self.network = network
        self.class_counts = priors.plain_counts(class_counts)
        self.zero_count = zero_count
        self.from_logits = from_logits
        told = class_weight, sampled_counts
        source_prior = carried_prior(None, self.training_prior, source_prior, *told)
        self._weights_told = weights_by_class(self.training_prior, *told)
        self.prior_adapt = PriorAdaptLayer(source_prior, target_prior, name="prior_adapt")
        self.prior_adapt.build((None, num_classes))
        self._compiles_replicas = self._has_binary_loss = False
        self._checks_loss = True
        self.supports_jit = not has_preprocessor(network)  # it runs on the CPU, perhaps on strings
        # All state exists already; saying so lets Keras save before the first call.
        self.built = network.built
        inputs = getattr(network, "inputs", None) or []
        if len(inputs) == 1 and not has_preprocessor(network):
            self._note_input_shape(inputs[0].shape)

    @staticmethod
    def _check_has_no_prior(network):
        """Raises a ValueError for a network that a second target prior would be added to."""
        layers = network._flatten_layers()
        has_prior = any(isinstance(layer, AdaptedModel | PriorAdaptLayer) for layer in layers)
        if has_prior:
            raise ValueError(
                "network must be a plain classifier; this one has a target prior already: set that"
            )

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
        logits, labels = self._labelled_logits("inputs", "labels", inputs, labels, batch_size)
        layer = self.prior_adapt
        if prior:
            taken = self.training_prior, layer.initial_source_prior
            fit = label_shift.fit_carried_prior(logits, labels, *taken)
            layer.set_temperature(fit.temperature)
            layer.set_source_prior(fit.prior)
            return fit.temperature
        temperature = label_shift.fit_temperature(logits, labels, layer.source_prior)
        layer.set_temperature(temperature)
        warn_of_contradiction(
            find_contradiction(logits, labels, self.training_prior, layer.source_prior)
        )
        return temperature

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
        check_options(method, options)
        num_classes = len(self.class_counts)
        target_inputs = unlabelled("target_inputs", target_inputs, self._sample_shape())
        source_logits, source_labels = self._labelled_logits(
            "source_inputs", "source_labels", source_inputs, source_labels, batch_size
        )
        prior = priors.uniform_prior(num_classes)
        if method == "em" and not options.get("calibrate", True):
            # Nothing moves these to the sample's own prior, which is where EM starts.
            prior = label_shares(source_labels, num_classes)
        source, target = (
            tf.nn.softmax(self.prior_adapt(logits, target_prior=prior)).numpy()
            for logits in (source_logits, self._predicted_logits(target_inputs, batch_size))
        )
        options = {"bootstrap": 0, "training_prior": self.training_prior, **options}
        estimate = label_shift.estimate(method, source, source_labels, target, **options)
        self.set_target_prior(estimate.prior)
        return estimate

    def _labelled_logits(self, inputs_name, name, inputs, labels, batch_size):
        """Returns raw logits [samples, classes] and labels [samples] of a labelled sample.

        What yields its labels is gone through once: another pass may have another order.
        """
        check_integer(batch_size, "batch_size", minimum=1)
        batches = batches_of(inputs_name, inputs, self._sample_shape())
        if labels is not None:
            if batches and not isinstance(inputs, ORDERED) and not batches.yields_labels:
                raise ValueError(
                    f"{inputs_name} must yield its labels too, (inputs, labels), where it is a "
                    f"{type(inputs).__name__}: its order is its own"
                )
            if batches and not isinstance(inputs, ORDERED):
                raise ValueError(
                    f"{name} must be left out where {inputs_name} is a {type(inputs).__name__}: "
                    "its order is its own, and the labels that it yields are used"
                )
            num_samples = len(inputs) if isinstance(inputs, np.ndarray) else None
            labels = whole_numbers(labels)
            labels = check_class_indices(name, labels, num_samples, len(self.class_counts))
        elif not (batches and batches.yields_labels):
            raise ValueError(
                f"{name} must be given, except for a tf.data.Dataset, PyDataset or other iterable "
                "that yields them"
            )
        if not batches:
            return self._predicted_logits(inputs, batch_size), labels
        logits, own = self._passed(batches)
        if own is None:
            return logits, labels
        own = whole_numbers(own)
        own = check_class_indices(name, own, None, len(self.class_counts))
        if labels is not None and not np.array_equal(labels, own):
            raise ValueError(
                f"{name} must be those that the inputs yield, in their order; these differ. Where "
                f"they are shuffled leave {name} out"
            )
        return logits, own

    def _sample_shape(self):
        """Returns the shape of one sample, None where it isn't known."""
        inputs = getattr(self.network, "inputs", None) or []
        is_known = len(inputs) == 1 and not has_preprocessor(self.network)
        return tuple(inputs[0].shape[1:]) if is_known else None

    def _passed(self, batches):
        """Returns raw logits [samples, classes] of `Batches`, and the labels or None."""
        forward = tf.function(self.raw_logits, reduce_retracing=True, autograph=False)
        passed = [(forward(x), y if y is None else np.asarray(y)) for x, y in batches]
        logits = tf.concat([logits for logits, _ in passed], axis=0)
        return logits, np.concatenate([y for _, y in passed]) if batches.yields_labels else None

    def _predicted_logits(self, inputs, batch_size):
        """Returns the raw logits [samples, classes] of what `predict` takes, or of `Batches`."""
        if isinstance(inputs, Batches):
            return self._passed(inputs)[0]
        if isinstance(inputs, np.ndarray) and not len(inputs):
            return np.zeros([0, len(self.class_counts)], np.float32)
        arrays = {} if isinstance(inputs, tf.data.Dataset) else {"batch_size": batch_size}
        return self._raw_predictor()(inputs, verbose=0, **arrays)

    def _raw_predictor(self):
        """Returns the `predict` of a model that gives raw logits, always the same."""
        if "_predict_raw" not in self.__dict__:
            with self.distribute_strategy.scope():
                # Not as an attribute: Keras would find a layer in it that holds this model.
                self.__dict__["_predict_raw"] = _RawLogits(self).predict
        return self.__dict__["_predict_raw"]

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

    def fit(self, *args, **kwargs):
        self._check_weighting(super().fit, args, kwargs)
        return super().fit(*args, **kwargs)

    def train_on_batch(self, *args, **kwargs):
        self._check_weighting(super().train_on_batch, args, kwargs)
        return super().train_on_batch(*args, **kwargs)

    def _check_weighting(self, method, args, kwargs):
        given = inspect.signature(method).bind_partial(*args, **kwargs).arguments
        for name, why in self.REFUSED.items():
            if given.get(name) is not None:
                raise ValueError(f"{name} must not be given to {type(self).__name__}: {why}")
        if given.get("class_weight") is not None:
            taken = self.prior_adapt.initial_source_prior, self.training_prior
            check_class_weight(given["class_weight"], self.loss, *taken)

    def train_step(self, data):
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        with tf.GradientTape() as tape:
            outputs, loss, share = self._loss_step(x, y, sample_weight)
            scaled_loss = self.optimizer.scale_loss(share * loss)
        gradients = tape.gradient(scaled_loss, self.trainable_variables)
        self.optimizer.apply(gradients, self.trainable_variables)
        return self._update_metrics(x, label_sets(y)[0], outputs, sample_weight, loss, share)

    def test_step(self, data):
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        if len(label_sets(y)) > 1:
            raise ValueError("labels that mixup gives are for training: evaluate on plain ones")
        outputs = self._outputs(x, training=False)
        loss, share = self._replica_loss(x, y, outputs, sample_weight, training=False)
        return self._update_metrics(x, y, outputs, sample_weight, loss, share)

    def _symbolic_build(self, iterator=None, data_batch=None):
        # With replicas Keras builds the compiled loss on a batch; it is for one set of labels.
        if isinstance(data_batch, tuple) and len(data_batch) > 1:
            data_batch = data_batch[0], label_sets(data_batch[1])[0], *data_batch[2:]
        super()._symbolic_build(iterator, data_batch)

    def _outputs(self, x, training):
        """Returns what the loss needs: the raw logits, in subclasses perhaps more."""
        return self.raw_logits(x, training)

    def _loss_step(self, x, y, sample_weight):
        """Returns (outputs, loss of this replica's examples, what it counts in the whole batch's).

        With XLA on several replicas the network is compiled, forwards and backwards; what
        exchanges anything between replicas can't be.
        """
        outputs_of = self._outputs
        if self._compiles_replicas:
            # A function of each replica's own: it captures the replica's variables.
            outputs_of = tf.function(outputs_of, jit_compile=True, autograph=False)
        outputs = outputs_of(x, training=True)
        of_each = [
            self._replica_loss(x, labels, outputs, sample_weight, training=True)
            for labels in label_sets(y)
        ]
        return outputs, *mixed(y, of_each)

    def _replica_loss(self, x, y, outputs, sample_weight, training):
        """Returns the loss of this replica's examples, and what it counts in the whole batch's."""
        replicas = self.distribute_strategy.num_replicas_in_sync
        loss = self.compute_loss(x, y, outputs, sample_weight, training)
        return loss * replicas, 1 / replicas  # Keras has divided it

    def _show(self, tracker, value, batch_size, share, sample_weight):
        """Adds a replica's value to a mean over batches, which shows that of one device.

        Args:
            tracker: the keras.metrics.Mean.
            value: of this replica's examples.
            batch_size: how many they are.
            share: what `_replica_loss` returned with the value.
            sample_weight: of this replica's examples, or None.
        """
        share = self._shown_share(share, sample_weight)
        if share is None:
            tracker.update_state(value, sample_weight=batch_size)
            return
        # Replicas add their values up: with weights of one size, shares make the batch's of them.
        replicas = self.distribute_strategy.num_replicas_in_sync
        mean_size = _sum_over_replicas(tf.cast(batch_size, tf.float32)) / replicas
        tracker.update_state(replicas * share * value, sample_weight=mean_size)

    def _shown_share(self, share, sample_weight):
        """Returns what a replica's loss counts in the batch's that is shown, None for its size."""
        if self.distribute_strategy.num_replicas_in_sync == 1:
            return None
        reduction = getattr(self.loss, "reduction", None)
        if reduction == "sum" or isinstance(self.loss, losses.LADE):
            return share  # these are parts of the batch's
        if reduction == "mean_with_sample_weight" and sample_weight is not None:
            weight = tf.reduce_sum(tf.cast(sample_weight, tf.float32))
            return tf.math.divide_no_nan(weight, _sum_over_replicas(weight))
        return None

    def _update_metrics(self, x, y, logits, sample_weight, loss, share):
        self._show(self._loss_tracker, loss, tf.shape(logits)[0], share, sample_weight)
        adapted = tf.maximum(self.prior_adapt(logits), LOWEST_LOGIT)
        return self.compute_metrics(x, y, adapted, sample_weight)

    def compile(
        self,
        optimizer="rmsprop",
        loss=None,
        loss_weights=None,
        metrics=None,
        *,
        jit_compile="auto",
        **kwargs,
    ):
        compatibility.check_expects_logits("loss", loss)
        self._has_binary_loss = self._check_fits_outputs(loss)
        if self._checks_loss:
            source_prior = self.prior_adapt.initial_source_prior
            check_taken_out_once(loss, source_prior, self.training_prior, self._weights_told)
        all_metrics = [metrics, kwargs.get("weighted_metrics")]
        if has_one_output(self.network):
            compatibility.check_takes_two_logits(all_metrics)
        compatibility.check_expects_logits("metrics", all_metrics)
        self._jit_compile_given = jit_compile
        has_gpu = bool(tf.config.list_physical_devices("GPU"))
        if jit_compile == "auto" and not (has_gpu and self.supports_jit):
            jit_compile = False
        # Keras would compile the whole step, collectives included, which TensorFlow can't.
        self._compiles_replicas = self._can_compile_replicas(jit_compile)
        if self.distribute_strategy.num_replicas_in_sync > 1:
            jit_compile = False
        super().compile(optimizer, loss, loss_weights, metrics, jit_compile=jit_compile, **kwargs)

    def _check_fits_outputs(self, loss):
        """Returns whether a loss is for one output; raises a ValueError where that can't be."""
        every = keras.tree.flatten(loss)
        names = ", ".join(map(compatibility.name_of, every))
        kinds = list(map(compatibility.is_binary, every))
        if any(kinds) and len(self.class_counts) != 2:
            raise ValueError(
                "loss must judge the classes against each other, for example "
                f"keras.losses.SparseCategoricalCrossentropy(from_logits=True); got {names}, which "
                "judges one output of two classes"
            )
        if any(kinds) and not all(kinds):
            raise ValueError(f"loss must take one output, or two logits, throughout; got {names}")
        for one in every:
            if has_one_output(self.network) and isinstance(one, PER_CLASS_LOSSES):
                raise ValueError(
                    f"loss must compare logits, for the network has one output; {one.name} needs "
                    "one of each class: lade_tf.losses.BalancedSoftmax also frees the logits of "
                    "the training prior"
                )
        return any(kinds)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Returns the compiled loss; a binary one sees the log odds of the second class."""
        if self._has_binary_loss:
            y, validity = ops.check_labels(y, y_pred, 2)
            y = tf.cast(y, tf.float32)[:, None] * validity
            y_pred = y_pred[:, 1:] - y_pred[:, :1]
        return super().compute_loss(x, y, y_pred, sample_weight, training)

    def _can_compile_replicas(self, jit_compile):
        """Whether XLA is wanted on several replicas and possible there."""
        if not jit_compile or self.distribute_strategy.num_replicas_in_sync == 1:
            return False
        layers = self.network._flatten_layers()
        synchronized = [layer.name for layer in layers if getattr(layer, "synchronized", False)]
        if synchronized and jit_compile != "auto":
            raise ValueError(
                "jit_compile must be False on several replicas with synchronised batch "
                f"normalisation ({synchronized[0]}): replicas exchange its statistics in the "
                "middle of the network, and XLA can't compile that"
            )
        return not synchronized

    def get_compile_config(self):
        config = super().get_compile_config()
        if config:  # what "auto" means is for the machine to say that loads the model
            config["jit_compile"] = self._jit_compile_given
        return config

    def compile_from_config(self, config):
        # Files from before don't say which weights of classes the loss was checked with.
        self._checks_loss = False
        self.compile(**keras.saving.deserialize_keras_object(config))
        self._checks_loss = True
        if self.built:
            self.optimizer.build(self.trainable_variables)

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
        told = self._weights_told
        return {
            **super().get_config(),
            # What they make of the source prior is in it already.
            **({} if told is None else {"weights_told": np.asarray(told).tolist()}),
            "network": keras.saving.serialize_keras_object(self.network),
            "class_counts": self.class_counts,
            "source_prior": self.prior_adapt.initial_source_prior,
            "target_prior": self.prior_adapt.get_config()["target_prior"],
            "from_logits": self.from_logits,
            "zero_count": self.zero_count,
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


class _RawLogits(keras.Model):
    """Gives a model's raw logits, for `predict`."""

    def __init__(self, model):
        super().__init__(autocast=False, name="raw_logits")
        self.model = model
        self.jit_compile = False

    def call(self, inputs):
        return self.model.raw_logits(inputs)


def _sum_over_replicas(value):
    return tf.distribute.get_replica_context().all_reduce("sum", value)


def label_sets(y):
    """Returns the labels that a batch has: one set, or the two that mixup gives."""
    if not isinstance(y, (tuple, list, dict)):
        return (y,)
    if not isinstance(y, tuple) or len(y) != 3 or not y[2].dtype.is_floating:
        raise ValueError(
            "labels must be one tensor [batch], or the three that mixup gives, "
            f"(labels, other labels, shares); got {keras.tree.map_structure(_describe, y)}"
        )
    return y[:2]


def _describe(tensor):
    return f"{tensor.dtype.name} {list(tensor.shape)}"


def mixed(y, losses):
    """Returns (loss, share) of those of each label set: by mixup's share, if there are two."""
    if len(losses) == 1:
        return losses[0]
    (first, share), (second, _) = losses
    of_first = tf.reduce_mean(y[2])
    return of_first * first + (1 - of_first) * second, share
