"""Texts in, named columns out."""

from twodmse.data.sets import TextSet, load_pairs, load_texts

__all__ = ["TextSet", "load_pairs", "load_texts"]
