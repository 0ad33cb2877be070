"""Workers that die, lie or try to leave: the node goes on, and only their own invocations fail."""
