"""`stockray bench`: how fast, against a bare grpc.aio echo measured in the same run."""
