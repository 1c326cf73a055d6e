"""The steps of `make reproduce`, one module each."""
