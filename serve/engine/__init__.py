"""The inference engine: scheduler, cache, compiled programs, sampling."""
