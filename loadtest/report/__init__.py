"""Pages, tables and plots made from results."""
