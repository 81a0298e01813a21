"""The study behind this project's own pages: its runs, tables, claims and figures. Nothing else imports it."""
