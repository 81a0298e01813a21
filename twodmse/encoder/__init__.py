"""From texts to states; cutting; model folders."""

from twodmse.encoder.backbone import Backbone
from twodmse.encoder.encoder import Encoder, normalise
from twodmse.encoder.storage import Layout

__all__ = ["Backbone", "Encoder", "Layout", "normalise"]
