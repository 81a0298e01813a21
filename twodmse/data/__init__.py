"""Texts in, named columns out."""

from twodmse.data.sets import TextSet, as_texts, distinct, load_pairs, load_texts

__all__ = ["TextSet", "as_texts", "distinct", "load_pairs", "load_texts"]
