"""The one exception that theory raises for arguments a user could have got wrong."""


class InputError(ValueError):
    """An argument is outside what a result covers; the message is one sentence with the remedy."""
