"""Situations: covering arrays, circumstances, localising, and what exercises make of them."""
