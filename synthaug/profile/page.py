"""`profile.html`."""


def page(fitted) -> str:
    """Empty."""
    return ""
