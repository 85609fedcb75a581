//go:build !linux && !darwin

package app

// openFiles is how many files the process may have open: no limit is known.
func openFiles() uint64 { return 4 * maxConnections }
