"""The scripted sale by both Python clients of gRPC, run as processes of their own."""
