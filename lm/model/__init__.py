"""One decoder for many families: configuration, presets, computation, sharding."""
