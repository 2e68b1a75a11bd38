"""Proof by other people's code: gRPC clients of four languages, interop clients, h2spec."""
