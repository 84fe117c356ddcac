"""Start sooner: leave out an import that costs a second and serves nobody here."""

import sys

__all__ = ["spare_grammar"]


def spare_grammar() -> None:
    """Keep jsonschema, which nbformat imports, from compiling a grammar of internet addresses.

    It would check `iri` fields, and a notebook has none. Call this before nbformat is imported.
    """
    sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]  # None: "there is no such module"
