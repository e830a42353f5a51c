"""SGD and learning-rate schedules with the semantics of the published recipes."""

import re

import keras
import numpy as np
import tensorflow as tf

from lade_tf.checks import check_integer, check_number


@keras.saving.register_keras_serializable(package="lade_tf")
class SGD(keras.optimizers.Optimizer):
    """Momentum SGD with L2 inside the gradient and a velocity free of the learning rate.

    One step, for the gradient g of the loss with respect to a variable w:

        g <- g + l2 * w
        v <- momentum * v + g        (v = 0 before the first step)
        w <- w - learning_rate * v

    `keras.optimizers.SGD` keeps learning_rate * v instead of v, so after a drop of the learning
    rate it goes on with the old, larger steps; its `weight_decay` is decoupled from the gradient.

    Gradients are clipped, if at all, before the L2 term is added. A variable without a gradient
    (None) is left alone, L2 included. Sparse gradients are made dense, because L2 and momentum
    act on every row.

    Source: the optimizer of the released LADE recipes (PyTorch's SGD).

    Args:
        learning_rate: a float, a `LearningRateSchedule` or a callable without arguments.
        momentum: a number in [0, 1).
        l2: a number >= 0, the factor of w in the gradient.
        l2_exclude: regular expressions; a variable is left out of L2 if one of them is found
            (`re.search`) in its `path`, e.g. `[r"/(gamma|beta|bias)$"]`. By default L2 acts on
            all variables, batch norm and biases included, as in the recipes.
        learning_rate_factors: pairs (regular expression, number >= 0): the learning rate of a
            variable whose path has it is multiplied by the number, by the first one's if there
            are several. `[(r"^(?!logits/)", 0.1)]` slows down all but the layer named logits.
        name: the optimizer's name.
        **kwargs: further arguments of `keras.optimizers.Optimizer`, except `weight_decay`.

    Raises:
        ValueError: for a bad argument, or for `weight_decay`, which Keras decouples.
    """

    def __init__(
        self,
        learning_rate=0.01,
        momentum=0.9,
        l2=0.0,
        l2_exclude=(),
        learning_rate_factors=(),
        name="sgd",
        **kwargs,
    ):
        if kwargs.get("weight_decay") is not None:
            raise ValueError(
                "weight_decay is decoupled from the gradient in Keras and not supported here: "
                f"use l2; got weight_decay={kwargs['weight_decay']!r}"
            )
        momentum = check_number(momentum, "momentum", minimum=0, below=1)
        super().__init__(learning_rate=learning_rate, name=name, **kwargs)
        self.momentum = momentum
        self.l2 = check_number(l2, "l2", minimum=0)
        self.l2_exclude = _checked_patterns(l2_exclude, "l2_exclude")
        self.learning_rate_factors = _checked_factors(learning_rate_factors)

    def build(self, variables):
        """Creates a zero velocity for each variable and notes which variables L2 acts on."""
        if self.built:
            return
        super().build(variables)
        self._velocities = self.add_optimizer_variables(variables, "velocity")
        self._l2_factors = [self._l2_factor(variable) for variable in variables]
        self._rate_factors = [self._rate_factor(variable) for variable in variables]

    def update_step(self, gradient, variable, learning_rate):
        """Takes one step of one variable."""
        # Keras passes the tf.Variable, which has no path: hence the look-up by index.
        index = self._get_variable_index(variable)
        velocity = self._velocities[index]
        gradient = tf.cast(tf.convert_to_tensor(gradient), variable.dtype)
        gradient = self._add_l2(index, gradient, variable)
        # Not as one sum: TensorFlow would make it an AddN of three, which adds in an order that
        # depends on which buffer is free, and runs would differ in their last bits.
        self.assign(velocity, self.momentum * velocity)
        self.assign_add(velocity, gradient)
        rate = self._rate_factors[index] * tf.cast(learning_rate, variable.dtype)
        self.assign_sub(variable, rate * velocity)

    def stateless_apply(self, optimizer_variables, grads, trainable_variables):
        """Takes a step on tensors and leaves the variables alone, for programs without variables.

        Keras' TensorFlow optimizers refuse this because of tf.distribute: it is for one device.

        Args:
            optimizer_variables: the values of `variables`.
            grads: a gradient, or None, for each trainable variable.
            trainable_variables: the values of the variables that the optimizer was built with.

        Returns:
            Lists of new values: of the trainable variables, of the optimizer's.

        Raises:
            ValueError: with `gradient_accumulation_steps`.
        """
        if self.gradient_accumulation_steps:
            raise ValueError("gradient_accumulation_steps must not be set for stateless_apply")
        variables = [*self._trainable_variables, *self.variables]
        values = [*trainable_variables, *optimizer_variables]
        with keras.StatelessScope(zip(variables, values, strict=True)) as scope:
            learning_rate = self.learning_rate
            clipped = self._clip_gradients(list(grads))
            for index, (gradient, variable) in enumerate(
                zip(clipped, self._trainable_variables, strict=True)
            ):
                if gradient is None:
                    continue
                velocity = self._velocities[index]
                gradient = self._add_l2(index, tf.convert_to_tensor(gradient), variable)
                velocity.assign(self.momentum * velocity + gradient)
                rate = self._rate_factors[index] * tf.cast(learning_rate, variable.dtype)
                variable.assign(variable - rate * velocity)
                if variable.constraint is not None:
                    variable.assign(variable.constraint(variable))
            if self.use_ema:
                self._update_model_variables_moving_average(self._trainable_variables)
            self.iterations.assign_add(1)
        values = [scope.get_current_value(variable) for variable in variables]
        return values[: len(clipped)], values[len(clipped) :]

    def get_config(self):
        """Returns the arguments as JSON-able values."""
        config = super().get_config()
        config.update(
            momentum=self.momentum,
            l2=self.l2,
            l2_exclude=list(self.l2_exclude),
            learning_rate_factors=[list(pair) for pair in self.learning_rate_factors],
        )
        return config

    def _add_l2(self, index, gradient, weights):
        factor = self._l2_factors[index]
        return gradient + factor * weights if factor else gradient

    def _l2_factor(self, variable):
        path = getattr(variable, "path", variable.name)
        excluded = any(re.search(pattern, path) for pattern in self.l2_exclude)
        return 0.0 if excluded else self.l2

    def _rate_factor(self, variable):
        path = getattr(variable, "path", variable.name)
        factors = [f for pattern, f in self.learning_rate_factors if re.search(pattern, path)]
        return factors[0] if factors else 1.0


@keras.saving.register_keras_serializable(package="lade_tf")
class WarmupStepDecay(keras.optimizers.schedules.LearningRateSchedule):
    """Linear warm-up, then a drop at each milestone; constant within an epoch.

    Epochs are counted from 1: epoch e of step s is s // steps_per_epoch + 1. The rate of epoch e is

        base_learning_rate * warmup(e) * factor ** (number of milestones <= e)

    with warmup(e) = 1/3 + 2/3 * e / warmup_epochs up to epoch warmup_epochs and 1 after it: for 5
    epochs .467, .6, .733, .867, 1. A drop takes effect in the milestone's own epoch, drops compound
    (a milestone given twice counts twice), and one inside the warm-up multiplies too.

    Source: the released LADE recipe for CIFAR-100-LT.

    Args:
        base_learning_rate: a finite number > 0.
        steps_per_epoch: an integer >= 1.
        milestones: integers >= 1, the epochs (counted from 1) in which a drop takes effect.
        factor: a finite number > 0, what a drop multiplies by.
        warmup_epochs: an integer >= 0.

    Raises:
        ValueError: for a bad argument.
    """

    def __init__(
        self,
        base_learning_rate,
        steps_per_epoch,
        milestones=(120, 160),
        factor=0.01,
        warmup_epochs=5,
    ):
        self.base_learning_rate = check_number(base_learning_rate, "base_learning_rate", above=0)
        self.steps_per_epoch = check_integer(steps_per_epoch, "steps_per_epoch", minimum=1)
        if not isinstance(milestones, (list, tuple)):
            raise ValueError(f"milestones must be a list or tuple of integers; got {milestones!r}")
        self.milestones = tuple(
            check_integer(epoch, "milestones", minimum=1) for epoch in milestones
        )
        self.factor = check_number(factor, "factor", above=0)
        self.warmup_epochs = check_integer(warmup_epochs, "warmup_epochs", minimum=0)
        last_change = max((1, self.warmup_epochs, *self.milestones))
        self._rates = [self._rate(epoch) for epoch in range(1, last_change + 1)]

    def __call__(self, step):
        """Returns the float32 learning rate of an integer step (or a tensor of steps)."""
        return _rate_at(step, self.steps_per_epoch, self._rates)

    def get_config(self):
        """Returns the arguments as JSON-able values."""
        return {
            "base_learning_rate": self.base_learning_rate,
            "steps_per_epoch": self.steps_per_epoch,
            "milestones": list(self.milestones),
            "factor": self.factor,
            "warmup_epochs": self.warmup_epochs,
        }

    def _rate(self, epoch):
        warmup = 1 / 3 + 2 / 3 * epoch / self.warmup_epochs if epoch < self.warmup_epochs else 1.0
        drops = sum(milestone <= epoch for milestone in self.milestones)
        return self.base_learning_rate * warmup * self.factor**drops


@keras.saving.register_keras_serializable(package="lade_tf")
class CosineByEpoch(keras.optimizers.schedules.LearningRateSchedule):
    """Half a cosine to zero, constant within an epoch.

    Epochs are counted from 1: epoch e of step s is s // steps_per_epoch + 1. The rate of epoch e is
    base_learning_rate / 2 * (1 + cos(pi * e / epochs)); it is 0 in the last epoch and after it.

    Source: the released LADE recipes for ImageNet-LT and iNaturalist 2018.

    Args:
        base_learning_rate: a finite number > 0.
        steps_per_epoch: an integer >= 1.
        epochs: an integer >= 1, the length of the run.

    Raises:
        ValueError: for a bad argument.
    """

    def __init__(self, base_learning_rate, steps_per_epoch, epochs):
        self.base_learning_rate = check_number(base_learning_rate, "base_learning_rate", above=0)
        self.steps_per_epoch = check_integer(steps_per_epoch, "steps_per_epoch", minimum=1)
        self.epochs = check_integer(epochs, "epochs", minimum=1)
        angles = np.pi * np.arange(1, self.epochs + 1) / self.epochs
        self._rates = (self.base_learning_rate / 2 * (1 + np.cos(angles))).tolist()

    def __call__(self, step):
        """Returns the float32 learning rate of an integer step (or a tensor of steps)."""
        return _rate_at(step, self.steps_per_epoch, self._rates)

    def get_config(self):
        """Returns the arguments as JSON-able values."""
        return {
            "base_learning_rate": self.base_learning_rate,
            "steps_per_epoch": self.steps_per_epoch,
            "epochs": self.epochs,
        }


def _rate_at(step, steps_per_epoch, rates):
    """Looks up the rate of a step's epoch; the last of `rates` holds for all later epochs.

    A table computed in float64 and indexed by integer division cannot shift a boundary, nor lose
    the small end of a cosine, as float32 arithmetic on the step would.
    """
    epoch_index = tf.cast(step, tf.int64) // steps_per_epoch
    return tf.gather(tf.constant(rates, tf.float32), tf.minimum(epoch_index, len(rates) - 1))


def _checked_patterns(patterns, name):
    # A lone string is a sequence of one-letter patterns, which would match nearly every path.
    if not isinstance(patterns, (list, tuple)):
        raise ValueError(f"{name} must be a list or tuple of regular expressions; got {patterns!r}")
    for pattern in patterns:
        try:
            re.compile(pattern)
        except (re.error, TypeError) as error:
            raise ValueError(
                f"{name} must hold valid regular expressions; got {pattern!r} ({error})"
            ) from error
    return tuple(patterns)


def _checked_factors(pairs):
    name = "learning_rate_factors"
    if not isinstance(pairs, (list, tuple)) or any(
        not isinstance(pair, (list, tuple)) or len(pair) != 2 for pair in pairs
    ):
        raise ValueError(
            f"{name} must be a list of pairs (regular expression, number); got {pairs!r}"
        )
    _checked_patterns([pattern for pattern, _ in pairs], name)
    return tuple((pattern, check_number(factor, name, minimum=0)) for pattern, factor in pairs)
