name = "llm-prod"
zone = "example.org"
host = "llm.example.org"

outside = ["192.0.2.10/32"] # the identity provider
