"""Requests and answers of the control socket: schema, server and client."""
