"""Ledger and store to tables, figures and HTML. Imports neither ray nor torch."""
