"""Run by each worker before its first job."""

order = ["script"]


def where() -> str:
    """Tell in which module this is."""
    return __name__
