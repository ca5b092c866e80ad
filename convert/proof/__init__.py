"""What a conversion can prove: the certificate, and both models run."""
