"""Extractors: from the archives of a source to the plain text of its documents."""
