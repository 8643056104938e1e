"""The benchmark: CPU time of the gateway and of its peers per request and per streamed chunk."""
