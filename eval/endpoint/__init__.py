"""The server that is asked: requests and retries, what it answers in whatever shape, what it can take."""
