"""The backbone's server and certificates: made, kept, renewed on the machine that has the server."""
