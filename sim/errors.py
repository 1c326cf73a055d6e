"""The one exception that sim raises for arguments a user could have got wrong."""


class InputError(ValueError):
    """An argument is outside what a simulation accepts; the message is one sentence with the remedy."""
