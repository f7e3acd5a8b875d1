"""Requests and answers of the control socket, typed once: schema, server and client."""
