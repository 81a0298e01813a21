"""Cells cut out for use, as models of their own."""

from twodmse.export.exporting import Exported, export

__all__ = ["Exported", "export"]
