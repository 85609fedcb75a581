package embedded

// Setting is a setting of the embedded server.
type Setting struct {
	Name, Value string
	// ServerOnly says why the product works without it on another server; empty for what
	// it relies on, which every session of kit/pg then sets itself.
	ServerOnly string
}

// Settings are what the embedded server is given, beside where it listens. They trade
// memory for speed, never safety. The log shows neither statements nor the values in an
// error's details: those are people's addresses.
func Settings() []Setting {
	const speed, private = "speed only", "what a server logs is its operator's to decide; this one's log lies in the data folder"
	return []Setting{
		{"max_connections", "120", "all pools of one process together have fewer than the default of 100; demo and simulator run beside them"},
		{"shared_buffers", "256MB", speed},
		{"wal_compression", "on", speed},
		{"max_wal_size", "2GB", speed},
		{"checkpoint_timeout", "15min", speed},
		{"fsync", "on", "it cannot be set by a session, and is on everywhere"},
		{"synchronous_commit", "on", ""},
		{"timezone", "UTC", ""},
		{"log_timezone", "UTC", private},
		{"log_min_messages", "warning", private},
		{"log_error_verbosity", "terse", private},
		{"log_min_error_statement", "panic", private},
		{"jit", "off", ""},
	}
}
