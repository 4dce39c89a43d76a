"""Messages between plugins, the host application and the controller: the wire, the broker, its store."""
