"""Sliders over the grid for notebooks: any layer and any dim of one or more models, without a model call a move."""

from twodmse.widgets.maps import TextMap
from twodmse.widgets.own import BringYourOwn
from twodmse.widgets.scored import Grid, Scatter
from twodmse.widgets.sides import SideBySide
from twodmse.widgets.timeline import Replay
from twodmse.widgets.views import Ranking, TwoSentences, link_cells
from twodmse.widgets.why import WhyFlip

__all__ = [
    "BringYourOwn",
    "Grid",
    "Ranking",
    "Replay",
    "Scatter",
    "SideBySide",
    "TextMap",
    "TwoSentences",
    "WhyFlip",
    "link_cells",
]
