"""Sliders over the grid for notebooks: any layer and any dim of one or more models, without a model call a move."""

from twodmse.widgets.views import Ranking, Replay, Scatter, TwoSentences

__all__ = ["Ranking", "Replay", "Scatter", "TwoSentences"]
