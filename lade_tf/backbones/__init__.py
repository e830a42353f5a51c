"""Networks that give features, and the linear head that turns features into logits."""

from lade_tf.backbones.head import classifier_head
from lade_tf.backbones.resnet import resnet50, resnet152, resnext50
from lade_tf.backbones.resnet32 import resnet32
from lade_tf.backbones.small_cnn import small_cnn

__all__ = [
    "classifier_head",
    "resnet152",
    "resnet32",
    "resnet50",
    "resnext50",
    "small_cnn",
]
