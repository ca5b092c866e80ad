"""Steps and their processes: the graph, records, children, servers, the gate."""
