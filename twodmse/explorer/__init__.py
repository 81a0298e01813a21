"""The page that shows two models at every cell without a kernel."""

from twodmse.explorer.page import explorer_page, write_explorer

__all__ = ["explorer_page", "write_explorer"]
