"""The checks of ``postroom doctor``, by what they look at."""
