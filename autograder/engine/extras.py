"""How to get what this project can do without."""

__all__ = ["CLUSTER"]

CLUSTER = "pip install -e '.[cluster]'"
"""For `attn grade --scheduler`; in the clone, where this package was installed from."""
