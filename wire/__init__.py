"""gRPC over HTTP/2 on nghttp2, both roles: what the front speaks and what rounds travel on."""
