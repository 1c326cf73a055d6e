"""The subcommands of `toedit`, one module each."""
