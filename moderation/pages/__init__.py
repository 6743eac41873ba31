"""HTML pages that need nothing but themselves: no script, all text escaped."""
