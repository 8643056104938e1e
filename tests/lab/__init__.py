"""The lab: real and scripted counterparts that the gateway is tested against, all on loopback."""
