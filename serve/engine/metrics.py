"""What the engine counts, for Prometheus. A registry of its own: importing this registers nothing."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Metrics:
    """Counters of one engine."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.running = Gauge("tapeout_samples_running", "Samples that hold a slot", registry=self.registry)
        self.waiting = Gauge("tapeout_requests_waiting", "Requests queued for a slot", registry=self.registry)
        self.requests = Counter("tapeout_requests", "Requests accepted", registry=self.registry)
        self.prefills = Counter("tapeout_prefills", "Prompts run", registry=self.registry)
        self.steps = Counter("tapeout_decode_dispatches", "Decode dispatches", registry=self.registry)
        self.prompt_tokens = Counter("tapeout_prompt_tokens", "Prompt tokens accepted", registry=self.registry)
        self.tokens = Counter("tapeout_generation_tokens", "Tokens generated", registry=self.registry)
        self.finished = Counter(
            "tapeout_samples_finished", "Samples by how they ended", ["reason"], registry=self.registry
        )
        self.ttft = Histogram(
            "tapeout_time_to_first_token_seconds",
            "From the request's arrival in the engine to its first token",
            buckets=SECONDS,
            registry=self.registry,
        )
        self.itl = Histogram(
            "tapeout_inter_token_latency_seconds",
            "Mean time per token of each delivery of a running sample",
            buckets=SECONDS,
            registry=self.registry,
        )

    def text(self) -> bytes:
        """The Prometheus exposition of every counter."""
        return generate_latest(self.registry)
