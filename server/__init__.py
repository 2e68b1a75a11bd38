"""The gRPC front: services, validation, gathering, admission, and the operators commands."""
