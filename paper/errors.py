"""The one exception that paper raises for input a user could have got wrong."""


class InputError(ValueError):
    """Input (a file, a folder, a parameter) cannot be used; the message is one sentence with the remedy."""
